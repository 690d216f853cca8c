package kafkatransport

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/offsetcommit"
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

// next returns who owns the partition from now on, with the store of that identity.
func (o owner) next(store string, now time.Time) owner {
	if o.store != "" && o.store != store {
		o.since = now.Truncate(time.Millisecond)
	}
	o.store = store
	return o
}

// identify finds out who owned the partitions, and tries until it has. It returns
// false if ctx ended first.
func (g *generation) identify(ctx context.Context) bool {
	backoff := backoff{}
	for ctx.Err() == nil {
		err := g.identifyOnce(ctx)
		switch {
		case err == nil:
			g.status.good(theOwner)
			return true
		case ctx.Err() == nil:
			g.status.bad(theOwner, err)
			g.link.renew()
			backoff.wait(ctx)
		}
	}
	return false
}

func (g *generation) identifyOnce(ctx context.Context) error {
	v, err := g.vouch()
	if err != nil {
		return err
	}
	metadata, err := g.link.committed(ctx, g.group, g.partitions)
	if err != nil {
		return err
	}
	for _, p := range g.partitions {
		was := parseOwner(metadata[p])
		p.owner = was.next(v.ID, time.Now())
		p.named = metadata[p] == p.owner.String()
		p.source.since = p.owner.since
		if was.store != "" && was.store != v.ID {
			g.log.Warn("partition was consumed with another store: its messages so far are flagged as stale", "partition", p.name, "store", v.ID, "other", was.store)
		}
	}
	return nil
}

// committed returns the metadata of the group's last commits.
func (l *link) committed(ctx context.Context, group string, ps []*partition) (map[*partition]string, error) {
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
	metadata := make(map[*partition]string, len(ps))
	for _, p := range ps {
		found := false
		for _, f := range res.Topics[p.source.topic] {
			if f.Partition != int(p.source.partition) {
				continue
			}
			if f.Error != nil {
				return nil, fmt.Errorf("%s: %w", p.name, f.Error)
			}
			metadata[p], found = f.Metadata, true
		}
		if !found {
			return nil, fmt.Errorf("the answer does not have partition %s", p.name)
		}
	}
	return metadata, nil
}

// commit sends the offsets to the coordinator of the group, as the member of the
// generation: it refuses those of an earlier one. kafka.Generation could not carry
// the metadata, and kafka.Client would commit leader epoch 0, by which a Java
// consumer that follows us would take the log for cut.
func (l *link) commit(ctx context.Context, gen *kafka.Generation, topics []offsetcommit.RequestTopic) error {
	res, err := l.roundTrip(ctx, &offsetcommit.Request{
		GroupID:         gen.GroupID,
		GenerationID:    gen.ID,
		MemberID:        gen.MemberID,
		RetentionTimeMs: -1, // the broker's own
		Topics:          topics,
	})
	if err != nil {
		return err
	}
	answer, ok := res.(*offsetcommit.Response)
	if !ok {
		return fmt.Errorf("unexpected answer %T to a commit", res)
	}
	for _, t := range answer.Topics {
		for _, p := range t.Partitions {
			if p.ErrorCode != 0 {
				return fmt.Errorf("%s/%d: %w", t.Name, p.PartitionIndex, kafka.Error(p.ErrorCode))
			}
		}
	}
	return nil
}
