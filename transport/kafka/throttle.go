package kafkatransport

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/oncequeue/oncequeue/transport/internal/wait"
)

// throttle keeps to the pauses that brokers ask for when a quota is used up. A broker does
// not read from the connection meanwhile: a request that is sent all the same seems to be
// lost, and is carried out later.
type throttle struct {
	log *slog.Logger

	mu    sync.Mutex
	until map[int32]time.Time // by broker
	said  time.Time           // when it was logged
}

// sayThrottled is how often it is logged that a quota is used up.
const sayThrottled = time.Minute

// asked notes that the broker asked for a pause.
func (t *throttle) asked(broker int32, pause time.Duration) {
	if pause <= 0 {
		return
	}
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.until == nil {
		t.until = make(map[int32]time.Time)
	}
	if until := now.Add(pause); until.After(t.until[broker]) {
		t.until[broker] = until
	}
	if now.Sub(t.said) >= sayThrottled {
		t.said = now
		t.log.Warn("a broker throttles this client, whose quota is used up: it goes on more slowly", "broker", broker, "pause", pause)
	}
}

// wait waits until the broker takes requests. It returns false if ctx ended first.
func (t *throttle) wait(ctx context.Context, broker int32) bool {
	for {
		t.mu.Lock()
		left := time.Until(t.until[broker])
		t.mu.Unlock()
		if left <= 0 {
			return ctx.Err() == nil
		}
		if !wait.For(ctx.Done(), left) {
			return false
		}
	}
}
