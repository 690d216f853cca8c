package harness

import (
	"math"
	"slices"
)

// Figure is a line of the table at the end: a value beside its bar and its goal.
type Figure struct {
	What   string
	Unit   string  // "x" for ratios; "B", "µs", ...
	Bar    float64 // the value must reach it; 0: no bar, the figure is shown only
	Goal   float64 // the value should reach it; 0: no goal beyond the bar
	AtMost bool    // Bar and Goal are upper limits
	From   Source
}

// Source says where a figure's value comes from.
type Source struct {
	metric, overMetric string
	of, over           string // contenders; both empty: values of measures
}

// Ratio is the rate of one contender over that of another, paired round by round.
func Ratio(of, over string) Source { return RatioOf(Rate, of, over) }

// RatioOf is Ratio for any metric.
func RatioOf(metric, of, over string) Source { return Source{metric, metric, of, over} }

// Median is the median of a contender's metric.
func Median(metric, of string) Source { return Source{metric: metric, of: of} }

// Measured is the value that a measure set under the name.
func Measured(name string) Source { return Source{metric: name} }

// Quotient is one value that measures set over another, paired in their order.
func Quotient(of, over string) Source { return Source{metric: of, overMetric: over} }

// Spread is the median of several values, and the least and greatest of them.
type Spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	N      int     `json:"n"`
}

func spreadOf(values []float64) Spread {
	if len(values) == 0 {
		return Spread{}
	}
	v := slices.Sorted(slices.Values(values))
	mid := len(v) / 2
	median := v[mid]
	if len(v)%2 == 0 {
		median = (v[mid-1] + v[mid]) / 2
	}
	return Spread{Median: median, Min: v[0], Max: v[len(v)-1], N: len(v)}
}

// results are the values by contender and metric, one for each round. The values
// of measures are under the contender "".
type results map[string]map[string][]float64

func (r results) add(contender, metric string, value float64) {
	if math.IsNaN(value) || math.IsInf(value, 0) {
		return
	}
	if r[contender] == nil {
		r[contender] = make(map[string][]float64)
	}
	r[contender][metric] = append(r[contender][metric], value)
}

// spread returns the value of a source; N is 0 if it was not measured.
func (r results) spread(s Source) Spread {
	of := r[s.of][s.metric]
	if s.overMetric == "" {
		return spreadOf(of)
	}
	over := r[s.over][s.overMetric]
	var ratios []float64
	for i := range min(len(of), len(over)) {
		if over[i] != 0 {
			ratios = append(ratios, of[i]/over[i])
		}
	}
	return spreadOf(ratios)
}

// verdict says how a median stands beside bar and goal.
func (f *Figure) verdict(s Spread) string {
	reached := func(limit float64) bool {
		if f.AtMost {
			return s.Median <= limit
		}
		return s.Median >= limit
	}
	switch {
	case s.N == 0:
		return "not measured"
	case f.Bar == 0:
		return ""
	case !reached(f.Bar):
		return "NOT met"
	case f.Goal != 0 && reached(f.Goal):
		return "met, goal met"
	}
	return "met"
}
