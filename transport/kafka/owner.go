package kafkatransport

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/offsetcommit"

	"github.com/oncequeue/oncequeue/dedup/driver"
)

// owner is what a commit says besides the offset, in its metadata: with which
// store the partition was consumed. So a partition that comes to a member with
// another store is noticed, and what that store does not know of is flagged.
type owner struct {
	store string    // its identity; empty: nobody said
	since time.Time // what another store recorded earlier is unknown to this one; zero: there was none
}

// ownerPrefix names the format and its version.
const ownerPrefix = "oncequeue/1"

// String returns "oncequeue/1 since=<ms since 1970> store=<id>".
func (o owner) String() string {
	var ms int64
	if !o.since.IsZero() {
		ms = o.since.UnixMilli()
	}
	return fmt.Sprintf("%s since=%d store=%s", ownerPrefix, ms, o.store)
}

// parseOwner reads the metadata of a commit. What others write there is nobody's.
func parseOwner(metadata string) (o owner) {
	rest, ours := strings.CutPrefix(metadata, ownerPrefix+" since=")
	since, store, complete := strings.Cut(rest, " store=")
	ms, err := strconv.ParseInt(since, 10, 64)
	if !ours || !complete || err != nil {
		return owner{}
	}
	if ms > 0 {
		o.since = time.UnixMilli(ms)
	}
	o.store = store
	return o
}

// next returns who owns the partition from now on, with the store that vouches. A
// commit that does not say with which store, be it by another kind of consumer or by
// an operator who set the offset, may hide another one. To a shared store that does
// not matter: its memory is that of all who use it.
func (o owner) next(committed bool, v driver.Vouch, now time.Time) (next owner, foreign bool) {
	switch {
	case o.store == v.ID:
	case o.store != "", committed && !v.Shared:
		o.since, foreign = now.Truncate(time.Millisecond), true
	}
	o.store = v.ID
	return o, foreign
}

var errNotAnswered = errors.New("the group's answer does not have the partition")

// identify finds out who owned the partitions, and starts each as soon as that is
// known. It tries until it knows all, or ctx ends.
func (g *generation) identify(ctx context.Context, start func(*partition)) {
	backoff := backoff{}
	for left := g.partitions; len(left) > 0; {
		var err error
		switch left, err = g.identifySome(ctx, left, start); {
		case ctx.Err() != nil:
			return
		case err != nil:
			g.status.bad(theOwner, err)
			g.link.renew()
		default:
			g.status.good(theOwner)
		}
		if len(left) > 0 {
			backoff.wait(ctx)
		}
	}
}

// identifySome returns the partitions to be asked for again: all of them if there is
// an error.
func (g *generation) identifySome(ctx context.Context, ps []*partition, start func(*partition)) (left []*partition, err error) {
	v, err := g.vouch()
	if err != nil {
		return ps, err
	}
	commits, err := g.link.committed(ctx, g.group, ps)
	if err != nil {
		return ps, err
	}
	for _, p := range ps {
		c, answered := commits[p.name]
		if !answered {
			c.err = errNotAnswered
		}
		if c.err != nil {
			g.status.bad(p.name, fmt.Errorf("ask who consumed %s last: %w", p.name, c.err))
			left = append(left, p)
			continue
		}
		if err := g.forgotten(p, c); err != nil {
			g.status.bad(p.name, err)
			left = append(left, p)
			continue
		}
		g.identified(p, c, v)
		start(p)
	}
	return left, nil
}

// forgetTimeout is how long after a topic was missing its offsets are doubted.
const forgetTimeout = 5 * time.Second

// forgotten returns an error as long as the group's offset of p may be that of a topic
// which was deleted: its coordinator forgets such offsets a moment after the brokers
// have the new topic. If there is an offset for longer, the topic was never gone. One
// that was there at the join, and is not any more, counts for nothing.
func (g *generation) forgotten(p *partition, c lastCommit) error {
	missing, _ := g.missing.Load(p.source.topic)
	at, doubted := missing.(time.Time)
	if last, ok := g.commits.Load(p.name); ok && last.(time.Time).After(at) {
		doubted = false // it is of the new one
	}
	switch {
	case c.offset >= 0 && doubted && time.Since(at) < forgetTimeout:
		return fmt.Errorf("%s was not there for a while: waiting whether the group forgets its offset %d", p.name, c.offset)
	case c.offset < 0 && p.first >= 0:
		p.first = g.config.StartOffset
		p.reset(p.first)
		p.committed.Store(-1)
	}
	return nil
}

// identified notes what the last commit of p says.
func (g *generation) identified(p *partition, c lastCommit, v driver.Vouch) {
	was := parseOwner(c.metadata)
	var foreign bool
	p.owner, foreign = was.next(c.offset >= 0, v, time.Now())
	p.named = c.metadata == p.owner.String()
	p.source.since = p.owner.since
	switch {
	case foreign && was.store != "":
		g.log.Warn("partition was consumed with another store: its messages so far are flagged as stale", "partition", p.name, "store", v.ID, "other", was.store)
	case foreign:
		g.log.Warn("the group's offset does not say with which store the partition was consumed, as after an operator set it or another kind of consumer committed it: the messages so far are flagged as stale", "partition", p.name, "store", v.ID)
	}
}

// lastCommit is the group's for a partition, or why it is not known.
type lastCommit struct {
	offset   int64 // -1: there is none
	metadata string
	err      error
}

// committed returns the group's last commits by the names of the partitions.
func (l *link) committed(ctx context.Context, group string, ps []*partition) (map[string]lastCommit, error) {
	topics := make(map[string][]int)
	for _, p := range ps {
		topics[p.source.topic] = append(topics[p.source.topic], int(p.source.partition))
	}
	res, err := l.client(requestTimeout).OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: group, Topics: topics})
	if err == nil {
		err = res.Error
	}
	if err != nil {
		return nil, err
	}
	commits := make(map[string]lastCommit, len(ps))
	for topic, found := range res.Topics {
		for _, f := range found {
			commits[partitionName(topic, int32(f.Partition))] = lastCommit{f.CommittedOffset, f.Metadata, f.Error}
		}
	}
	return commits, nil
}

// commit sends the offsets to the coordinator of the group, as the member of the
// generation: it refuses those of an earlier one. It returns what was refused, by the
// names of the partitions. kafka.Generation could not carry the metadata, and
// kafka.Client would commit leader epoch 0, by which a Java consumer that follows us
// would take the log for cut.
func (l *link) commit(ctx context.Context, gen *kafka.Generation, topics []offsetcommit.RequestTopic) (refused map[string]error, err error) {
	res, err := l.roundTrip(ctx, &offsetcommit.Request{
		GroupID:         gen.GroupID,
		GenerationID:    gen.ID,
		MemberID:        gen.MemberID,
		RetentionTimeMs: -1, // the broker's own
		Topics:          topics,
	})
	if err != nil {
		return nil, err
	}
	answer, ok := res.(*offsetcommit.Response)
	if !ok {
		return nil, fmt.Errorf("unexpected answer %T to a commit", res)
	}
	refused = make(map[string]error)
	for _, t := range topics {
		for _, p := range t.Partitions {
			refused[partitionName(t.Name, p.PartitionIndex)] = errNotAnswered
		}
	}
	for _, t := range answer.Topics {
		for _, p := range t.Partitions {
			name := partitionName(t.Name, p.PartitionIndex)
			if delete(refused, name); p.ErrorCode != 0 {
				refused[name] = kafka.Error(p.ErrorCode)
			}
		}
	}
	return refused, nil
}
