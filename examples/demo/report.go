package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// report compares the published orders with the output of the relay.
type report struct {
	Broker       string  `json:"broker"`
	Messages     int     `json:"messages"`
	UniqueIn     int     `json:"unique_in"`
	UniqueOut    int     `json:"unique_out"`
	Lost         int     `json:"lost"`
	DuplicatesIn int     `json:"duplicates_in"`
	RepeatedOut  int     `json:"repeated_out"`
	Ambiguous    int     `json:"ambiguous"` // number of outputs with the header Dedup-Ambiguous
	Kills        int     `json:"kills"`
	Seconds      float64 `json:"seconds"`

	dropped   int
	unflagged int // number of repeats without the header
	unknown   int // number of outputs that no producer has sent
}

// check compares the output with the input. Only one output of each key may be without the flag: the
// first.
func check(t *traffic, out []received) report {
	payloads := make(map[string]string, t.unique)
	for _, o := range t.orders {
		payloads[o.key] = string(o.payload)
	}
	r := report{Messages: len(t.orders), UniqueIn: t.unique, DuplicatesIn: len(t.orders) - t.unique}
	unflagged := make(map[string]int, t.unique)
	seen := make(map[string]bool, t.unique)
	for _, m := range out {
		if payloads[m.key] != m.payload {
			r.unknown++
			continue
		}
		seen[m.key] = true
		if m.ambiguous {
			r.Ambiguous++
		} else {
			unflagged[m.key]++
		}
	}
	for _, n := range unflagged {
		r.unflagged += n - 1
	}
	r.UniqueOut = len(seen)
	r.Lost = r.UniqueIn - r.UniqueOut
	r.RepeatedOut = len(out) - r.UniqueOut
	r.dropped = r.Messages - len(out)
	return r
}

func (r report) print(w io.Writer) {
	row := func(name string, n int, note string) {
		fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("  %-14s %8d  %s", name, n, note), " "))
	}
	fmt.Fprintln(w)
	row("unique in", r.UniqueIn, "")
	row("unique out", r.UniqueOut, "")
	row("lost", r.Lost, verdict(r.Lost == 0))
	row("duplicates in", r.DuplicatesIn, "")
	row("dropped", r.dropped, "")
	row("kills", r.Kills, "SIGKILL of the relay, in the middle of its work")
	row("repeated out", r.RepeatedOut, "published before a kill, and again after it")
	row("without flag", r.unflagged, "repeats without Dedup-Ambiguous  "+verdict(r.unflagged == 0))
	row("with flag", r.Ambiguous, "outputs with Dedup-Ambiguous: a killed relay may have published them before")
	if r.unknown > 0 {
		row("unknown", r.unknown, "outputs that no producer has sent "+verdict(false))
	}
	took := fmt.Sprintf("over %.1f s", r.Seconds)
	if r.Kills > 0 {
		took += ", most of it the broker waiting for the dead: 6 s a kill on Kafka, 2 s on NATS"
	}
	row("messages/s", int(float64(r.Messages)/r.Seconds), took)
	fmt.Fprintln(w)
}

func verdict(ok bool) string {
	if ok {
		return "(ok)"
	}
	return "(FAILED)"
}

// progress shows how far the demo is. On a terminal it draws a bar, elsewhere it prints a line from
// time to time.
type progress struct {
	w        io.Writer
	terminal bool
	label    string
	last     time.Time
	open     bool // the last line is a bar without a newline
}

func newProgress(w io.Writer) *progress {
	p := &progress{w: w}
	if f, ok := w.(*os.File); ok {
		if info, err := f.Stat(); err == nil {
			p.terminal = info.Mode()&os.ModeCharDevice != 0
		}
	}
	return p
}

func (p *progress) say(text string) {
	p.end()
	fmt.Fprintln(p.w, text)
}

func (p *progress) end() {
	if p.open {
		fmt.Fprintln(p.w)
		p.open = false
	}
}

func (p *progress) bar(label string, done, all int) {
	if label != p.label {
		p.end()
		p.label, p.last = label, time.Time{}
	}
	wait := 5 * time.Second
	if p.terminal {
		wait = 100 * time.Millisecond
	}
	if time.Since(p.last) < wait && done < all || all == 0 {
		return
	}
	p.last = time.Now()
	if !p.terminal {
		fmt.Fprintf(p.w, "%s %d of %d\n", label, done, all)
		return
	}
	const width = 40
	full := width * done / all
	fmt.Fprintf(p.w, "\r%-11s %s%s %d of %d ", label, strings.Repeat("█", full), strings.Repeat("░", width-full), done, all)
	p.open = true
	if done == all {
		p.end()
	}
}
