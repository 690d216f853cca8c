package lanes

import (
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"
)

var outer *testing.T

// bubble runs f in a synctest bubble of its own.
func bubble(_ *rapid.T, f func()) {
	var failed any
	synctest.Test(outer, func(*testing.T) {
		defer func() { failed = recover() }()
		f()
	})
	if failed != nil {
		panic(failed)
	}
}
