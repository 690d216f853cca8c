package natstransport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
)

// HeaderPatience is a header of requests: how long the requester waits, in the form of
// time.ParseDuration, such as "1.5s". See ReplyConfig.Patience.
const HeaderPatience = "Dedup-Patience"

// What a requester may ask for: a request is not given up before its claim can
// have been answered, and one that waits takes room.
const (
	minPatience = 100 * time.Millisecond
	maxPatience = 5 * time.Minute
)

// ReplyConfig configures a [Reply]. A nil *ReplyConfig, and each zero field, means the default.
// NewReply copies it and never changes it.
type ReplyConfig struct {
	// Patience is how long a request waits while another run holds its key. After that it is
	// answered with code 409. It should be a little shorter than the timeout of the
	// requesters. A request can have its own in the header Dedup-Patience. Default 2s; from
	// 100ms to 5m.
	Patience time.Duration
	// Pending is how many requests may be in hand, waiting or running. Further requests are
	// answered with code 503. It does not limit how many handlers run at once:
	// dedup.Options.Concurrency does. Default 1024.
	Pending int
	// Logger receives a line for each reply that could not be sent. Default: no logging.
	Logger *slog.Logger
}

func (o *ReplyConfig) filled() (ReplyConfig, error) {
	var c ReplyConfig
	if o != nil {
		c = *o
	}
	wrong := within("Pending", c.Pending, math.MaxInt)
	if c.Patience != 0 && c.Patience < minPatience || c.Patience > maxPatience {
		wrong = errors.Join(wrong, fmt.Errorf("natstransport: Patience %v is not between %v and %v", c.Patience, minPatience, maxPatience))
	}
	if wrong != nil {
		return c, wrong
	}
	c.Patience = orDefault(c.Patience, 2*time.Second)
	c.Pending = orDefault(c.Pending, 1024)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

// Reply processes each request once. A request that is sent again gets the recorded reply, at
// the inbox that it has now, and the handler does not run. [Reply.Msg] serves subscriptions of
// core NATS. A Reply is also a micro.Handler, for services of the package micro. [NewReply]
// makes one. Its methods may be called by several goroutines at once.
//
// The result of the handler is the payload of the reply, which is sent when the result is
// recorded. An error is sent as a code and a description, in the headers of package micro. If
// it makes sense to send the request again, the header [HeaderRetryAfter] says when. The codes:
//
//   - 400: the request has no usable key.
//   - 409: another run holds the key, for longer than the requester waits.
//   - 410: the request was processed earlier, and its reply was longer than
//     dedup.Options.MaxResult.
//   - 422: the key is recorded with another payload.
//   - 500: the handler failed, or an operator must look.
//   - 503: the request was not processed, or its result could not be recorded: the store does
//     not answer, too many requests are pending, or Shutdown was called.
//
// A handler can return a [ServiceError] to choose code, description and payload. The text of
// other errors is not sent. An error is not recorded, so the request can be sent again. Only an
// error that is marked by [dedup.Permanent] is recorded: it is a reply like a result, and not a
// dead letter.
//
// A request has no Position and no Published. It is never stale, and [dedup.PositionKey] finds
// no key in it. A request without an inbox is processed and gets no reply.
//
// Do not let a stream store the subject of requests: the stream's confirmation would reach the
// requester before the reply. If a stream is to store the requests, use a [Consumer] with
// Config.Reply.
type Reply struct {
	conn    *nats.Conn
	d       deduplicator
	handler dedup.Handler
	config  ReplyConfig
	ctx     context.Context // of all handlers
	cancel  context.CancelCauseFunc

	mu      sync.Mutex
	closed  bool
	pending int
	idle    chan struct{} // closed when it is closed and nothing is pending
}

var _ micro.Handler = (*Reply)(nil)

// NewReply makes a Reply that processes requests with the handler h and sends replies on conn.
// o may be nil. The scope of d must be used for replies only, because a Reply reads every
// recorded result of the scope as a reply.
func NewReply(conn *nats.Conn, d *dedup.Deduplicator, h dedup.Handler, o *ReplyConfig) (*Reply, error) {
	if conn == nil || d == nil || h == nil {
		return nil, errors.New("natstransport: a Reply needs a connection, a Deduplicator and a handler")
	}
	config, err := o.filled()
	if err != nil {
		return nil, err
	}
	r := &Reply{conn: conn, d: d, handler: replying(h), config: config, idle: make(chan struct{})}
	r.ctx, r.cancel = context.WithCancelCause(context.Background())
	return r, nil
}

// Msg processes the request m and sends the reply. It returns at once. It is a nats.MsgHandler:
//
//	conn.QueueSubscribe("orders.place", "orders", reply.Msg)
func (r *Reply) Msg(m *nats.Msg) {
	r.take(&request{
		message: dedup.Message{Topic: m.Subject, Value: m.Data, Headers: headers(m.Header), Raw: m},
		inbox:   m.Reply,
	})
}

// Handle processes the request q of a service and sends the reply. It implements
// micro.Handler. It returns at once, so that the endpoint can take the next request. The
// statistics of the service therefore contain neither the time that the request took nor its
// failure.
//
//	service.AddEndpoint("place", reply)
func (r *Reply) Handle(q micro.Request) {
	r.take(&request{
		message: dedup.Message{Topic: q.Subject(), Value: q.Data(), Headers: headers(nats.Header(q.Headers())), Raw: q},
		inbox:   q.Reply(), // not Respond, which is for the time of this call only
	})
}

// Shutdown waits until all requests in hand are answered. New requests are answered with code
// 503. If ctx ends first, Shutdown ends the contexts of the handlers that still run and returns
// an error without waiting for them. Drain the subscriptions before Shutdown, and shut the
// Deduplicator down after it.
func (r *Reply) Shutdown(ctx context.Context) error {
	r.mu.Lock()
	if !r.closed {
		r.closed = true
		r.rest()
	}
	r.mu.Unlock()
	defer r.cancel(dedup.ErrClosed)
	select {
	case <-r.idle:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("natstransport: requests are still being processed: %w", context.Cause(ctx))
	}
}

// rest tells Shutdown that there is nothing to wait for, if so. The caller holds mu.
func (r *Reply) rest() {
	if r.closed && r.pending == 0 {
		close(r.idle)
	}
}

// request is one request in hand.
type request struct {
	message dedup.Message
	inbox   string
	stage   atomic.Int32
	made    []byte // what the handler returned
}

// Stages of a request. Only one that waits can be given up.
const (
	stageWaiting = iota
	stageRunning
	stageAnswered // nobody waits for it any more
)

func (r *Reply) take(q *request) {
	r.mu.Lock()
	full := r.closed || r.pending >= r.config.Pending
	if !full {
		r.pending++
	}
	r.mu.Unlock()
	if full {
		out := refusal("503", "too many requests are pending, or the service is shutting down", time.Second)
		r.answer(q, &out)
		return
	}
	go func() {
		defer func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.pending--
			r.rest()
		}()
		r.serve(q)
	}()
}

// serve tries until the key is free or the requester's patience ends. What has
// begun then goes on, for the record: the next request of the key is answered
// from it.
func (r *Reply) serve(q *request) {
	timer := time.AfterFunc(r.patience(q), func() {
		if q.stage.CompareAndSwap(stageWaiting, stageAnswered) {
			out := inProgress(time.Second)
			r.answer(q, &out)
		}
	})
	defer timer.Stop()
	handler := func(ctx context.Context, m *dedup.Message) ([]byte, error) {
		q.stage.CompareAndSwap(stageWaiting, stageRunning)
		made, err := r.handler(ctx, m)
		q.made = made
		return made, err
	}
	for {
		result := r.d.Do(r.ctx, &q.message, handler)
		if result.Outcome == dedup.Busy && !errors.Is(result.Err, dedup.ErrConflict) &&
			q.stage.Load() == stageWaiting && pause(r.ctx.Done(), result.RetryAfter) {
			continue
		}
		if q.stage.Swap(stageAnswered) != stageAnswered {
			if result.Outcome == dedup.Processed && result.Omitted {
				result.Value, result.Omitted = q.made, false // it is here still
			}
			out := respond(result)
			r.answer(q, &out)
		}
		return
	}
}

// patience returns how long the requester waits.
func (r *Reply) patience(q *request) time.Duration {
	if v, ok := q.message.Headers.Get(HeaderPatience); ok {
		if d, err := time.ParseDuration(string(v)); err == nil {
			return min(max(d, minPatience), maxPatience)
		}
	}
	return r.config.Patience
}

// ackPrefix begins the reply subjects of what JetStream delivers.
const ackPrefix = "$JS.ACK."

func (r *Reply) answer(q *request, out *response) {
	switch {
	case q.inbox == "":
		return
	case strings.HasPrefix(q.inbox, ackPrefix): // it would be taken for an acknowledgement
		r.config.Logger.Error("a request was delivered by JetStream, where its inbox is lost: consume it by a Consumer with Config.Reply", "subject", q.message.Topic)
		return
	}
	if err := sendResponse(r.conn, q.inbox, out); err != nil {
		r.config.Logger.Warn("a reply could not be sent; the requester has to ask again", "subject", q.message.Topic, "err", err)
	}
}

// replying makes of h a handler whose results are responses.
func replying(h dedup.Handler) dedup.Handler {
	return func(ctx context.Context, m *dedup.Message) ([]byte, error) {
		return recordable(h(ctx, m))
	}
}

// recordable turns what a handler returned into a response, unless it is an error
// that is not to be recorded.
func recordable(data []byte, err error) ([]byte, error) {
	out := response{data: data}
	if err != nil {
		if !driver.IsPermanent(err) {
			return nil, err
		}
		out = serviceError(err)
	}
	return out.encode(), nil
}
