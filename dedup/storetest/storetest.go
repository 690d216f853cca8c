// Package storetest holds a dedup.Store to its contract. Every store runs it
// from its own tests:
//
//	func TestStore(t *testing.T) {
//		storetest.Run(t, func(t *testing.T, clock storetest.Clock) dedup.Store {
//			return memstore.New(&memstore.Options{Now: clock.Now})
//		})
//	}
//
// The suite owns the time: it starts at a fixed date, moves only when the suite
// says so, and always by whole milliseconds, which every store can keep. A store
// without a clock of its own to replace, such as a server, moves that server's
// time in OnAdvance.
package storetest

import (
	"testing"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
)

// Clock is the time that a store under test lives in. It may be used by many
// goroutines at once.
type Clock interface {
	// Now returns the time.
	Now() time.Time
	// OnAdvance has f called after each change of the time, before the suite goes
	// on.
	OnAdvance(f func(now time.Time))
}

// Run runs the contract of dedup.Store, and that of dedup.Inspector if the
// store implements it, as sub-tests: the rules one by one, Model, and
// Linearizable.
//
// open is called once for each of them and returns an empty store on the clock;
// it registers its own cleanup on t.
func Run(t *testing.T, open func(t *testing.T, clock Clock) dedup.Store) {
	for _, group := range []struct {
		name  string
		rules []rule
	}{
		{"claim", claimRules},
		{"extend", extendRules},
		{"complete", settleRules(dedup.OpComplete)},
		{"park", settleRules(dedup.OpPark)},
		{"release", releaseRules},
		{"note", noteRules},
		{"unpark", unparkRules},
		{"expiry", expiryRules},
		{"token", tokenRules},
		{"apply", applyRules},
		{"vouch", vouchRules},
		{"extremes", extremeRules},
		{"inspector", inspectorRules},
	} {
		t.Run(group.name, func(t *testing.T) {
			for _, r := range group.rules {
				t.Run(r.name, func(t *testing.T) { r.run(newSuite(t, open)) })
			}
		})
	}
	t.Run("model", func(t *testing.T) { Model(t, open) })
	t.Run("linearizable", func(t *testing.T) { Linearizable(t, open) })
}

// rule is one rule of the contract.
type rule struct {
	name string
	run  func(s *suite)
}
