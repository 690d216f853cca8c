package kafkatransport

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
)

// partition is one partition during one generation of the group.
type partition struct {
	*tracker
	source  source
	name    string // topic/partition, for logs and errors
	first   int64  // where the assignment begins: an offset, kafka.FirstOffset or kafka.LastOffset
	located atomic.Bool
	halted  atomic.Bool
	gone    atomic.Bool               // its topic was not there for a while, so its offsets mean nothing
	end     atomic.Int64              // of the log, as last heard; -1: not yet
	stop    context.CancelFunc        // ends fetching
	asked   atomic.Pointer[time.Time] // when the request under way was sent; nil: none is

	goneSince time.Time // only the fetcher uses it

	owner owner
	owned chan struct{} // closed when the last commit names the owner

	// For the committer.
	committed       atomic.Int64 // last committed offset; -1 if none
	resetsCommitted int          // of the tracker, at that time
	named           bool         // that commit names the owner
}

func partitionName(topic string, partition int32) string {
	return fmt.Sprintf("%s/%d", topic, partition)
}

// own notes that the last commit names the owner.
func (p *partition) own() {
	p.named = true
	select {
	case <-p.owned:
	default:
		close(p.owned)
	}
}

const (
	firstBackoff = 50 * time.Millisecond
	lastBackoff  = 2 * time.Second
	// outOfRangeTries is how often a partition must deny an offset, while it says
	// itself that it is out of range, before that is believed: a new leader can
	// be behind for a moment.
	outOfRangeTries = 5
	// vanishTimeout is how long a partition may be missing before this member joins
	// the group anew, to be told what there is.
	vanishTimeout = time.Second
)

// errOutOfRange: the partition no longer has, or never had, the committed offset.
var errOutOfRange = errors.New("the committed offset is outside the log")

// fetchAll fetches p and hands the messages to the workers until ctx ends or p
// cannot go on. Fetching pauses while there is no room in flight.
func (g *generation) fetchAll(ctx context.Context, p *partition) {
	offset, ok := g.locate(ctx, p)
	if !ok || !g.announce(ctx, p) {
		return
	}
	backoff := backoff{}
	outOfRange := 0
	for ctx.Err() == nil {
		answered := g.ask(p)
		b, err := p.source.fetch(ctx, g.link, offset)
		answered()
		if ctx.Err() != nil {
			return
		}
		if g.vanished(p, err) {
			return
		}
		if errors.Is(err, kafka.OffsetOutOfRange) {
			var target int64
			if target, err = g.outOfRange(ctx, p, offset); errors.Is(err, errOutOfRange) {
				if outOfRange++; outOfRange == outOfRangeTries {
					if g.config.OutOfRange == Fail {
						g.halt(p, offset, err)
						return
					}
					if !g.skip(ctx, p, offset, target, err) {
						return
					}
					offset, outOfRange = target, 0
					continue
				}
			}
		} else {
			outOfRange = 0
		}
		if err != nil {
			g.status.bad(p.name, err)
			g.link.renew()
			backoff.wait(ctx)
			continue
		}
		g.status.good(p.name)
		backoff.reset()
		p.end.Store(b.end)
		if !g.dispatch(ctx, p, b) {
			return
		}
		offset = b.next
	}
}

// announce waits until the group's commit names the owner of p: what this member
// does from then on, another store must not miss.
func (g *generation) announce(ctx context.Context, p *partition) bool {
	named := p.named
	p.located.Store(true)
	if named {
		return true
	}
	notify(g.name)
	select {
	case <-p.owned:
		return true
	case <-ctx.Done():
		return false
	}
}

// vanished follows the errors of p's fetches. A partition that does not exist for
// a moment may be another one afterwards, with its own offsets; brokers forget the
// group's offsets together with the topic. So nothing more is committed for it,
// nor for the others of its topic, which may not have been asked for meanwhile, and
// this member joins anew to learn where to begin: see forgotten.
func (g *generation) vanished(p *partition, err error) bool {
	missing := errors.Is(err, kafka.UnknownTopicOrPartition) || errors.Is(err, protocol.ErrNoTopic) || errors.Is(err, protocol.ErrNoPartition)
	if missing {
		g.missing.Store(p.source.topic, time.Now())
	}
	if missing && p.goneSince.IsZero() {
		p.goneSince = time.Now()
		for _, other := range g.partitions {
			if other.source.topic == p.source.topic {
				other.gone.Store(true)
			}
		}
	}
	if !p.gone.Load() || missing && time.Since(p.goneSince) < vanishTimeout {
		return false
	}
	g.log.Warn("partition was not there for a while, joining the group anew", "partition", p.name)
	notify(g.rejoin)
	return true
}

// ask notes that a request for p is sent, until the returned function is called.
func (g *generation) ask(p *partition) (answered func()) {
	now := time.Now()
	p.asked.Store(&now)
	return func() {
		p.asked.Store(nil)
		g.progress.moved()
	}
}

// unanswered says whether a request is without an answer for longer than within,
// and since when.
func (p *partition) unanswered(now time.Time, within time.Duration) (since time.Time, late bool) {
	if asked := p.asked.Load(); asked != nil && now.Sub(*asked) > within {
		return *asked, true
	}
	return time.Time{}, false
}

// locate returns the offset to begin at and gives p its tracker's start. It
// tries until the broker answers; false means that ctx ended first.
func (g *generation) locate(ctx context.Context, p *partition) (int64, bool) {
	if p.first >= 0 {
		return p.first, true
	}
	backoff := backoff{}
	for ctx.Err() == nil {
		answered := g.ask(p)
		start, end, err := g.link.bounds(ctx, p.source.topic, p.source.partition)
		answered()
		if err == nil {
			offset := start
			if p.first == kafka.LastOffset {
				offset = end
			}
			p.advance(offset)
			return offset, true
		}
		if ctx.Err() == nil {
			g.status.bad(p.name, err)
			g.link.renew()
			backoff.wait(ctx)
		}
	}
	return 0, false
}

// goOn is what to do about it. An offset that an operator sets does not say with which
// store the partition was consumed.
const goOn = "to go on, choose OutOfRange Earliest or Latest, or set the group's offset: then a store that is not shared flags as stale what is there"

// outOfRange says how an offset that the broker denied lies to the log, and where
// the policy would go on.
func (g *generation) outOfRange(ctx context.Context, p *partition, offset int64) (target int64, err error) {
	start, end, err := g.link.bounds(ctx, p.source.topic, p.source.partition)
	target = start
	if g.config.OutOfRange == Latest {
		target = end
	}
	switch {
	case err != nil:
	case offset < start:
		err = fmt.Errorf("%w: %s at %d begins at %d, so up to %d messages were deleted unread; "+goOn, errOutOfRange, p.name, offset, start, start-offset)
	case offset > end:
		err = fmt.Errorf("%w: %s at %d ends at %d, so it was created anew or cut; "+goOn, errOutOfRange, p.name, offset, end)
	default:
		err = fmt.Errorf("%s: %w", p.name, kafka.OffsetOutOfRange)
	}
	return target, err
}

// skip makes p go on at target. It returns false if ctx ended first.
func (g *generation) skip(ctx context.Context, p *partition, offset, target int64, why error) bool {
	skipped := max(target-offset, 0)
	for target < offset && !p.reset(target) { // what is in flight has the old offsets
		select {
		case <-ctx.Done():
			return false
		case <-p.freed:
		}
	}
	p.advance(target)
	g.counters.skipped.Add(skipped)
	g.log.Error("partition skips offsets, as OutOfRange says", "partition", p.name, "from", offset, "to", target, "skipped", skipped, "err", why)
	return true
}

// dispatch hands the messages of b to the workers, as there is room for them. It
// returns false if ctx ended first.
func (g *generation) dispatch(ctx context.Context, p *partition, b batch) bool {
	items := make([]item, 0, len(b.messages))
	for ms := b.messages; len(ms) > 0; {
		n, first := p.dispatchSome(ctx, ms)
		if n == 0 {
			return false
		}
		from := len(items)
		for i := range n {
			items = append(items, item{p, &ms[i], first + uint64(i)})
		}
		g.workers.take(items[from:])
		ms = ms[n:]
	}
	p.advance(b.next)
	return true
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

// backoff spaces tries: exponential, with jitter.
type backoff struct{ next time.Duration }

func (b *backoff) reset() { b.next = 0 }

func (b *backoff) wait(ctx context.Context) {
	b.next = min(max(2*b.next, firstBackoff), lastBackoff)
	pause(ctx.Done(), b.next/2+rand.N(b.next/2))
}

// pause waits for d. It returns false if quit was closed first.
func pause(quit <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-quit:
		return false
	case <-t.C:
		return true
	}
}
