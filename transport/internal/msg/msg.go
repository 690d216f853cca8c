// Package msg has what all transports need to make a dedup.Message.
package msg

import (
	"time"

	"github.com/oncequeue/oncequeue/dedup"
)

// Published returns the broker's timestamp t as it is, even if it lies in the
// future: the broker tells the same in every delivery, and dedup.PositionKey
// recognizes the message by it. A timestamp that is not after the beginning of
// 1970 is none, and the result is zero.
func Published(t time.Time) time.Time {
	if t.UnixMilli() <= 0 {
		return time.Time{}
	}
	return t
}

// Millis is Published for a timestamp of Kafka's protocol, in milliseconds since 1970.
// Every number but -1, which is none, is a time: 0 and the years far from now too.
func Millis(ms int64) time.Time {
	if ms == -1 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

// Size returns how many bytes m counts where a transport bounds messages in bytes:
// its key, its value, its headers, and one.
func Size(m *dedup.Message) int {
	n := 1 + len(m.Key) + len(m.Value)
	for i := range m.Headers {
		n += len(m.Headers[i].Key) + len(m.Headers[i].Value)
	}
	return n
}
