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
)

// HeaderPatience is a header of requests: how long the requester waits, as
// time.ParseDuration reads it, such as "1.5s". See ReplyConfig.Patience.
const HeaderPatience = "Dedup-Patience"

// What a requester may ask for: a request is not given up before its claim can
// have been answered, and one that waits takes room.
const (
	minPatience = 100 * time.Millisecond
	maxPatience = 5 * time.Minute
)

// ReplyConfig configures a Reply. nil and zero values mean the defaults. NewReply
// copies it and never writes to it.
type ReplyConfig struct {
	// Patience is how long a request waits while another run holds its key, before
	// it is answered 409. Let it be a little shorter than the timeout of the
	// requesters; a request with a header Dedup-Patience says it for itself.
	// Default 2s; 100ms to 5m.
	Patience time.Duration
	// Pending is the number of requests in hand, waiting and running. More are
	// answered 503. dedup.Options.Concurrency bounds the handlers. Default 1024.
	Pending int
	// Logger receives replies that could not be sent. Default: discards.
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

// Reply answers each request once: one that is sent again gets the recorded
// reply, at the inbox it comes with, and no second run. It serves core
// subscriptions (Msg) and the services of package micro, whose Handler it is.
//
// What the handler returns is the payload of the reply, sent when it is recorded.
// An error is answered with a code, in the headers of package micro, and with
// Retry-After where it is worth while to send the request again:
//
//   - 400: no usable key
//   - 409: another run holds the key, for longer than the requester waits
//   - 410: processed earlier, and the reply was longer than dedup.Options.MaxResult
//   - 422: the key is recorded with another payload
//   - 500: the handler failed; or an operator must look
//   - 503: not processed, or the record of it failed: the store does not answer,
//     too many requests are pending, or Shutdown was called
//
// A handler chooses code, description and payload by a ServiceError; the text of
// other errors is not shown. Errors are not recorded, so that the request can be
// sent again, except those that are marked by dedup.Permanent: these are replies
// like any other, and no dead letters.
//
// A request has no Position and no time: it is never stale, and PositionKey finds
// no key in it. A request without an inbox is processed too.
//
// Do not let a stream store the subjects of requests: its confirmation would reach
// the requester before the reply. For requests that a stream stores there is
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

// NewReply makes a Reply that sends on conn. Its scope must not be that of
// consumers whose results are no replies.
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

// Msg answers the request m. It returns at once and is a nats.MsgHandler:
//
//	conn.QueueSubscribe("orders.place", "orders", reply.Msg)
func (r *Reply) Msg(m *nats.Msg) {
	r.take(&request{
		message: dedup.Message{Topic: m.Subject, Value: m.Data, Headers: headers(m.Header), Raw: m},
		inbox:   m.Reply,
	})
}

// Handle answers the request q of a service. It returns at once, so that the
// endpoint can take the next one; the service's statistics know neither how long
// the request took nor whether it failed:
//
//	service.AddEndpoint("place", reply)
func (r *Reply) Handle(q micro.Request) {
	r.take(&request{
		message: dedup.Message{Topic: q.Subject(), Value: q.Data(), Headers: headers(nats.Header(q.Headers())), Raw: q},
		inbox:   q.Reply(), // not Respond, which is for the time of this call only
	})
}

// Shutdown answers new requests with 503 and waits for those in hand. When ctx
// ends, it cancels the handlers that still run, and returns an error without
// waiting for them. Drain the subscriptions before, and shut the Deduplicator
// down after.
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
		if !dedup.IsPermanent(err) {
			return nil, err
		}
		out = serviceError(err)
	}
	return out.encode(), nil
}
