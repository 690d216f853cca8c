// Package harness runs contenders that do the same work in turns, in one run on
// one machine, and says how they compare.
//
// Speeds of different runs, or of different machines, tell little; ratios taken
// within a round, CPU time per message and counts tell much. So a figure is a
// ratio paired round by round, or a count, and comes with its spread.
package harness

import (
	"context"
	"fmt"
	"slices"
)

// Suite is a set of contenders and the figures drawn from them.
type Suite struct {
	Name string
	What string // one line
	// Messages in a round, of a contender whose Share is 1; --messages sets another number.
	Messages int
	// OnDemand: it runs only when --only names it.
	OnDemand bool
	// Declare names the contenders and figures, and starts the servers that they
	// need. If a server is missing, Declare returns a Skip.
	Declare func(ctx context.Context, r *Run) error
	// Servers by name, for Run.Serve.
	Servers map[string]Server
}

// Skip is the error of a Declare or of a measure for which the machine lacks
// something. It names the missing thing and the command that installs it.
type Skip string

func (s Skip) Error() string { return string(s) }

// Contender does the suite's work in one way.
type Contender struct {
	Name string // short: it heads a line of the table
	What string // one line that describes the contender
	// Share of a round's messages: less than 1 for a contender that is far slower
	// than the others. Default 1.
	Share float64
	// Syncs: count the fsyncs, in a separate round under strace: those of this
	// process, or of the servers that the round names.
	Syncs bool
	// Round does the work once, from nothing. It prepares, calls Start, does the work
	// on Messages messages, calls Stop, and checks that the work was done. Only the
	// files in Dir may remain.
	Round func(ctx context.Context, r *Round) error
}

// Run is one run of a suite. Declare fills it.
type Run struct {
	Dir      string // on a real disk; removed at the end of the suite
	Messages int    // of a contender whose Share is 1
	scale    float64
	suite    *Suite

	contenders []*Contender
	measures   []measure
	figures    []Figure
	cleanups   []func() error
	results    results
}

type measure struct {
	name string
	fn   func(ctx context.Context, m *Measure) error
}

// Measure collects the values of one measure.
type Measure struct {
	Dir    string // empty, on a real disk; removed afterwards
	values map[string][]float64
}

// Set adds a value. Several values under one name show its spread.
func (m *Measure) Set(name string, value float64) { m.values[name] = append(m.values[name], value) }

// Scaled returns n, or less of it in a run with fewer messages than the suite's own.
func (r *Run) Scaled(n int) int { return max(1, int(float64(n)*r.scale)) }

// Contend adds a contender.
func (r *Run) Contend(c Contender) { r.contenders = append(r.contenders, &c) }

// Measure adds a measurement that is made once, after the rounds.
func (r *Run) Measure(name string, fn func(ctx context.Context, m *Measure) error) {
	r.measures = append(r.measures, measure{name, fn})
}

// Figure adds a line to the table at the end.
func (r *Run) Figure(f Figure) { r.figures = append(r.figures, f) }

// Cleanup has fn called at the end of the suite, the last one first. Stop servers here.
func (r *Run) Cleanup(fn func() error) { r.cleanups = append(r.cleanups, fn) }

// check returns the mistakes of a Declare.
func (r *Run) check() error {
	seen := make(map[string]bool)
	for _, c := range r.contenders {
		if seen[c.Name] {
			return fmt.Errorf("there are two contenders %q", c.Name)
		}
		seen[c.Name] = true
	}
	for _, f := range r.figures {
		for _, name := range []string{f.From.of, f.From.over} {
			if name != "" && !seen[name] {
				return fmt.Errorf("figure %q: there is no contender %q", f.What, name)
			}
		}
	}
	return nil
}

// keep drops the contenders that are not in names, and with any names all measures.
func (r *Run) keep(names []string) {
	if len(names) == 0 {
		return
	}
	r.contenders = slices.DeleteFunc(r.contenders, func(c *Contender) bool { return !slices.Contains(names, c.Name) })
	r.measures = nil
}
