package redisstore

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// Options configure a [Store]. A nil *Options, and each zero field, means the default. New
// copies the Options and never changes them.
type Options struct {
	// Prefix is the beginning of the name of every key. Stores with different prefixes share
	// nothing. It may contain letters, digits and ":_-.". Default "oq:".
	Prefix string
	// VouchFrom is an operator's statement, when a store is created, that nobody else has
	// processed a message published since then. Messages that are older than the new store,
	// but not older than VouchFrom, are then not stale. It has no effect on a store that
	// exists. It must not be in the future. Default: the time of creation.
	VouchFrom time.Time
	// Timeout is how long Apply tries to get an answer from a server, with all repetitions.
	// After that the operations for that server fail with an unknown state. Operations for
	// other servers are not affected. Renewals of leases give up earlier: after a quarter of
	// the lease, but not before 250ms. At least 10ms. Default 2s.
	Timeout time.Duration
	// Applies is how many batches may be under way at once. Default 4.
	Applies int
	// Logger receives events that no return value can carry, such as a server that was
	// replaced. Default: no logging.
	Logger *slog.Logger
}

const (
	defaultPrefix  = "oq:"
	defaultTimeout = 2 * time.Second
	minTimeout     = 10 * time.Millisecond
	defaultApplies = 4
)

// filled returns a copy of o with the defaults in place, or what is wrong.
func (o *Options) filled() (Options, error) {
	var c Options
	if o != nil {
		c = *o
	}
	var wrong []error
	if c.Prefix == "" {
		c.Prefix = defaultPrefix
	}
	// Braces would put every key into one slot, and the others mean something in
	// the patterns of SCAN and of access lists.
	if i := strings.IndexFunc(c.Prefix, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune(":_-.", r)
	}); i >= 0 {
		wrong = append(wrong, fmt.Errorf(`redisstore: Prefix %q has a character that is none of letters, digits and ":_-.": choose another`, c.Prefix))
	}
	switch {
	case c.Timeout == 0:
		c.Timeout = defaultTimeout
	case c.Timeout < minTimeout:
		wrong = append(wrong, fmt.Errorf("redisstore: Timeout %v is less than %v: no server answers in that", c.Timeout, minTimeout))
	}
	switch {
	case c.Applies == 0:
		c.Applies = defaultApplies
	case c.Applies < 0:
		wrong = append(wrong, fmt.Errorf("redisstore: Applies %d is negative", c.Applies))
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.VouchFrom.After(time.Now()) {
		wrong = append(wrong, fmt.Errorf("redisstore: VouchFrom %v is in the future: give a time up to now", c.VouchFrom))
	}
	return c, errors.Join(wrong...)
}
