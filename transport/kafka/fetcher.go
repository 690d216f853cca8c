package kafkatransport

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"

	"github.com/oncequeue/oncequeue/transport/internal/assignment"
	"github.com/oncequeue/oncequeue/transport/internal/wait"
)

// fetcher fetches one partition during one generation of the group.
type fetcher struct {
	*assignment.Partition
	g       *generation
	source  source
	asked   atomic.Pointer[time.Time] // when the request under way was sent; nil: none is
	backoff wait.Backoff
	denied  int // how often in a row the partition denied its offset
}

func newFetcher(g *generation, p *assignment.Partition) *fetcher {
	return &fetcher{Partition: p, g: g, source: source{
		topic: p.Topic, partition: p.Number, maxWait: g.config.MaxWait, patience: g.config.fetchPatience, maxBytes: g.config.FetchMaxBytes,
	}}
}

// outOfRangeTries is how often a partition must deny an offset, while it says
// itself that it is out of range, before that is believed: a new leader can
// be behind for a moment.
const outOfRangeTries = 5

// errOutOfRange: the partition no longer has, or never had, the committed offset.
var errOutOfRange = errors.New("the committed offset is outside the log")

// run fetches the partition and hands the messages on until fetching ends or the
// partition cannot go on. Fetching pauses while there is no room in flight.
func (f *fetcher) run() {
	ctx := f.Fetching()
	offset, ok := f.locate(ctx)
	if !ok || !f.Begin(offset) {
		return
	}
	f.source.since = f.Since()
	for ctx.Err() == nil {
		answered := f.ask()
		b, err := f.source.fetch(ctx, f.g.link, offset)
		answered()
		if ctx.Err() != nil {
			return
		}
		err = f.hidden(ctx, err)
		if f.Missing(vanished(err)) {
			wait.Notify(f.g.rejoin)
			return
		}
		if errors.Is(err, kafka.OffsetOutOfRange) {
			if offset, ok, err = f.beside(ctx, offset); !ok {
				return
			}
			if err != nil {
				f.failed(ctx, err)
			}
			continue
		}
		f.denied = 0
		if err != nil {
			f.failed(ctx, err)
			continue
		}
		f.g.status.Good(f.Title)
		f.backoff.Reset()
		f.End.Store(b.end)
		if !f.Put(b.messages, b.next) {
			return
		}
		offset = b.next
		f.pause(ctx, b.throttle)
	}
}

func (f *fetcher) failed(ctx context.Context, err error) {
	f.g.status.Bad(f.Title, denied(err, read, f.Topic, ""))
	f.g.link.renew()
	f.backoff.Wait(ctx)
}

// vanished says whether an error means that the partition does not exist.
func vanished(err error) bool {
	return errors.Is(err, kafka.UnknownTopicOrPartition) || errors.Is(err, protocol.ErrNoTopic) || errors.Is(err, protocol.ErrNoPartition)
}

// hidden tells a topic that this user may not see from one that does not exist: kafka-go
// finds it in no metadata either way.
func (f *fetcher) hidden(ctx context.Context, err error) error {
	if errors.Is(err, protocol.ErrNoTopic) {
		if _, why := f.g.link.partitions(ctx, f.Topic); errors.Is(why, kafka.TopicAuthorizationFailed) {
			return why
		}
	}
	return err
}

// pause keeps to the pause that the broker asked for.
func (f *fetcher) pause(ctx context.Context, d time.Duration) {
	f.g.throttle.asked(0, d)
	for ; d > 0 && ctx.Err() == nil; d -= time.Second {
		wait.For(ctx.Done(), min(d, time.Second))
		f.g.status.Moved() // to wait is all there is to do
	}
}

// ask notes that a request is sent, until the returned function is called.
func (f *fetcher) ask() (answered func()) {
	now := time.Now()
	f.asked.Store(&now)
	return func() {
		f.asked.Store(nil)
		f.g.status.Moved()
	}
}

// unanswered says whether a request is without an answer for longer than within,
// and since when.
func (f *fetcher) unanswered(now time.Time, within time.Duration) (since time.Time, late bool) {
	if asked := f.asked.Load(); asked != nil && now.Sub(*asked) > within {
		return *asked, true
	}
	return time.Time{}, false
}

// locate returns the offset to begin at. It tries until the broker answers; false
// means that ctx ended first.
func (f *fetcher) locate(ctx context.Context) (int64, bool) {
	if f.First() >= 0 {
		return f.First(), true
	}
	for ctx.Err() == nil {
		answered := f.ask()
		start, end, err := f.g.link.bounds(ctx, f.Topic, f.Number)
		answered()
		if err == nil {
			return f.StartAt(start, end), true
		}
		if ctx.Err() == nil {
			f.failed(ctx, err)
		}
	}
	return 0, false
}

// beside decides where to go on after the partition denied the offset: at the same
// offset, with an error, until that is to be believed. It returns false when the
// partition cannot go on.
func (f *fetcher) beside(ctx context.Context, offset int64) (next int64, ok bool, err error) {
	target, err := f.outOfRange(ctx, offset)
	if !errors.Is(err, errOutOfRange) {
		return offset, true, err
	}
	if f.denied++; f.denied < outOfRangeTries {
		return offset, true, err
	}
	if f.g.config.OutOfRange == Fail {
		f.Halt(offset, err)
		return offset, false, nil
	}
	f.denied = 0
	return target, f.Skip(offset, target, err), nil
}

// goOn is what to do about it. An offset that an operator sets does not say with which
// store the partition was consumed.
const goOn = "to go on, choose OutOfRange Earliest or Latest, or set the group's offset: then a store that is not shared flags as stale what is there"

// outOfRange says how an offset that the broker denied lies to the log, and where
// the policy would go on.
func (f *fetcher) outOfRange(ctx context.Context, offset int64) (target int64, err error) {
	start, end, err := f.g.link.bounds(ctx, f.Topic, f.Number)
	target = start
	if f.g.config.OutOfRange == Latest {
		target = end
	}
	switch {
	case err != nil:
	case offset < start:
		err = fmt.Errorf("%w: %s at %d begins at %d, so up to %d messages were deleted unread; "+goOn, errOutOfRange, f.Title, offset, start, start-offset)
	case offset > end:
		err = fmt.Errorf("%w: %s at %d ends at %d, so it was created anew or cut; "+goOn, errOutOfRange, f.Title, offset, end)
	default:
		err = fmt.Errorf("%s: %w", f.Title, kafka.OffsetOutOfRange)
	}
	return target, err
}

// bounds returns the first offset of the partition's log, and its end.
func (l *link) bounds(ctx context.Context, topic string, partition int32) (start, end int64, err error) {
	res, err := l.client(requestTimeout).ListOffsets(ctx, &kafka.ListOffsetsRequest{
		Topics:         map[string][]kafka.OffsetRequest{topic: {kafka.FirstOffsetOf(int(partition)), kafka.LastOffsetOf(int(partition))}},
		IsolationLevel: kafka.ReadCommitted,
	})
	if err != nil {
		return 0, 0, err
	}
	found := res.Topics[topic]
	if len(found) != 1 {
		return 0, 0, fmt.Errorf("the answer does not have partition %s/%d", topic, partition)
	}
	return found[0].FirstOffset, found[0].LastOffset, found[0].Error
}
