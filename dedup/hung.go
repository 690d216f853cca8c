package dedup

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
)

// callHook calls a hook. One that panics is no reason to lose a message.
//
//go:noinline
func (d *Deduplicator) callHook(what string, call func()) {
	defer d.survive(what)
	call()
}

// inHook reports whether its caller was called, in the end, by a hook.
func inHook() bool {
	pcs := make([]uintptr, 64)
	for skip := 0; ; skip += len(pcs) {
		n := runtime.Callers(skip, pcs)
		for frames, more := runtime.CallersFrames(pcs[:n]), n > 0; more; {
			var f runtime.Frame
			f, more = frames.Next()
			if strings.HasSuffix(f.Function, "/dedup.(*Deduplicator).callHook") {
				return true
			}
		}
		if n < len(pcs) {
			return false
		}
	}
}

// hung calls the hook.
func (d *Deduplicator) hung(change int) {
	if d.o.Hooks.Hung != nil {
		d.callHook("the hook Hung", func() { d.o.Hooks.Hung(change) })
	}
}

// reportHung tells that the handler of r outlived its timeout and the lease of id.
func (d *Deduplicator) reportHung(r *run, id ID, at Position) {
	d.hung(1)
	defer d.survive("the logger")
	d.notes.hung(id, at, func() string { return string(r.stack()) })
}

// stack returns the stack of the goroutine that the handler of r runs in, which only
// the stacks of all show. If it cannot be told from those of other handlers, it returns theirs too.
func (r *run) stack() []byte {
	const most = 64 << 20
	all := make([]byte, 64<<10)
	for n := 0; ; all = make([]byte, 4*len(all)) {
		if n = runtime.Stack(all, true); n < len(all) || len(all) >= most {
			all = all[:n]
			break
		}
	}
	var found, handlers [][]byte
	line := []byte("/dedup.(*run).handle(")
	mine := fmt.Appendf(nil, "%s%p", line, r)
	for stack := range bytes.SplitSeq(all, []byte("\n\n")) {
		if bytes.Contains(stack, line) {
			handlers = append(handlers, stack)
		}
		if bytes.Contains(stack, mine) {
			found = append(found, stack)
		}
	}
	if found == nil {
		found = handlers
	}
	return bytes.Join(found, []byte("\n\n"))
}
