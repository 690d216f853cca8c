package house

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

func TestJudge(t *testing.T) {
	walls := Walls{Circle: []string{"a.go", "b.go"}, Struct: Measured{"T", 5}, Function: Measured{"f", 40}, Exported: 3}
	for name, c := range map[string]struct {
		limits map[string]Limits
		want   []string // parts of the messages
	}{
		"met":             {map[string]Limits{"p": {2, 5, 40, 3}}, nil},
		"larger circle":   {map[string]Limits{"p": {0, 5, 40, 3}}, []string{"p has 2 files in its largest circle (a.go b.go), more than its limit of 0"}},
		"wider struct":    {map[string]Limits{"p": {2, 4, 40, 3}}, []string{"p has 5 fields in its widest struct (T), more than its limit of 4"}},
		"longer function": {map[string]Limits{"p": {2, 5, 39, 3}}, []string{"p has 40 lines in its longest function (f), more than its limit of 39"}},
		"more names":      {map[string]Limits{"p": {2, 5, 40, 2}}, []string{"p has 3 exported names, more than its limit of 2"}},
		"all lower": {map[string]Limits{"p": {3, 6, 41, 4}}, []string{
			"p has 2 files in its largest circle: lower the limit from 3 to 2", "p has 3 exported names: lower the limit from 4 to 3",
			"p has 40 lines in its longest function: lower the limit from 41 to 40", "p has 5 fields in its widest struct: lower the limit from 6 to 5",
		}},
		"no line": {map[string]Limits{}, []string{"p has no limits: add the line"}},
		"gone":    {map[string]Limits{"p": {2, 5, 40, 3}, "q": {}}, []string{"q is gone"}},
	} {
		got := Judge(c.limits, map[string]Walls{"p": walls})
		if !slices.EqualFunc(got, c.want, strings.HasPrefix) {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

func TestLimitsFileIsReadAsWritten(t *testing.T) {
	want := map[string]Limits{"a/b": {1, 2, 3, 4}, "c": {}}
	got, err := ParseLimits(strings.Join(FormatLimits(want), "\n") + "\n")
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	for _, text := range []string{"a 1 2 3", "a 1 2 3 x", "a 1 2 3 4\na 1 2 3 4"} {
		if got, err := ParseLimits(text); err == nil {
			t.Errorf("%q: got %v, want an error", text, got)
		}
	}
}

func TestLowerNeverRaises(t *testing.T) {
	found := map[string]Walls{"p": {Struct: Measured{"T", 5}, Function: Measured{"f", 40}, Exported: 3}, "new": {Exported: 7}}
	got := Lower(map[string]Limits{"p": {1, 9, 9, 3}, "gone": {1, 1, 1, 1}}, found)
	if want := (map[string]Limits{"p": {0, 5, 9, 3}, "new": {0, 0, 0, 7}}); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
