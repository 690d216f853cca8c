package house

import (
	"fmt"
	"slices"
	"strings"
)

// Limits are the figures that a package may have at most.
type Limits struct{ Circle, Fields, Lines, Exported int }

// LimitsOf returns the figures of a package as its limits.
func LimitsOf(w Walls) Limits {
	return Limits{len(w.Circle), w.Struct.Size, w.Function.Size, w.Exported}
}

const (
	head   = "# package                       circle fields  lines exported"
	format = "%-31s %6d %6d %6d %8d"
)

// FormatLimits writes limits, a line for each package.
func FormatLimits(all map[string]Limits) []string {
	var lines []string
	for pkg, l := range all {
		lines = append(lines, fmt.Sprintf(format, pkg, l.Circle, l.Fields, l.Lines, l.Exported))
	}
	slices.Sort(lines)
	return append([]string{head}, lines...)
}

// ParseLimits reads what FormatLimits wrote.
func ParseLimits(text string) (map[string]Limits, error) {
	all := map[string]Limits{}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") || strings.TrimSpace(line) == "" {
			continue
		}
		var pkg string
		var l Limits
		if _, err := fmt.Sscan(line, &pkg, &l.Circle, &l.Fields, &l.Lines, &l.Exported); err != nil {
			return nil, fmt.Errorf("%q: %w", strings.TrimSpace(line), err)
		}
		if _, twice := all[pkg]; twice {
			return nil, fmt.Errorf("%s has two lines", pkg)
		}
		all[pkg] = l
	}
	return all, nil
}

// Judge compares the packages' walls with their limits. Each has to have its figure for a
// limit, so that limits only fall.
func Judge(all map[string]Limits, found map[string]Walls) (wrong []string) {
	for pkg, w := range found {
		limits, known := all[pkg]
		if !known {
			wrong = append(wrong, fmt.Sprintf("%s has no limits: add the line %q", pkg, FormatLimits(map[string]Limits{pkg: LimitsOf(w)})[1]))
			continue
		}
		wrong = append(wrong, judge(pkg, limits, w)...)
	}
	for pkg := range all {
		if _, there := found[pkg]; !there {
			wrong = append(wrong, pkg+" is gone: remove its line")
		}
	}
	slices.Sort(wrong)
	return wrong
}

func judge(pkg string, limits Limits, w Walls) (wrong []string) {
	for _, c := range []struct {
		what        string
		got, limit  int
		which, cure string
	}{
		{"files in its largest circle", len(w.Circle), limits.Circle, strings.Join(w.Circle, " "), "cut a dependency between them"},
		{"fields in its widest struct", w.Struct.Size, limits.Fields, w.Struct.Name, "split it"},
		{"lines in its longest function", w.Function.Size, limits.Lines, w.Function.Name, "split it"},
		{"exported names", w.Exported, limits.Exported, "", "unexport some"},
	} {
		switch {
		case c.got > c.limit && c.which != "":
			wrong = append(wrong, fmt.Sprintf("%s has %d %s (%s), more than its limit of %d: %s", pkg, c.got, c.what, c.which, c.limit, c.cure))
		case c.got > c.limit:
			wrong = append(wrong, fmt.Sprintf("%s has %d %s, more than its limit of %d: %s", pkg, c.got, c.what, c.limit, c.cure))
		case c.got < c.limit:
			wrong = append(wrong, fmt.Sprintf("%s has %d %s: lower the limit from %d to %d", pkg, c.got, c.what, c.limit, c.got))
		}
	}
	return wrong
}

// Lower returns limits for the packages: those of before, or the figures where they are
// lower, or where there were none.
func Lower(before map[string]Limits, found map[string]Walls) map[string]Limits {
	after := map[string]Limits{}
	for pkg, w := range found {
		l := LimitsOf(w)
		if b, known := before[pkg]; known {
			l = Limits{min(l.Circle, b.Circle), min(l.Fields, b.Fields), min(l.Lines, b.Lines), min(l.Exported, b.Exported)}
		}
		after[pkg] = l
	}
	return after
}
