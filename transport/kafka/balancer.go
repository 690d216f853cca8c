package kafkatransport

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"
)

// balancer makes up for two gaps of kafka-go. When one of the group's topics does
// not exist, the leader of the group is told of no partition at all, and would
// assign none of the others either. And nobody keeps what the leader assigned.
type balancer struct {
	kafka.GroupBalancer
	session *session
}

// UserData implements kafka.GroupBalancer. kafka-go calls it for each try to join.
func (b balancer) UserData() ([]byte, error) {
	b.session.mu.Lock()
	defer b.session.mu.Unlock()
	b.session.given = nil
	return b.GroupBalancer.UserData()
}

// AssignGroups implements kafka.GroupBalancer. kafka-go calls it between two
// generations, when this member has become the leader of the group.
func (b balancer) AssignGroups(members []kafka.GroupMember, partitions []kafka.Partition) kafka.GroupMemberAssignments {
	if len(partitions) == 0 {
		partitions = b.existing(members)
	}
	b.session.mu.Lock()
	defer b.session.mu.Unlock()
	b.session.given = make(map[string]int)
	for _, p := range partitions {
		b.session.given[p.Topic]++
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
	counts, err := b.session.link.partitions(ctx, names...)
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
