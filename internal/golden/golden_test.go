package golden

import (
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func TestDiff(t *testing.T) {
	for name, c := range map[string]struct{ before, after, want []string }{
		"same":    {[]string{"a", "b"}, []string{"b", "a"}, nil},
		"more":    {[]string{"a"}, []string{"a", "b"}, []string{"  + b"}},
		"fewer":   {[]string{"a", "b"}, []string{"a"}, []string{"  - b"}},
		"changed": {[]string{"a int", "b int"}, []string{"a string", "b int"}, []string{"  - a int", "  + a string"}},
		"twice":   {[]string{"a", "a"}, []string{"a"}, []string{"  - a"}},
	} {
		if got := diff(c.before, c.after); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

func TestJSONFields(t *testing.T) {
	type inner struct {
		N  int  `json:"n"`
		On bool `json:"on,omitempty"`
	}
	type embedded struct {
		E string `json:"e"`
	}
	type outer struct {
		embedded
		One    inner             `json:"one"`
		Maybe  *inner            `json:"maybe"`
		Many   []inner           `json:"many"`
		Named  map[string]inner  `json:"named"`
		Flags  map[string]string `json:"flags"`
		Since  time.Time         `json:"since,omitzero"`
		Plain  float64
		Hidden int `json:"-"`
		hidden int
	}
	_ = outer{}.hidden
	want := []string{
		"e string", "one.n int", "one.on bool", "maybe.n int", "maybe.on bool", "many[].n int", "many[].on bool",
		"named.*.n int", "named.*.on bool", "flags.* string", "since time.Time", "Plain float64",
	}
	if got := JSONFields[outer](); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestDescribed(t *testing.T) {
	c := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "x_seconds", Help: `a "help"`}, []string{"y"})
	if got, want := described(c), []string{"x_seconds"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
