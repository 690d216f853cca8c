package dedup

import (
	"bytes"
	"fmt"
	"runtime"
)

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
