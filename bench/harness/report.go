package harness

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Report holds the results of a run; --json writes it.
type Report struct {
	Machine Machine        `json:"machine"`
	Date    time.Time      `json:"date"`
	Rounds  int            `json:"rounds"`
	Suites  []*SuiteReport `json:"suites"`
}

// SuiteReport holds the results of one suite, or the reason why it did not run.
type SuiteReport struct {
	Name       string            `json:"name"`
	Skipped    string            `json:"skipped,omitempty"`
	Seconds    float64           `json:"seconds,omitempty"`
	Messages   int               `json:"messages,omitempty"`
	Contenders []ContenderReport `json:"contenders,omitempty"`
	Figures    []FigureReport    `json:"figures,omitempty"`
	Measures   map[string]Spread `json:"measures,omitempty"`
}

// ContenderReport has the spread of each metric over the rounds.
type ContenderReport struct {
	Name     string            `json:"name"`
	What     string            `json:"what"`
	Messages int               `json:"messages"`
	Metrics  map[string]Spread `json:"metrics"`
}

// FigureReport is a figure and how it came out.
type FigureReport struct {
	What    string  `json:"what"`
	Unit    string  `json:"unit"`
	Value   *Spread `json:"value,omitempty"`
	Bar     float64 `json:"bar"`
	Goal    float64 `json:"goal,omitempty"`
	AtMost  bool    `json:"at_most,omitempty"`
	Verdict string  `json:"verdict"`
}

func (r *Run) report(name string, took time.Duration) *SuiteReport {
	s := &SuiteReport{Name: name, Seconds: math.Round(took.Seconds()), Messages: r.Messages}
	for _, c := range r.contenders {
		s.Contenders = append(s.Contenders, ContenderReport{
			Name: c.Name, What: c.What, Messages: r.messages(c), Metrics: spreads(r.results[c.Name]),
		})
	}
	s.Measures = spreads(r.results[""])
	for _, f := range r.figures {
		v := r.results.spread(f.From)
		fr := FigureReport{What: f.What, Unit: f.Unit, Bar: f.Bar, Goal: f.Goal, AtMost: f.AtMost, Verdict: f.verdict(v)}
		if v.N > 0 {
			fr.Value = &v
		}
		s.Figures = append(s.Figures, fr)
	}
	return s
}

func spreads(values map[string][]float64) map[string]Spread {
	m := make(map[string]Spread)
	for metric, v := range values {
		m[metric] = spreadOf(v)
	}
	return m
}

// Skipped returns the names of the suites that did not run.
func (r *Report) Skipped() (names []string) {
	for _, s := range r.Suites {
		if s.Skipped != "" {
			names = append(names, s.Name)
		}
	}
	return names
}

// WriteFile writes the report as JSON.
func (r *Report) WriteFile(path string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

// Print writes the tables in Markdown, for the README as it is.
func (r *Report) Print(w io.Writer) {
	fmt.Fprintf(w, "\n%s, %s, %d rounds\n", r.Machine, r.Date.Format(time.DateOnly), r.Rounds)
	for _, s := range r.Suites {
		if s.Skipped != "" {
			fmt.Fprintf(w, "\n### %s\nSKIPPED: %s\n", s.Name, s.Skipped)
			continue
		}
		fmt.Fprintf(w, "\n### %s (%.0f s)\n\n", s.Name, s.Seconds)
		s.printContenders(w)
		s.printMeasures(w)
		s.printFigures(w)
	}
}

func (s *SuiteReport) printContenders(w io.Writer) {
	if len(s.Contenders) == 0 {
		return
	}
	columns := []string{CPU, ServerCPU, Allocs, AllocBytes, DeviceBytes, Syncs}
	own := make(map[string]bool)
	for _, c := range s.Contenders {
		for m := range c.Metrics {
			own[m] = true
		}
	}
	columns = slices.DeleteFunc(columns, func(m string) bool { return !own[m] })
	for _, m := range slices.Sorted(maps.Keys(own)) {
		if m != Rate && !slices.Contains(columns, m) {
			columns = append(columns, m)
		}
	}
	rows := [][]string{append([]string{"contender", "messages", Rate}, columns...)}
	for _, c := range s.Contenders {
		row := []string{c.Name, Brief(float64(c.Messages)), c.Metrics[Rate].String()}
		for _, m := range columns {
			cell := ""
			if v, ok := c.Metrics[m]; ok {
				cell = Brief(v.Median)
			}
			row = append(row, cell)
		}
		rows = append(rows, row)
	}
	printTable(w, rows)
	fmt.Fprintln(w)
	for _, c := range s.Contenders {
		fmt.Fprintf(w, "- **%s**: %s\n", c.Name, c.What)
	}
	fmt.Fprintln(w)
}

func (s *SuiteReport) printMeasures(w io.Writer) {
	for _, name := range slices.Sorted(maps.Keys(s.Measures)) {
		fmt.Fprintf(w, "- %s: %v\n", name, s.Measures[name])
	}
	if len(s.Measures) > 0 {
		fmt.Fprintln(w)
	}
}

func (s *SuiteReport) printFigures(w io.Writer) {
	if len(s.Figures) == 0 {
		return
	}
	rows := [][]string{{"figure", "value", "bar", "goal", ""}}
	for _, f := range s.Figures {
		limit := func(v float64) string {
			if v == 0 {
				return ""
			}
			if f.AtMost {
				return "≤ " + unit(v, f.Unit)
			}
			return "≥ " + unit(v, f.Unit)
		}
		value := ""
		if f.Value != nil {
			value = unit(f.Value.Median, f.Unit)
			if f.Value.N > 1 {
				value += fmt.Sprintf(" [%s-%s]", Brief(f.Value.Min), Brief(f.Value.Max))
			}
		}
		rows = append(rows, []string{f.What, value, limit(f.Bar), limit(f.Goal), f.Verdict})
	}
	printTable(w, rows)
}

// String returns the median, and the range if there is one.
func (s Spread) String() string {
	if s.N <= 1 {
		return Brief(s.Median)
	}
	return fmt.Sprintf("%s [%s-%s]", Brief(s.Median), Brief(s.Min), Brief(s.Max))
}

func unit(v float64, unit string) string {
	if unit == "" || unit == "x" {
		return Brief(v) + unit
	}
	return Brief(v) + " " + unit
}

// Brief writes three digits that count.
func Brief(v float64) string {
	switch a := math.Abs(v); {
	case a >= 1e6:
		return fmt.Sprintf("%.3gM", v/1e6)
	case a >= 1e4:
		return fmt.Sprintf("%.0fk", v/1e3)
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a != 0 && a < 0.001:
		return fmt.Sprintf("%.1g", v)
	}
	return fmt.Sprintf("%.3g", v)
}

func printTable(w io.Writer, rows [][]string) {
	t := tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	for i, row := range rows {
		fmt.Fprintf(t, "| %s\t|\n", strings.Join(row, "\t| "))
		if i == 0 {
			fmt.Fprintf(t, "|%s\n", strings.Repeat("---|", len(row)))
		}
	}
	_ = t.Flush() // w is a terminal or a file of the caller's; there is nobody else to tell
}
