package dedup

import (
	"errors"
	"log/slog"
	"time"
)

// teller is the last step: it calls the hooks and writes the log. Neither has a say in
// what becomes of a message.
type teller struct {
	scope  string
	hooks  Hooks
	logger *slog.Logger
	notes  notes
}

// decided tells what became of x.
func (d *teller) decided(x *delivery) {
	if x.res.Outcome == 0 { // runtime.Goexit in the handler, or a panic on the way
		x.end(Failed, errors.New("the call ended before its result was known; its claim lapses"))
	}
	d.observe(d.hooks.Decided, x)
	defer d.survive("the logger")
	d.notes.decided(x)
}

// observe calls a hook.
func (d *teller) observe(hook func(Event), x *delivery) {
	if hook == nil {
		return
	}
	d.callHook("a hook", func() {
		hook(Event{Scope: d.scope, Message: x.m, Result: *x.res, FirstSeen: x.firstSeen, Took: x.took, Started: x.call.received})
	})
}

// applied calls the hook.
func (d *teller) applied(ops int, took time.Duration, err error) {
	if d.hooks.Applied != nil {
		d.callHook("the hook Applied", func() { d.hooks.Applied(ops, took, err) })
	}
}

// hung calls the hook.
func (d *teller) hung(change int) {
	if d.hooks.Hung != nil {
		d.callHook("the hook Hung", func() { d.hooks.Hung(change) })
	}
}

// reportHung tells that the handler of r outlived its timeout and the lease of id.
func (d *teller) reportHung(r *run, id ID, at Position) {
	d.hung(1)
	defer d.survive("the logger")
	d.notes.hung(id, at, func() string { return string(r.stack()) })
}

func (d *teller) storeRefused(ops int, err error) {
	defer d.survive("the logger")
	d.notes.storeRefused(ops, err)
}

func (d *teller) storeChanged(down bool, err error) {
	defer d.survive("the logger")
	d.notes.storeChanged(down, err)
}

func (d *teller) freshStore(since, until time.Time) {
	defer d.survive("the logger")
	d.notes.fresh(since, until)
}

// callHook calls a hook. One that panics is no reason to lose a message.
//
//go:noinline
func (d *teller) callHook(what string, call func()) {
	defer d.survive(what)
	call()
}

// survive is deferred around the callbacks that have no say in what becomes of a
// message.
func (d *teller) survive(what string) {
	if r := recover(); r != nil {
		defer func() { _ = recover() }() // the logger itself may be what panics
		d.logger.Error(what+" panicked", "err", panicError(r))
	}
}
