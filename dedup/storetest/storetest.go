// Package storetest tests whether a [driver.Store] keeps its contract. Every store runs it in its
// own tests:
//
//	func TestStore(t *testing.T) {
//		storetest.Run(t, func(t *testing.T, clock storetest.Clock) driver.Store {
//			return memstore.New(&memstore.Options{Now: clock.Now})
//		})
//	}
//
// The suite owns the time. The time starts at a fixed date and moves only when the suite moves it,
// always by whole milliseconds, so that every store can keep it. If the clock of a store cannot be
// replaced, because it is a server's, the store's test sets the server's time in Clock.OnAdvance.
package storetest

import (
	"testing"
	"time"

	"github.com/oncequeue/oncequeue/dedup/driver"
)

// Clock is the clock of a store under test. Its methods may be called by many goroutines at once.
type Clock interface {
	// Now returns the time.
	Now() time.Time
	// OnAdvance makes the suite call f after each change of the time, before it goes on.
	OnAdvance(f func(now time.Time))
}

// Run tests the contract of [driver.Store], and the contract of [driver.Inspector] if the store
// implements it. Each rule is a sub-test. [Model] and [Linearizable] are sub-tests too.
//
// Run calls open once for each sub-test. open returns an empty store that uses the clock, and
// registers its cleanup with t.Cleanup.
func Run(t *testing.T, open func(t *testing.T, clock Clock) driver.Store) {
	for _, group := range []struct {
		name  string
		rules []rule
	}{
		{"claim", claimRules},
		{"extend", extendRules},
		{"complete", settleRules(driver.OpComplete)},
		{"park", settleRules(driver.OpPark)},
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

// rule is one rule of a contract, as a test.
type rule struct {
	name string
	run  func(s *suite)
}
