package kafkatransport

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"
)

// balancer makes up for a gap of kafka-go: when one of the group's topics does
// not exist, the leader of the group is told of no partition at all, and would
// assign none of the others either.
type balancer struct {
	kafka.GroupBalancer
	link *link
}

// AssignGroups implements kafka.GroupBalancer.
func (b balancer) AssignGroups(members []kafka.GroupMember, partitions []kafka.Partition) kafka.GroupMemberAssignments {
	if len(partitions) == 0 {
		partitions = b.existing(members)
	}
	return b.GroupBalancer.AssignGroups(members, partitions)
}

func (b balancer) existing(members []kafka.GroupMember) (partitions []kafka.Partition) {
	topics := make(map[string]bool)
	for _, m := range members {
		for _, topic := range m.Topics {
			topics[topic] = true
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	names := slices.Sorted(maps.Keys(topics))
	counts, err := b.link.partitions(ctx, names...)
	if err != nil {
		return nil // the members look for topics on their own, and join again
	}
	for _, topic := range names {
		for id := range counts[topic] {
			partitions = append(partitions, kafka.Partition{Topic: topic, ID: id})
		}
	}
	return partitions
}
