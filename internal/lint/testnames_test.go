package lint

import (
	"testing"
)

func TestTestNames(t *testing.T) {
	files := map[string]string{
		"a/b/x_test.go":      "package b\n\nfunc TestThere(t *testing.T) {}\n\nfunc FuzzIt(f *testing.F) {}\n",
		"a/b/real_test.go":   "//go:build real\n\npackage b\n\nfunc TestRealThere(t *testing.T) {}\n",
		"a/b/c.go":           "package b\n\nfunc TestNoTest() {}\n",
		"a/b/helper_test.go": "package b\n\n// func TestComment(t *testing.T)\n",
	}
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"no test":         {"See `a/b.TestNowhere`.\n", []string{"1 a/b.TestNowhere"}},
		"other package":   {"x\n\nSee\n`a.TestThere`.\n", []string{"4 a.TestThere"}},
		"no test file":    {"`a/b.TestNoTest` `TestNoTest`\n", []string{"1 a/b.TestNoTest", "1 TestNoTest"}},
		"comment":         {"`TestComment`\n", []string{"1 TestComment"}},
		"in a cell":       {"| a | test |\n|---|---|\n| x | `a/b.TestThere`, `TestNowhere` |\n", []string{"3 TestNowhere"}},
		"real names":      {"`a/b.TestThere`, `TestThere`, `a/b.TestRealThere`, `a/b.FuzzIt` and `a/b.TestThere/sub/test`.\n", nil},
		"no names":        {"`testing.T`, `Testing`, `TestX()`, `go test -run TestX`, `x.Test`, TestNowhere\n", nil},
		"block of code":   {"```go fragment\nfunc TestNowhere() {}\n```\n", nil},
		"name of a thing": {"`ExamplesAreGood.x`\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			files["page.md"] = c.text
			var lines []string
			for _, l := range c.want {
				lines = append(lines, "page.md:"+l)
			}
			want(t, load(t, files).TestNames(), lines...)
		})
	}
}

// Every row of the table of crashes has its test.
func TestGuaranteesAreProved(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"no table":  {"`a.TestThere`\n", []string{"1 no table"}},
		"no column": {"| crash | then |\n|---|---|\n| x | `a.TestThere` |\n", []string{"1 no table"}},
		"no name":   {"| crash | tests |\n|---|---|\n| x | `a.TestThere` |\n| y | by hand |\n| z |\n", []string{"4 no test", "5 no test"}},
		"all":       {"| a | b |\n|---|---|\n| x | y |\n\n| crash | shown by |\n|---|---|\n| x | `a.TestThere` |\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			p := load(t, map[string]string{guarantees: c.text, "a/a_test.go": "package a\n\nfunc TestThere(t *testing.T) {}\n"})
			var lines []string
			for _, l := range c.want {
				lines = append(lines, guarantees+":"+l)
			}
			want(t, p.TestNames(), lines...)
		})
	}
}
