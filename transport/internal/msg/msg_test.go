package msg_test

import (
	"math"
	"testing"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/transport/internal/msg"
)

func TestPublishedIsTheBrokersTimestamp(t *testing.T) {
	now := time.Now()
	for _, x := range []struct{ given, want time.Time }{
		{now.Add(-time.Hour), now.Add(-time.Hour)},
		{now.Add(time.Hour), now.Add(time.Hour)}, // the clock of a producer or a server is ahead
		{time.UnixMilli(0), time.Time{}},
		{time.UnixMilli(-1), time.Time{}},
		{time.Time{}, time.Time{}},
	} {
		if got := msg.Published(x.given); !got.Equal(x.want) {
			t.Errorf("Published(%v): got %v, want %v", x.given, got, x.want)
		}
	}
}

func TestMillisAreExact(t *testing.T) {
	for _, ms := range []int64{0, -2, 1, 1_700_000_000_123, 1_796_044_698_682_000, math.MaxInt64, math.MinInt64} {
		if got := msg.Millis(ms); got.IsZero() || got.UnixMilli() != ms {
			t.Errorf("%d: got %v, which is %d", ms, got, got.UnixMilli())
		}
	}
	if got := msg.Millis(-1); !got.IsZero() {
		t.Errorf("no timestamp: got %v", got)
	}
}

func TestSize(t *testing.T) {
	m := dedup.Message{Key: []byte("key"), Value: []byte("value"), Headers: dedup.Headers{{Key: "h", Value: []byte("12")}}}
	if got := msg.Size(&m); got != 12 {
		t.Errorf("got %d, want 12", got)
	}
	if got := msg.Size(&dedup.Message{}); got != 1 {
		t.Errorf("an empty message: got %d, want 1: it must count", got)
	}
}
