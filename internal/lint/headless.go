package lint

import (
	"fmt"
	"path"
	"regexp"
	"strings"
)

// A clause is headless if "who" or "what" stands in place of its noun. Each pattern has a
// group for the clause, and before it the place where a noun is due.
var (
	// afterStop is a clause at the beginning of a sentence, of a part of one, or behind a
	// word that wants a noun.
	afterStop = regexp.MustCompile(`(?i)(?:` + begins + `|[.:;,(!?]\s+|\(|\b(?:` + wantsNoun + `)\s+)((?:who|what)\s+(?:` + verbs + `)\b|what\s+(?:` + moreVerbs + `)\b)`)
	// afterWord is a clause about people with a verb that a clause behind a comma may
	// have too: "the callers, who are waiting".
	afterWord = regexp.MustCompile(`(?i)(?:` + begins + `|[.:;(!?]\s+|\(|\b(?:` + wantsNoun + `)\s+)(who\s+(?:` + moreVerbs + `)\b)`)
	// atLine is a clause at the beginning of a line of a document, wherever its sentence
	// began. It is counted so that a search by lines finds nothing more than this one.
	atLine = regexp.MustCompile(`(?im)^((?:who|what)\s+(?:` + verbs + `)\b)`)
)

const (
	begins    = `\A\s*`
	wantsNoun = `of|by|and|with|for|to|than|or|but|from|in|on|at|as|if|when|into|before|after|until|because|without|against|behind|beside|between|through`
	verbs     = `is|was|has|had|runs|ran|comes|came|waits|waited|asks|asked|goes|went|cannot|can|needs|must|may|they|it|he|others` +
		`|the\s+\w+\s+(?:has|had|is|was)|follows|holds|held|does|did`
	moreVerbs = `are|were|have|do|will|would|should|could|might|stays|stayed|stands|stood|fails|failed|dies|died|gets|got|takes|took|gives|gave` +
		`|makes|made|reads|writes|wrote|says|said|knows|knew|wants|wanted|keeps|kept|counts|counted|belongs|arrives|arrived|survives|survived` +
		`|remains|remained|lies|lay|begins|began|ends|ended|leads|led|never|others|nobody|somebody`
)

const nameTheNoun = `name the noun, as in "the stored records" for "what is stored"`

// headless finds headless clauses in documents, in comments of code, and in comments of
// the code in documents.
func (p *Project) headless() (found []Finding) {
	report := func(name string, q paragraph) {
		for _, c := range q.clauses() {
			found = append(found, Finding{name, c.line, fmt.Sprintf("headless clause %q", c.text), nameTheNoun})
		}
	}
	p.proseParagraphs(report)
	return found
}

// proseParagraphs calls f with every paragraph that has to name its nouns.
func (p *Project) proseParagraphs(f func(name string, q paragraph)) {
	for _, d := range p.documents {
		for _, q := range d.paragraphs {
			f(d.name, q.plain())
		}
		for _, b := range d.blocks {
			for _, q := range b.comments() {
				f(d.name, q)
			}
		}
	}
	for _, s := range p.sources {
		if exemptionOf(s.name) != nil {
			continue
		}
		for _, q := range s.comments {
			f(s.name, q)
		}
	}
}

type clause struct {
	line int
	text string
}

// clauses returns the headless clauses of a paragraph. A question may be one in a
// heading, and in the title of a table.
func (q paragraph) clauses() (found []clause) {
	if (q.kind == heading || q.kind == titleCell) && strings.HasSuffix(strings.TrimSpace(q.text), "?") {
		return nil
	}
	patterns := []*regexp.Regexp{afterStop, afterWord}
	if q.kind == prose {
		patterns = append(patterns, atLine)
	}
	seen := map[int]bool{}
	for _, pattern := range patterns {
		for _, m := range pattern.FindAllStringSubmatchIndex(q.text, -1) {
			if !seen[m[2]] {
				text := strings.Join(strings.Fields(q.text[m[0]:m[1]]), " ")
				found = append(found, clause{q.lineAt(m[2]), strings.TrimLeft(text, ".:;,(!? ")})
			}
			seen[m[2]] = true
		}
	}
	return found
}

// Needless names the exemptions that nothing needs any more.
func (p *Project) Needless() (notes []string) {
	clauses := map[string]int{}
	for _, s := range p.sources {
		for _, q := range s.comments {
			clauses[path.Dir(s.name)] += len(q.clauses())
		}
	}
	for _, e := range exemptions {
		if clauses[e.dir] == 0 {
			notes = append(notes, fmt.Sprintf("%s has no headless clause: take it off the list in internal/lint/exempt.go", e.dir))
		}
	}
	return notes
}

// marksOf are the marks of comments, by the language that a block of code is said to be in.
var marksOf = map[string]string{
	"go": "//", "sh": "#", "bash": "#", "console": "#", "shell": "#", "yaml": "#", "yml": "#", "toml": "#", "make": "#",
	"lua": "--", "sql": "--", "protobuf": "//", "java": "//", "c": "//", "javascript": "//",
}

// comments returns those of a block of code in a document.
func (b block) comments() []paragraph {
	language, _, _ := strings.Cut(b.info, " ")
	if mark := marksOf[language]; mark != "" {
		return lineComments(b.text, b.line, mark)
	}
	return nil
}
