package lint

import (
	"slices"
	"strings"
	"testing"
)

func TestLongLines(t *testing.T) {
	long := strings.TrimSpace(strings.Repeat("word ", 26)) // 129 characters
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"paragraph":         {"x\n" + long + "\n", []string{"2"}},
		"heading":           {"# " + long + "\n", []string{"1"}},
		"item":              {"- a\n- " + long + "\n", []string{"2"}},
		"text with a link":  {long + " [x](https://x.org)\n", []string{"1"}},
		"no table":          {"| " + long + " |\n", []string{"1"}},
		"after a code span": {"```\nx\n```\n" + long + "\n", []string{"4"}},
		"table":             {"| a | b |\n|:--|--:|\n| " + long + " | x |\n", nil},
		"code":              {"```\n" + long + "\n```\n", nil},
		"code in an item":   {"1. a\n\n   ```sh\n   " + long + "\n   ```\n", nil},
		"indented code":     {"x\n\n    " + long + "\n", nil},
		"link":              {"- [x](https://x.org/" + strings.Repeat("x", 120) + ").\n", nil},
		"URL":               {"https://x.org/" + strings.Repeat("x", 120) + "\n", nil},
		"autolink":          {"<https://x.org/" + strings.Repeat("x", 120) + ">\n", nil},
		"reference":         {"[x]: https://x.org/" + strings.Repeat("x", 120) + "\n", nil},
		"bytes":             {strings.Repeat("ä", 120) + "\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			var lines []string
			for _, n := range c.want {
				lines = append(lines, "x.md:"+n+" characters")
			}
			want(t, load(t, map[string]string{"x.md": c.text}).longLines(), lines...)
		})
	}
}

func TestFigures(t *testing.T) {
	words := func(n int) string { return strings.TrimSpace(strings.Repeat("word ", n)) }
	p := load(t, map[string]string{
		readme:            "# One title\n\n" + words(3) + "\n\n- " + words(5) + "\n- " + words(91) + "\n\n| a | b |\n|---|---|\n\n```sh\n" + words(2000) + "\n```\n",
		"docs" + "/a.md":  words(4) + "\n" + words(4) + "\n",
		"other.md":        words(500) + "\n",
		"store/bolt/a.go": "package bolt\n\n// One of what is stored.\n",
		"a.go":            "package a\n\n// One of what is stored.\n",
	})
	found, f := p.Prose()
	// README: the title 3 with its mark, 3, 6, 92, the table 5 and 1.
	wanted := Figures{Words: 2 + 3 + 5 + 91 + 2 + 8 + 500 + 5, Headless: 1, Median: 8, Longest: 91, ReadmeWords: 110, ReadmeLines: 13, LongLines: 2, longest: f.longest}
	if f != wanted {
		t.Errorf("got %+v, want %+v", f, wanted)
	}
	found = slices.DeleteFunc(found, func(f Finding) bool {
		return strings.Contains(f.Wrong, "characters") || strings.Contains(f.Wrong, "headless")
	})
	want(t, found, readme+":6 91 words, more than 90")
	if got := f.String(); !strings.Contains(got, "median paragraph 8 words, longest 91; README: 110 words, 13 lines") {
		t.Errorf("got %q", got)
	}
}

func TestBarsOfTheFigures(t *testing.T) {
	met := Figures{Median: 35, Longest: 90, ReadmeWords: 1000, ReadmeLines: 150}
	want(t, met.judge())
	missed := Figures{Median: 36, Longest: 91, ReadmeWords: 1001, ReadmeLines: 151, longest: place{"docs" + "/x.md", 3}}
	want(t, missed.judge(), readme+":1 median", "docs"+"/x.md:3 longest", readme+":1 outside of code", readme+":1 151 lines")
}
