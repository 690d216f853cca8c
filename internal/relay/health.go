package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
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
	last     time.Time // the latest failure
	err      error
}

// retryLimit is the longest wait before what the other side did not take is tried again.
const retryLimit = 5 * time.Second

var retryWait = dedup.Backoff(100*time.Millisecond, retryLimit)

// seen notes the outcome of one call and returns how long what failed should
// wait.
func (h *health) seen(errs []error) time.Duration {
	var failed error
	answered := false
	for _, err := range errs {
		switch {
		case err == nil, driver.IsPermanent(err):
			answered = true // what it refuses for good is about the message
		case !errors.Is(err, context.Canceled): // not the end of our own call
			failed = err
		}
	}
	if answered {
		failed = nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case answered && h.failures > 0:
		h.logger.Info(h.what+" answers again", "where", h.where, "after", time.Since(h.since).Round(time.Millisecond))
		h.failures = 0
	case failed != nil && h.failures == 0:
		h.logger.Error(h.what+" does not take messages; trying again for ever", "where", h.where, "err", failed)
		h.since = time.Now()
	}
	if failed != nil {
		h.failures++
		h.err, h.last = failed, time.Now()
	}
	return retryWait(max(h.failures, 1))
}

// failing returns why the last call failed, if it did not long ago: what fails is
// tried again within seconds, unless its partition went to another member.
func (h *health) failing(now time.Time) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.failures == 0 || now.Sub(h.last) > 3*retryLimit {
		return nil
	}
	return fmt.Errorf("it has taken no message for %v: %w", now.Sub(h.since).Round(time.Second), h.err)
}
