package redisstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// health knows which servers do not answer, so that operations for the others do
// not wait for them again and again: after grace, one caller at a time tries.
type health struct {
	grace  time.Duration
	logger *slog.Logger

	mu   sync.Mutex
	down map[string]*outage // by address
}

type outage struct {
	since, tried time.Time
	err          error
	trying       bool
}

// probePause is how long a server that does not answer is left alone.
const probePause = 100 * time.Millisecond

// maxDown bounds what is remembered of servers that are gone for ever.
const maxDown = 100

// enter asks whether to try a server. It returns an error if that is of no use.
func (h *health) enter(addr string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	o := h.down[addr]
	if o == nil || time.Since(o.since) < h.grace {
		return nil
	}
	if o.trying || time.Since(o.tried) < probePause {
		return &downError{addr, o.since, o.err}
	}
	o.trying = true
	return nil
}

// leave notes what came of it: nil is an answer, of whatever kind.
func (h *health) leave(addr string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	o := h.down[addr]
	switch {
	case err == nil && o != nil:
		delete(h.down, addr)
		if took := time.Since(o.since); took > h.grace {
			h.logger.Info("a Redis server answers again", "server", addr, "after", took.Round(time.Millisecond))
		}
	case err == nil:
	case errors.Is(err, context.Canceled): // the caller gave up, which says nothing
		if o != nil {
			o.trying = false
		}
	case o != nil:
		o.err, o.trying, o.tried = err, false, time.Now()
	default:
		if len(h.down) >= maxDown {
			clear(h.down)
		}
		h.down[addr] = &outage{since: time.Now(), tried: time.Now(), err: err}
	}
}

// downError says that a server was not asked.
type downError struct {
	addr  string
	since time.Time
	err   error
}

func (e *downError) Error() string {
	return fmt.Sprintf("%s has not answered for %v: %v", e.addr, time.Since(e.since).Round(time.Millisecond), e.err)
}

func (e *downError) Unwrap() error { return e.err }
