package lint

import (
	"strings"
	"testing"
)

func TestHeadlessInDocuments(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want []string // LINE
	}{
		"beginning":         {"What is stored stays.\n", []string{"1"}},
		"after a stop":      {"It runs. What runs is settled.\n", []string{"1"}},
		"preposition":       {"The end of what was stored.\n", []string{"1"}},
		"more words":        {"It depends on what waits in it.\n", []string{"1"}},
		"more verbs":        {"It ends, and what arrives is kept.\n", []string{"1"}},
		"people":            {"It is held by who asks.\n", []string{"1"}},
		"the store":         {"For what the store has, see below.\n", []string{"1"}},
		"colon":             {"One rule: what is stored stays.\n", []string{"1"}},
		"over a line break": {"A line, and the rest of\nwhat is stored.\n", []string{"2"}},
		"break in a clause": {"A line with what\nis stored.\n", []string{"1"}},
		"wrapped":           {"The log shows\nwhat is wrong.\n", []string{"2"}},
		"item":              {"- one\n- two, and\n  what is stored\n", []string{"3"}},
		"emphasis":          {"- **What is stored** stays.\n", []string{"1"}},
		"link":              {"[What is stored](a.md) stays.\n", []string{"1"}},
		"cell":              {"| a | b |\n|---|---|\n| x | what is stored |\n", []string{"3"}},
		"title of a column": {"| a | what it does |\n|---|---|\n| x | y |\n", []string{"1"}},
		"heading":           {"# A\n\n## What is stored\n", []string{"3"}},
		"quote":             {"> It ends, and\n> what is stored stays.\n", []string{"2"}},
		"comment in shell":  {"```sh\nls\nrun # what is stored\n```\n", []string{"3"}},
		"comment in Go":     {"Text.\n\n```go fragment\n// It returns one of\n// what is stored.\n```\n", []string{"5"}},
		"two":               {"What is stored stays, and what is not goes.\n", []string{"1", "1"}},

		"question as a heading":   {"## What is a claim?\n\nA\n=\n\nWhat is it?\n-----------\n", nil},
		"question as a title":     {"| what is it? |  x |\n|---|---|\n| x | y |\n", nil},
		"indirect question":       {"The log says what is wrong, and shows who has it.\n", nil},
		"people with a noun":      {"Callers who have read it, or a caller who waits.\n", nil},
		"a clause with a noun":    {"The callers, who are waiting, go.\n", nil},
		"to do":                   {"It says what is wrong and what to do.\n", nil},
		"whatever":                {"It ends, whatever is stored.\n", nil},
		"code span":               {"It prints `x, what is stored`.\n", nil},
		"code span over a break":  {"It prints `of\nwhat is` there.\n", nil},
		"code":                    {"```\nwhat is stored\n```\n\n    what is stored\n", nil},
		"output of a command":     {"```console\n$ run\nrelay: what is stored\n```\n", nil},
		"string in code":          {"```go fragment\nx := \"// what is stored\"\n```\n", nil},
		"HTML comment":            {"<!-- what is stored -->\n", nil},
		"indented break":          {"- The log shows\n  what is wrong.\n", nil},
		"other paragraph":         {"A line with\n\n- what to do\n", nil},
		"question mark elsewhere": {"## Claims\n\nWhy?\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			var lines []string
			for _, n := range c.want {
				lines = append(lines, "x.md:"+n+" headless")
			}
			want(t, load(t, map[string]string{"x.md": c.text}).headless(), lines...)
		})
	}
}

func TestHeadlessInComments(t *testing.T) {
	for name, c := range map[string]struct {
		file, text string
		want       []string
	}{
		"Go":                  {"a.go", "package a\n\n// F does it. What is\n// stored stays.\nfunc F() {}\n", []string{"3"}},
		"Go, over a break":    {"a.go", "package a\n\n// F returns one of\n// what is stored.\nfunc F() {}\n", []string{"4"}},
		"Go, behind code":     {"a.go", "package a\n\nvar a = 1 // what is stored\n", []string{"3"}},
		"Go, with a star":     {"a.go", "package a\n\n/*\n * One of\n * what is stored.\n */\n", []string{"5"}},
		"Go, table":           {"a.go", "package a\n\n//\tname  what\n//\tx     a lag; what is in hand\n", []string{"4"}},
		"Go, with a URL":      {"a.go", "package a\n\n// See https://x.org and what is stored.\n", []string{"3"}},
		"Go, test":            {"a_test.go", "package a\n\n// Of what is stored.\n", []string{"3"}},
		"other package":       {"store/bolt/a/a.go", "package a\n\n// Of what is stored.\n", []string{"3"}},
		"shell":               {"a.sh", "#!/bin/sh\n# It starts one of\n# what is stored.\nrun 'x' # who has it\n", []string{"3", "4"}},
		"script":              {"tool", "#!/bin/sh\n# Of what is stored.\n", []string{"2"}},
		"Makefile":            {"Makefile", "x: ## one of what is stored\n\trun\n", []string{"1"}},
		"YAML":                {"a.yml", "a: b # of what is stored\n", []string{"1"}},
		"Lua":                 {"a.lua", "-- One of\n-- what is stored.\n", []string{"2"}},
		"exempt":              {"store/bolt/a.go", "package a\n\n// Of what is stored.\n", nil},
		"Go, string":          {"a.go", "package a\n\nvar a = \"// of what is stored\"\n", nil},
		"Go, two paragraphs":  {"a.go", "package a\n\n// F returns one of\n//\n// what to do, and how.\nfunc F() {}\n", nil},
		"Go, two comments":    {"a.go", "package a\n\nvar (\n\ta int // one of\n\tb int // one; another\n)\n", nil},
		"Go, directive":       {"a.go", "//go:build of what is\n\npackage a\n", nil},
		"shell, string":       {"a.sh", "echo 'x # of what is stored' \"$#\"; a=${#b}\n", nil},
		"shell, two comments": {"a.sh", "# one of\n\n# what to do\n", nil},
		"Lua, minus":          {"a.lua", "a = b--of what is\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			var lines []string
			for _, n := range c.want {
				lines = append(lines, c.file+":"+n+" headless")
			}
			want(t, load(t, map[string]string{c.file: c.text}).headless(), lines...)
		})
	}
}

// A search line by line, with the words that the project began with, finds nothing more.
func TestHeadlessFindsAtLeast(t *testing.T) {
	for _, before := range []string{"", "x. ", "x: ", "x; ", "x, ", "x ( ", "x of ", "x by ", "x and ", "x with ", "x for ", "x to ", "x than "} {
		for _, word := range []string{"who", "what", "What"} {
			for _, verb := range []string{
				"is", "was", "has", "had", "runs", "ran", "comes", "came", "waits", "waited", "asks", "asked", "goes", "went", "cannot", "can", "needs",
				"must", "may", "they", "it", "he", "others", "the store has", "the store had", "the store is", "the store was", "follows", "holds", "held", "does", "did",
			} {
				clause := before + word + " " + verb + " x"
				for file, text := range map[string]string{
					"a.md": "One line\n" + clause + "\nand another.\n", "a.go": "package a\n\n// F\n//\n// " + clause + "\n",
				} {
					if found := load(t, map[string]string{file: text}).headless(); len(found) != 1 {
						t.Errorf("%s with %q: got %v, want one finding", file, clause, found)
					}
				}
			}
		}
	}
}

func TestExemptionsThatNobodyNeeds(t *testing.T) {
	files := map[string]string{}
	for _, e := range exemptions {
		files[e.dir+"/a.go"] = "package a\n\n// Of what is stored.\n"
	}
	if notes := load(t, files).Needless(); len(notes) != 0 {
		t.Errorf("got %q, want no notes", notes)
	}
	clean := exemptions[0].dir
	files[clean+"/a.go"] = "package a\n"
	if notes := load(t, files).Needless(); len(notes) != 1 || !strings.HasPrefix(notes[0], clean+" ") {
		t.Errorf("got %q, want a note about %s", notes, clean)
	}
}
