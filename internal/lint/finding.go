package lint

import (
	"cmp"
	"fmt"
	"slices"
)

// Finding is one fault, and its remedy.
type Finding struct {
	File   string // slash-separated, from the root of the project
	Line   int
	Wrong  string
	Remedy string
}

func (f Finding) String() string {
	return fmt.Sprintf("%s:%d: %s; %s", f.File, f.Line, f.Wrong, f.Remedy)
}

func sorted(found []Finding) {
	slices.SortStableFunc(found, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
	})
}
