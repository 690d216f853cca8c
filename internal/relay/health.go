package relay

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
)

// health follows whether the other side answers: one log line for each change,
// and a longer wait the longer it does not.
type health struct {
	what   string
	where  string
	logger *slog.Logger

	mu       sync.Mutex
	failures int // in a row
	since    time.Time
}

var retryWait = dedup.Backoff(100*time.Millisecond, 5*time.Second)

// seen notes the outcome of one call and returns how long what failed should
// wait.
func (h *health) seen(errs []error) time.Duration {
	var failed error
	for _, err := range errs {
		if err == nil || dedup.IsPermanent(err) {
			failed = nil
			break // it answers: what it refuses is about the message
		}
		if !errors.Is(err, context.Canceled) { // not the end of our own call
			failed = err
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case failed == nil && h.failures > 0:
		h.logger.Info(h.what+" answers again", "where", h.where, "after", time.Since(h.since).Round(time.Millisecond))
		h.failures = 0
	case failed != nil && h.failures == 0:
		h.logger.Error(h.what+" does not take messages; trying again for ever", "where", h.where, "err", failed)
		h.since = time.Now()
	}
	if failed != nil {
		h.failures++
	}
	return retryWait(max(h.failures, 1))
}
