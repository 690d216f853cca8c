package main

import (
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
)

// world is the systems on which the hops have their effects, over HTTP. It counts every effect, and
// kills each hop once.
type world struct {
	url    string
	server http.Server

	mu      sync.Mutex
	systems map[string]*system // by hop
}

// system is the system of one hop.
type system struct {
	killAt  int         // the effect at which the hop is killed
	process *os.Process // of the hop
	killed  bool
	effects []effect
}

type effect struct {
	order     string
	ambiguous bool
}

func startWorld(killAt map[string]int) (*world, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	w := &world{url: "http://" + l.Addr().String(), systems: map[string]*system{}}
	for hop, at := range killAt {
		w.systems[hop] = &system{killAt: at}
	}
	w.server.Handler = w
	go func() { _ = w.server.Serve(l) }() // until close
	return w, nil
}

func (w *world) close() { _ = w.server.Close() }

// attach sets the process of the hop.
func (w *world) attach(hop string, p *os.Process) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.systems[hop].process = p
}

func (w *world) killed(hop string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.systems[hop].killed
}

func (w *world) effects(hop string) []effect {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.systems[hop].effects
}

func (w *world) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	if w.note(strings.TrimPrefix(r.URL.Path, "/"), effect{r.FormValue("order"), r.FormValue("ambiguous") == "true"}) {
		<-r.Context().Done() // the effect has happened, and nobody is there to get the answer
		return
	}
	rw.WriteHeader(http.StatusNoContent)
}

// note counts the effect. It reports whether it killed the hop that asked for it.
func (w *world) note(hop string, e effect) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.systems[hop]
	s.effects = append(s.effects, e)
	if s.killed || s.process == nil || len(s.effects) < s.killAt {
		return false
	}
	s.killed = s.process.Kill() == nil
	return s.killed
}
