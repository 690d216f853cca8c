package golden

import (
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics compares the metrics of a registry with the list in a file: name, type and
// labels of each, but for those of the process and of Go. Whatever the collectors
// describe has to be among them, so that the list is whole.
func Metrics(t *testing.T, file string, reg prometheus.Gatherer, collectors ...prometheus.Collector) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	gathered := map[string]bool{}
	for _, f := range families {
		name := f.GetName()
		gathered[name] = true
		if strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_") {
			continue
		}
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		lines = append(lines, name+" "+strings.ToLower(f.GetType().String())+" {"+strings.Join(labels, ", ")+"}")
	}
	for _, c := range collectors {
		for _, name := range described(c) {
			if !gathered[name] {
				t.Errorf("the metric %s is described, and was not there to be listed", name)
			}
		}
	}
	Lines(t, file, lines)
}

var fqName = regexp.MustCompile(`fqName: "([^"]*)"`)

// described returns the names of the metrics that c describes.
func described(c prometheus.Collector) (names []string) {
	ch := make(chan *prometheus.Desc)
	go func() {
		defer close(ch)
		c.Describe(ch)
	}()
	for d := range ch {
		// A Desc tells its name by its text alone.
		if m := fqName.FindStringSubmatch(d.String()); m != nil {
			names = append(names, m[1])
		}
	}
	return names
}
