package lint

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// The bars of the documents.
const (
	maxLine        = 120 // characters
	maxMedian      = 35  // words of a paragraph in README.md and docs
	maxParagraph   = 90  // words
	maxReadmeWords = 1000
	maxReadmeLines = 150
)

// Figures measure the prose of a project.
type Figures struct {
	Words, Headless          int // in documents, and in comments that are not exempt
	LongLines                int
	Median, Longest          int // words of the paragraphs in README.md and docs
	ReadmeWords, ReadmeLines int

	longest place
}

type place struct {
	file string
	line int
}

func (f Figures) String() string {
	return fmt.Sprintf("%.1f headless clauses per 1,000 words (%d in %d); %d lines over %d characters; "+
		"README and docs: median paragraph %d words, longest %d; README: %d words, %d lines",
		1000*float64(f.Headless)/float64(max(f.Words, 1)), f.Headless, f.Words, f.LongLines, maxLine,
		f.Median, f.Longest, f.ReadmeWords, f.ReadmeLines)
}

const readme = "README.md"

// measure measures the project. A paragraph is one of prose or an item of a list;
// headings, tables and code are none.
func (p *Project) measure() (f Figures) {
	p.proseParagraphs(func(_ string, q paragraph) {
		f.Words += q.words()
		f.Headless += len(q.clauses())
	})
	f.LongLines = len(p.longLines())
	var lengths []int
	for _, d := range p.documents {
		if d.name == readme {
			f.ReadmeWords, f.ReadmeLines = d.size()
		}
		if d.name != readme && !strings.HasPrefix(d.name, "docs/") {
			continue
		}
		for _, q := range d.paragraphs {
			n := q.plain().words()
			if q.kind != prose || n == 0 {
				continue
			}
			lengths = append(lengths, n)
			if n > f.Longest {
				f.Longest, f.longest = n, place{d.name, q.line}
			}
		}
	}
	if slices.Sort(lengths); len(lengths) > 0 {
		f.Median = lengths[len(lengths)/2]
	}
	return f
}

// size counts the words outside of code, whatever is between two blanks, and all lines.
func (d *document) size() (words, lines int) {
	for i, line := range d.lines {
		if !d.code[i+1] {
			words += len(strings.Fields(line))
		}
	}
	return words, len(d.lines) - 1 // behind the last line break there is none
}

// judge compares the figures with the bars.
func (f Figures) judge() (found []Finding) {
	bar := func(at place, what, unit string, got, most int, remedy string) {
		if got > most {
			found = append(found, Finding{at.file, at.line, fmt.Sprintf("%s has %d %s, more than %d", what, got, unit, most), remedy})
		}
	}
	top := place{readme, 1}
	bar(top, "the median paragraph of README.md and docs", "words", f.Median, maxMedian, "cut long paragraphs in two")
	bar(f.longest, "the longest paragraph of README.md and docs", "words", f.Longest, maxParagraph, "cut it in two")
	bar(top, readme, "words outside of code", f.ReadmeWords, maxReadmeWords, "move parts to docs")
	bar(top, readme, "lines", f.ReadmeLines, maxReadmeLines, "move parts to docs")
	return found
}

// longLines finds the lines of documents that are too long, but for tables, code, and
// links that stand alone.
func (p *Project) longLines() (found []Finding) {
	for _, d := range p.documents {
		for i, line := range d.lines {
			n := utf8.RuneCountInString(line)
			if n > maxLine && !d.code[i+1] && !d.table[i+1] && !isLink(line) {
				found = append(found, Finding{d.name, i + 1, fmt.Sprintf("the line has %d characters", n), fmt.Sprintf("wrap it at %d", maxLine-10)})
			}
		}
	}
	return found
}

// isLink reports whether a line is one link and nothing else.
func isLink(line string) bool {
	text := strings.TrimSpace(line[len(itemMark.FindString(line)):])
	text = strings.TrimRight(text, ".,;:")
	return inlineLink.FindString(text) == text || autolink.FindString(text) == text ||
		referenceMark.FindString(line) == line || elsewhere.MatchString(text) && !strings.ContainsAny(text, " \t")
}
