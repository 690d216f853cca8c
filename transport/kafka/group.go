package kafkatransport

import (
	"context"
	"errors"
	"fmt"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/offsetcommit"

	"github.com/oncequeue/oncequeue/transport/internal/assignment"
)

// membership is the consumer group, for one generation: an assignment.Group.
type membership struct {
	link       *link
	group      string
	generation int32
	member     string
}

// Committed implements assignment.Group.
func (m *membership) Committed(ctx context.Context, ps []assignment.Name) (map[assignment.Name]assignment.LastCommit, error) {
	topics := make(map[string][]int)
	for _, p := range ps {
		topics[p.Topic] = append(topics[p.Topic], int(p.Number))
	}
	res, err := m.link.client(requestTimeout).OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: m.group, Topics: topics})
	if err == nil {
		err = res.Error
	}
	if err != nil {
		return nil, denied(err, read, "", m.group)
	}
	commits := make(map[assignment.Name]assignment.LastCommit, len(ps))
	for topic, found := range res.Topics {
		for _, f := range found {
			commits[assignment.Name{Topic: topic, Number: int32(f.Partition)}] = assignment.LastCommit{Offset: f.CommittedOffset, Metadata: f.Metadata, Err: denied(f.Error, describe, topic, m.group)}
		}
	}
	return commits, nil
}

// Commit implements assignment.Group. The coordinator refuses the commits of an earlier
// generation. kafka.Generation could not carry the metadata, and kafka.Client would
// commit leader epoch 0, by which a Java consumer that follows us would take the log for
// cut.
func (m *membership) Commit(ctx context.Context, marks []assignment.Mark) (refused map[assignment.Name]error, err error) {
	byTopic := make(map[string]int)
	var topics []offsetcommit.RequestTopic
	refused = make(map[assignment.Name]error, len(marks))
	for _, mark := range marks {
		at, known := byTopic[mark.Topic]
		if !known {
			at = len(topics)
			byTopic[mark.Topic] = at
			topics = append(topics, offsetcommit.RequestTopic{Name: mark.Topic})
		}
		topics[at].Partitions = append(topics[at].Partitions, offsetcommit.RequestPartition{
			PartitionIndex:       mark.Number,
			CommittedOffset:      mark.Offset,
			CommittedLeaderEpoch: -1,
			CommittedMetadata:    mark.Metadata,
		})
		refused[mark.Name] = assignment.ErrNotAnswered
	}
	res, err := m.link.roundTrip(ctx, &offsetcommit.Request{
		GroupID:         m.group,
		GenerationID:    m.generation,
		MemberID:        m.member,
		RetentionTimeMs: -1, // the broker's own
		Topics:          topics,
	})
	if err != nil {
		m.link.renew()
		return nil, err
	}
	answer, ok := res.(*offsetcommit.Response)
	if !ok {
		return nil, fmt.Errorf("unexpected answer %T to a commit", res)
	}
	for _, t := range answer.Topics {
		for _, p := range t.Partitions {
			name := assignment.Name{Topic: t.Name, Number: p.PartitionIndex}
			switch code := kafka.Error(p.ErrorCode); {
			case code == 0:
				delete(refused, name)
			case errors.Is(code, kafka.RebalanceInProgress):
				refused[name] = assignment.ErrLater
			default:
				refused[name] = denied(code, read, t.Name, m.group)
			}
		}
	}
	return refused, nil
}
