package natstransport

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/oncequeue/oncequeue/dedup"
)

// ErrRevoked is the context.Cause of the context of a handler that was still running when
// DrainTimeout had passed.
var ErrRevoked = errors.New("natstransport: the drain is over")

const (
	// maxGrace is how long handlers get to return once their context is cancelled.
	maxGrace = time.Second
	// stragglerTimeout is how long Run waits at its end for handlers that ignore
	// their cancelled context; DrainTimeout if that is shorter.
	stragglerTimeout = 5 * time.Second
	// prefetchSpan is how much more than what keeps the workers busy Prefetch may be by
	// default.
	prefetchSpan = 16
	// flushTimeout is how long the last acknowledgements may take to be sent.
	flushTimeout = 2 * time.Second
)

// Consumer is a member of a durable JetStream consumer. Any number of members share the
// messages of a durable consumer. [NewConsumer] makes one. Its methods may be called by
// several goroutines at once, but only one Run or RunBatch at a time: a second one returns an
// error.
type Consumer struct {
	js      jetstream.JetStream
	stream  string
	durable string
	config  Config
	running atomic.Bool
	session atomic.Pointer[session] // nil outside Run
	counts  counts
}

// NewConsumer makes a Consumer for the durable consumer of the stream. c may be nil.
// NewConsumer does not ask the server: [Consumer.Check] does.
//
// The connection belongs to the caller: close it after Run. Connect with
// nats.MaxReconnects(-1), because Run ends when the connection gives up reconnecting.
//
// All members should share one store. If each member has a store of its own, a message that is
// redelivered to another member is new there and runs again.
func NewConsumer(js jetstream.JetStream, stream, durable string, c *Config) (*Consumer, error) {
	config, err := c.filled()
	if err != nil {
		return nil, err
	}
	if js == nil {
		return nil, errNoJetStream
	}
	if err := checkName("stream", stream); err != nil {
		return nil, err
	}
	if err := checkName("consumer", durable); err != nil {
		return nil, err
	}
	return &Consumer{js: js, stream: stream, durable: durable, config: config}, nil
}

// Check returns an error if the server does not answer, if the durable consumer does not
// exist, or if its settings or those of the connection are unsafe. Where a command of the nats
// tool helps, the error names it. [Consumer.Run] waits for the server and the durable
// consumer, and refuses unsafe settings of the durable consumer as Check does.
func (c *Consumer) Check(ctx context.Context) error {
	conn := c.js.Conn()
	if conn.IsClosed() {
		return errClosed
	}
	if n := conn.Opts.MaxReconnect; conn.Opts.AllowReconnect && n >= 0 || !conn.Opts.AllowReconnect {
		return fmt.Errorf("natstransport: the connection gives up after %d tries to reconnect, and the consumer with it; connect with nats.MaxReconnects(-1)", n)
	}
	info, err := c.lookup(ctx)
	if err != nil {
		if unreachable(err) {
			err = fmt.Errorf("%w; check the address, and that JetStream is enabled there", err)
		}
		return err
	}
	return c.verify(info)
}

// Run consumes until ctx ends. It processes each message with the handler h, through
// [dedup.Deduplicator.Do].
//
// When ctx ends, Run drains: no handler is started any more, messages whose handler has not
// started are handed back to the server, and running handlers may finish within DrainTimeout.
// Until then their contexts do not end. Run returns nil if all of them finished.
//
// Run waits while the server does not answer or the durable consumer does not exist. It returns
// before ctx ends in three cases:
//
//   - The settings of the durable consumer are unsafe: see [Consumer.Check].
//   - The connection is closed for good.
//   - The Deduplicator halts. The error matches [dedup.ErrHalted]. The message is not
//     answered, and the server delivers it again after AckWait.
//
// The messages have no Raw.
func (c *Consumer) Run(ctx context.Context, d *dedup.Deduplicator, h dedup.Handler) error {
	if c.config.Reply {
		h = replying(h)
	}
	return c.runSingly(ctx, d, h)
}

func (c *Consumer) runSingly(ctx context.Context, d deduplicator, h dedup.Handler) error {
	return c.run(ctx, c.config.Workers, singly{n: c.config.Workers, d: d, h: h})
}

// RunBatch is [Consumer.Run] with a batch handler, through [dedup.Deduplicator.DoBatch]. A
// batch has the messages that are in hand at the moment, at most BatchSize. Four batches are
// processed at once.
func (c *Consumer) RunBatch(ctx context.Context, d *dedup.Deduplicator, h dedup.BatchHandler) error {
	if c.config.Reply {
		h = replyingBatch(h)
	}
	return c.runBatches(ctx, d, h)
}

func (c *Consumer) runBatches(ctx context.Context, d deduplicator, h dedup.BatchHandler) error {
	if c.config.OrderBy != nil {
		return errors.New("natstransport: OrderBy is for Run: a batch holds several messages of a key; leave it nil, or call Run")
	}
	return c.run(ctx, batchesAtOnce*c.config.BatchSize, batches{size: c.config.BatchSize, d: d, h: h})
}

// run has at least so many messages in hand by default that all workers can be busy.
func (c *Consumer) run(ctx context.Context, least int, w workers) error {
	if !c.running.CompareAndSwap(false, true) {
		return errors.New("natstransport: the Consumer runs already; make one for each member")
	}
	defer c.running.Store(false)
	s := newSession(ctx, c, least, prefetchSpan*least)
	c.session.Store(s)
	defer c.session.Store(nil)
	w.start(s)
	b, err := s.follow(ctx)
	return errors.Join(err, s.drain(b))
}

// follow serves one binding after the other until ctx ends, or until this member
// can do nothing more, and why. The last binding, if there is one, still holds.
func (s *session) follow(ctx context.Context) (*binding, error) {
	for {
		b, err := s.bind(ctx)
		if b == nil {
			return nil, err
		}
		s.bound.Store(true)
		ending := b.serve(ctx)
		s.bound.Store(false)
		switch ending {
		case stopping:
			return b, nil
		case halted:
			return b, s.halt.Load().(error)
		case connectionClosed:
			return b, errClosed
		}
		b.abandon()
	}
}

// drain ends the session: b is its last binding, or nil.
func (s *session) drain(b *binding) error {
	close(s.quit)
	if b != nil {
		b.stopPulling()
		defer b.close()
	}
	s.handBack()
	idle := make(chan struct{})
	go func() {
		s.busy.Wait()
		s.cancel(nil)
		close(idle)
	}()
	if pause(idle, s.config.DrainTimeout) {
		s.cancel(ErrRevoked)
		if pause(idle, maxGrace) {
			pause(idle, min(stragglerTimeout, s.config.DrainTimeout))
		}
	}
	if b != nil {
		if b.confirms != nil {
			b.confirms.wait(flushTimeout)
		}
		ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
		defer cancel()
		if err := s.conn.FlushWithContext(ctx); err != nil {
			s.log.Warn("the last acknowledgements may be lost; their messages come again, as duplicates", "err", err)
		}
	}
	select {
	case <-idle:
		return nil
	default:
		handlers := s.active.Load()
		return fmt.Errorf("natstransport: %d handlers still run although their context was cancelled, %d other calls wait for the store; their claims stay held until they return or this process ends", handlers, max(s.calls.Load()-handlers, 0))
	}
}
