package kafkatransport

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	produceapi "github.com/segmentio/kafka-go/protocol/produce"
	"github.com/segmentio/kafka-go/protocol/rawproduce"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/transport/internal/msg"
	"github.com/oncequeue/oncequeue/transport/internal/wait"
)

const (
	// leaderTries is how often a batch is sent to a partition whose leader moves.
	leaderTries   = 5
	leaderBackoff = 200 * time.Millisecond
	// maxRequestBytes is how large a request for many partitions may get, far below
	// the brokers' socket.request.max.bytes.
	maxRequestBytes = 8 << 20
)

// writer writes the messages of one call of Publish, in rounds: each round sends
// one request to each broker, with the next batch of each partition that it leads.
type writer struct {
	sink     *Sink
	messages []*dedup.Message
	errs     []error
}

// share is what a call writes to one partition.
type share struct {
	target
	indices []int // of the messages still to write, in their order
	limit   int   // how many a batch may have; less after a refusal
	batch   int   // how many the request under way has
	tries   int   // of that batch, while the partition's leader moves
}

// errHeldBack: not written, to keep the order of the partition.
var errHeldBack = dedup.Transient(errors.New("kafkatransport: not written, because an earlier message for the partition was not"))

// write writes the shares until nothing is left of them.
func (w *writer) write(ctx context.Context, shares []*share, leaders map[string]leaders) {
	for {
		requests := w.requests(ctx, shares, leaders)
		if len(requests) == 1 {
			for leader, r := range requests {
				w.send(ctx, leader, r)
			}
		} else {
			var sending sync.WaitGroup
			for leader, r := range requests {
				sending.Go(func() { w.send(ctx, leader, r) })
			}
			sending.Wait()
		}
		left, moved := shares[:0], false
		for _, s := range shares {
			if len(s.indices) > 0 {
				left, moved = append(left, s), moved || s.tries > 0
			}
		}
		if shares = left; len(shares) == 0 {
			return
		}
		if moved {
			w.sink.link.renew()
			wait.For(ctx.Done(), leaderBackoff)
			for topic := range leaders {
				leaders[topic] = w.sink.leaders(ctx, topic)
			}
		}
	}
}

// requests returns what to send to each broker now. Shares whose leader is not
// known are settled as moved, and all of them when ctx has ended.
func (w *writer) requests(ctx context.Context, shares []*share, leaders map[string]leaders) map[int32][]*share {
	requests := make(map[int32][]*share, 1)
	sizes := make(map[int32]int, 1)
	for _, s := range shares {
		size := 0
		for s.batch = 0; s.batch < min(len(s.indices), s.limit); s.batch++ {
			n := msg.Size(w.messages[s.indices[s.batch]])
			if s.batch > 0 && size+n > w.sink.config.BatchBytes {
				break
			}
			size += n
		}
		leader := leaders[s.topic].of(s.partition)
		switch {
		case ctx.Err() != nil:
			w.settle(s, dedup.Transient(context.Cause(ctx)))
		case leaders[s.topic].err != nil:
			w.settle(s, leaders[s.topic].err)
		case leader < 0:
			w.settle(s, dedup.Transient(errMoved))
		case sizes[leader] > 0 && sizes[leader]+size > maxRequestBytes: // in the next round
		default:
			requests[leader] = append(requests[leader], s)
			sizes[leader] += max(size, 1)
		}
	}
	return requests
}

// settle ends the batch of s that was sent, as err says. A batch that is refused for
// what is in it is sent again in smaller ones, until only the messages at fault are
// refused: brokers write all of a batch or nothing.
func (w *writer) settle(s *share, err error) {
	if err != nil {
		err = fmt.Errorf("kafkatransport: publish to %v: %w", s.target, err)
	}
	switch {
	case errors.Is(err, errRefused) && s.batch > 1:
		s.limit = s.batch / 2
		return
	case err == nil, errors.Is(err, errRefused): // it will never be written: nothing waits for it
		w.errs[s.indices[0]] = err
		s.indices = s.indices[s.batch:]
		s.limit, s.tries = min(2*s.limit, math.MaxInt32), 0
		return
	case errors.Is(err, errMoved):
		if s.tries++; s.tries < leaderTries {
			return
		}
	}
	for i, index := range s.indices {
		w.errs[index] = errHeldBack
		if i < s.batch {
			w.errs[index] = err
		}
	}
	s.indices = nil
}

// send sends one request, and settles what is in it.
func (w *writer) send(ctx context.Context, leader int32, shares []*share) {
	if !w.sink.throttle.wait(ctx, leader) { // before the request's own time begins
		for _, s := range shares {
			w.settle(s, dedup.Transient(context.Cause(ctx)))
		}
		return
	}
	ctx, cancel := context.WithTimeout(ctx, w.sink.config.Timeout)
	defer cancel()
	deadline, _ := ctx.Deadline()
	g := newGate(len(shares))
	topics := make(map[string]int, 1)
	req := &rawproduce.Request{Acks: int16(kafka.RequireAll), Timeout: int32(time.Until(deadline).Milliseconds() / 2)}
	for _, s := range shares {
		at, known := topics[s.topic]
		if !known {
			at = len(req.Topics)
			topics[s.topic] = at
			req.Topics = append(req.Topics, rawproduce.RequestTopic{Topic: s.topic})
		}
		t := &req.Topics[at]
		t.Partitions = append(t.Partitions, rawproduce.RequestPartition{
			Partition: int32(s.partition),
			RecordSet: protocol.RawRecordSet{Reader: &outgoing{
				gate: g, compression: w.sink.config.Compression, messages: w.messages, indices: s.indices[:s.batch],
			}},
		})
	}
	res, err := w.sink.link.roundTrip(ctx, req)
	if err != nil {
		err = w.unanswered(err, g)
		for _, s := range shares {
			w.settle(s, err)
		}
		return
	}
	codes := make(map[target]error, len(shares))
	if res, ok := res.(*produceapi.Response); ok {
		w.sink.throttle.asked(leader, time.Duration(res.ThrottleTimeMs)*time.Millisecond)
		for _, t := range res.Topics {
			for i := range t.Partitions {
				p := &t.Partitions[i]
				codes[target{t.Topic, int(p.Partition)}] = denied(classify(p), write, t.Topic, "")
			}
		}
	}
	for _, s := range shares {
		err, answered := codes[s.target]
		if !answered {
			err = dedup.MaybeDone(errors.New("the broker's answer does not have the partition"))
		}
		w.settle(s, err)
	}
}

// unanswered says what the error of a request means for its messages.
func (w *writer) unanswered(err error, g *gate) error {
	unsent := g.shut()
	var write *writeError
	switch {
	case errors.As(err, new(*rawproduce.Error)): // kafka-go knows no leader, or another one
		return dedup.Transient(fmt.Errorf("%w: %w", errMoved, err))
	case unsent, errors.As(err, &write):
		w.sink.link.renew()
		return dedup.Transient(w.sink.link.explained(err))
	}
	w.sink.link.renew()
	return dedup.MaybeDone(fmt.Errorf("the broker did not confirm: %w", err))
}

var (
	// errMoved: nothing is written; the partition has another leader, or none yet.
	errMoved = errors.New("the partition's leader is not known")
	// errRefused: nothing is written; the broker refuses the records themselves.
	errRefused = errors.New("the broker refuses it")
)

// classify says what the broker's answer means for the messages.
func classify(p *produceapi.ResponsePartition) error {
	if p.ErrorCode == 0 {
		return nil
	}
	code := kafka.Error(p.ErrorCode)
	err := error(code)
	if p.ErrorMessage != "" {
		err = fmt.Errorf("%w: %s", code, p.ErrorMessage)
	}
	if p.BaseOffset >= 0 && p.LogStartOffset >= 0 {
		// It is in the leader's log, and another broker became the leader before all
		// replicas had confirmed: the new one may have it or not. A broker that
		// refuses it at once has no offsets to tell.
		return dedup.MaybeDone(fmt.Errorf("written at %d, and not confirmed: %w", p.BaseOffset, err))
	}
	switch code {
	case kafka.NotLeaderForPartition, kafka.LeaderNotAvailable, kafka.UnknownTopicOrPartition,
		kafka.FencedLeaderEpoch, kafka.UnknownLeaderEpoch, kafka.ReplicaNotAvailable, kafka.BrokerNotAvailable:
		return dedup.Transient(fmt.Errorf("%w: %w", errMoved, err))
	case kafka.NotEnoughReplicas, kafka.ThrottlingQuotaExceeded,
		kafka.TopicAuthorizationFailed, kafka.ClusterAuthorizationFailed, kafka.SASLAuthenticationFailed, kafka.InvalidTopic:
		return dedup.Transient(err)
	case kafka.MessageSizeTooLarge, kafka.RecordListTooLarge, kafka.InvalidMessageSize:
		return dedup.Permanent(fmt.Errorf("%w: %w; make it smaller, or raise the topic's max.message.bytes", errRefused, err))
	case kafka.InvalidRecord, kafka.InvalidTimestamp, kafka.PolicyViolation, kafka.UnsupportedForMessageFormat, kafka.UnsupportedCompressionType:
		return dedup.Permanent(fmt.Errorf("%w: %w", errRefused, err))
	case kafka.InvalidMessage:
		return err // damaged on the way, or refused by an old broker: an attempt that counts
	}
	// RequestTimedOut, NotEnoughReplicasAfterAppend, and what is not known to
	// come before the write.
	return dedup.MaybeDone(err)
}
