package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
)

// world is the systems that the hops act upon, over HTTP: it notes every effect,
// and pulls the plug of the hop that asked for one when its time has come.
type world struct {
	listener net.Listener
	server   http.Server

	mu    sync.Mutex
	kills map[string]*kill  // by hop
	log   map[string][]note // by hop
}

type note struct {
	order     string
	ambiguous bool
}

type kill struct {
	at   int // after that many effects
	kill func()
	done bool
}

func startWorld() (*world, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	w := &world{listener: l, kills: map[string]*kill{}, log: map[string][]note{}}
	w.server.Handler = w
	go func() { _ = w.server.Serve(l) }() // until close
	return w, nil
}

func (w *world) url() string { return "http://" + w.listener.Addr().String() }

func (w *world) close() { _ = w.server.Close() }

// killAt calls f after that many effects of the hop, before the last of them is
// answered.
func (w *world) killAt(hop string, at int, f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kills[hop] = &kill{at: at, kill: f}
}

func (w *world) killed(hop string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.kills[hop].done
}

func (w *world) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	hop := strings.TrimPrefix(r.URL.Path, "/")
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log[hop] = append(w.log[hop], note{r.FormValue("order"), r.FormValue("ambiguous") == "true"})
	if k := w.kills[hop]; k != nil && !k.done && len(w.log[hop]) >= k.at {
		k.kill() // the effect is done; its answer finds nobody
		k.done = true
	}
	rw.WriteHeader(http.StatusNoContent)
}

// report is the account of both hops.
type report struct {
	orders, published int
	hops              [2]tally
}

// tally is the account of one hop.
type tally struct {
	effects   int
	lost      int
	repeats   int
	unflagged int // repeats that nobody was warned of
	unknown   int // effects of orders that nobody placed
}

func (w *world) report(orders, published int) report {
	w.mu.Lock()
	defer w.mu.Unlock()
	return report{orders, published, [2]tally{count(orders, w.log[inventory]), count(orders, w.log[carrier])}}
}

// count compares the effects with the orders. Of all effects of an order at most
// one may lack the flag: the first.
func count(orders int, log []note) tally {
	t := tally{effects: len(log)}
	all, unflagged := map[string]int{}, map[string]int{}
	for _, n := range log {
		all[n.order]++
		if !n.ambiguous {
			unflagged[n.order]++
		}
	}
	for i := range orders {
		key := orderKey(i)
		n := all[key]
		if n == 0 {
			t.lost++
			continue
		}
		t.repeats += n - 1
		t.unflagged += max(0, unflagged[key]-1)
	}
	t.unknown = t.effects - t.repeats - (orders - t.lost)
	return t
}

func (r report) ok() bool {
	for _, t := range r.hops {
		if t.lost > 0 || t.unflagged > 0 || t.unknown > 0 {
			return false
		}
	}
	return true
}

func (r report) print(w io.Writer) {
	in, out := r.hops[0], r.hops[1]
	fmt.Fprintf(w, "\n  %-24s %12s %12s\n", "", "reservations", "bookings")
	row := func(name string, a, b int) { fmt.Fprintf(w, "  %-24s %12d %12d\n", name, a, b) }
	row("orders in", r.orders, r.orders)
	row("messages published", r.published, r.published)
	row("effects", in.effects, out.effects)
	row("lost", in.lost, out.lost)
	row("repeats", in.repeats, out.repeats)
	row("  flagged Ambiguous", in.repeats-in.unflagged, out.repeats-out.unflagged)
	row("  without the flag", in.unflagged, out.unflagged)
	row("effects of no order", in.unknown, out.unknown)
	verdict := "ok: nothing lost, and no repeat without the flag"
	if !r.ok() {
		verdict = "FAILED"
	}
	fmt.Fprintf(w, "\n  %s\n\n", verdict)
}
