package main

import (
	"fmt"
	"io"
)

// report compares the orders with the effects of both hops.
type report struct {
	orders, published      int
	reservations, bookings tally
}

// tally compares the orders with the effects of one hop.
type tally struct {
	effects   int
	lost      int
	repeats   int
	unflagged int // number of repeats without the flag
	unknown   int // number of effects for orders that nobody published
}

// count compares the effects with the orders. Only one effect of each order may be without the flag:
// the first.
func count(orders int, effects []effect) tally {
	t := tally{effects: len(effects)}
	all, unflagged := map[string]int{}, map[string]int{}
	for _, e := range effects {
		all[e.order]++
		if !e.ambiguous {
			unflagged[e.order]++
		}
	}
	for i := range orders {
		key := orderKey(i)
		if all[key] == 0 {
			t.lost++
		}
		t.repeats += max(0, all[key]-1)
		t.unflagged += max(0, unflagged[key]-1)
	}
	t.unknown = t.effects - t.repeats - (orders - t.lost)
	return t
}

func (t tally) ok() bool { return t.lost == 0 && t.unflagged == 0 && t.unknown == 0 }

func (r report) ok() bool { return r.reservations.ok() && r.bookings.ok() }

func (r report) print(w io.Writer) {
	a, b := r.reservations, r.bookings
	fmt.Fprintf(w, "\n  orders in %d, published %d times\n\n  %-20s %12s %12s\n", r.orders, r.published, "", "reservations", "bookings")
	row := func(name string, a, b int) { fmt.Fprintf(w, "  %-20s %12d %12d\n", name, a, b) }
	row("made", a.effects, b.effects)
	row("lost", a.lost, b.lost)
	row("repeats", a.repeats, b.repeats)
	row("  flagged Ambiguous", a.repeats-a.unflagged, b.repeats-b.unflagged)
	row("  without the flag", a.unflagged, b.unflagged)
	if a.unknown+b.unknown > 0 {
		row("for unknown orders", a.unknown, b.unknown)
	}
	verdict := "ok: nothing lost, no repeat without the flag"
	if !r.ok() {
		verdict = "FAILED"
	}
	fmt.Fprintf(w, "\n  %s\n", verdict)
}
