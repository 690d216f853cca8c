package kafkatransport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/heartbeat"
	metadataapi "github.com/segmentio/kafka-go/protocol/metadata"
)

// right is one that brokers check, by its number in the protocol.
type right int

const (
	read     right = 3
	write    right = 4
	describe right = 8
)

func (r right) String() string {
	switch r {
	case read:
		return "READ"
	case write:
		return "WRITE"
	}
	return "DESCRIBE"
}

// denied names the right on a topic, or on the group, that an answer says is missing. It
// returns other errors as they are.
func denied(err error, r right, topic, group string) error {
	switch {
	case errors.Is(err, kafka.TopicAuthorizationFailed):
		return fmt.Errorf("%w: grant this user %v on topic %q", err, r, topic)
	case errors.Is(err, kafka.GroupAuthorizationFailed):
		return fmt.Errorf("%w: grant this user READ on group %q", err, group)
	}
	return err
}

// checkTopics returns an error if a right on one of the topics is missing. Brokers before
// Kafka 2.3 do not tell.
func (l *link) checkTopics(ctx context.Context, r right, topics ...string) error {
	res, err := l.roundTrip(ctx, &rawMetadata{clientID: l.clientID, Request: metadataapi.Request{TopicNames: topics, IncludeTopicAuthorizedOperations: true}})
	if err != nil {
		return l.unreachable(err)
	}
	m, ok := res.(*topicRights)
	if !ok {
		return fmt.Errorf("unexpected answer %T to a request for metadata", res)
	}
	for _, t := range m.Topics {
		if !slices.Contains(topics, t.Name) {
			continue
		}
		told := t.TopicAuthorizedOperations != math.MinInt32 && t.TopicAuthorizedOperations != 0
		switch code := kafka.Error(t.ErrorCode); {
		case code == kafka.TopicAuthorizationFailed:
			return denied(code, describe, t.Name, "")
		case code == 0 && told && t.TopicAuthorizedOperations&(1<<r) == 0:
			return denied(kafka.TopicAuthorizationFailed, r, t.Name, "")
		}
	}
	return nil
}

// checkGroup returns an error if the right to be a member of the group is missing. It sends
// a heartbeat of nobody: brokers look at the right first, and then do not know the member.
func (l *link) checkGroup(ctx context.Context, group string) error {
	res, err := l.roundTrip(ctx, &rawHeartbeat{clientID: l.clientID, Request: heartbeat.Request{GroupID: group, GenerationID: -1, MemberID: "check"}})
	if err != nil {
		return l.unreachable(err)
	}
	if answer, ok := res.(*heartbeat.Response); ok && kafka.Error(answer.ErrorCode) == kafka.GroupAuthorizationFailed {
		return denied(kafka.GroupAuthorizationFailed, read, "", group)
	}
	return nil
}

// rawMetadata is a request for metadata that kafka-go does not answer from its memory. It
// implements protocol.RawExchanger.
type rawMetadata struct {
	metadataapi.Request
	clientID string
	version  int16
}

// Required implements protocol.RawExchanger.
func (r *rawMetadata) Required(versions map[protocol.ApiKey]int16) bool {
	r.version = versions[protocol.Metadata]
	return true
}

// RawExchange implements protocol.RawExchanger.
func (r *rawMetadata) RawExchange(rw io.ReadWriter) (protocol.Message, error) {
	if err := protocol.WriteRequest(rw, r.version, correlation, r.clientID, &r.Request); err != nil {
		return nil, err
	}
	res, err := decodeAnswer(rw, protocol.Metadata, r.version)
	if err != nil {
		return nil, err
	}
	m, ok := res.(*metadataapi.Response)
	if !ok {
		return nil, fmt.Errorf("unexpected answer %T to a request for metadata", res)
	}
	return &topicRights{*m}, nil
}

// topicRights is its answer. kafka-go takes one of its own type for the answer to a request
// of its own type.
type topicRights struct{ metadataapi.Response }

// rawHeartbeat is a heartbeat of version 0: kafka-go reads later ones wrongly. It
// implements protocol.RawExchanger.
type rawHeartbeat struct {
	heartbeat.Request
	clientID string
}

// Required implements protocol.RawExchanger.
func (r *rawHeartbeat) Required(map[protocol.ApiKey]int16) bool { return true }

// RawExchange implements protocol.RawExchanger.
func (r *rawHeartbeat) RawExchange(rw io.ReadWriter) (protocol.Message, error) {
	if err := protocol.WriteRequest(rw, 0, correlation, r.clientID, &r.Request); err != nil {
		return nil, err
	}
	return decodeAnswer(rw, protocol.Heartbeat, 0)
}
