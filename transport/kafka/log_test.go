package kafkatransport

import (
	"context"
	"log/slog"
	"strings"
	"sync"
)

// countingHandler keeps the lines that were logged.
type countingHandler struct {
	mu       sync.Mutex
	messages []string
}

func (h *countingHandler) logger() *slog.Logger { return slog.New(h) }

func (h *countingHandler) Enabled(context.Context, slog.Level) bool { return true }
func (h *countingHandler) WithAttrs([]slog.Attr) slog.Handler       { return h }
func (h *countingHandler) WithGroup(string) slog.Handler            { return h }

func (h *countingHandler) Handle(_ context.Context, r slog.Record) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	text := r.Message
	r.Attrs(func(a slog.Attr) bool {
		text += " " + a.String()
		return true
	})
	h.messages = append(h.messages, text)
	return nil
}

// count returns how many lines begin with prefix.
func (h *countingHandler) count(prefix string) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range h.messages {
		if strings.HasPrefix(m, prefix) {
			n++
		}
	}
	return n
}
