package lint

import (
	"regexp"
	"strings"
	"unicode"
)

// span is a piece of code inside a paragraph of a document, with the marks around it.
type span struct{ begin, end, marks int }

func (s span) code(text string) string {
	return strings.TrimSpace(text[s.begin+s.marks : s.end-s.marks])
}

// codeSpans finds the code in a paragraph.
func codeSpans(text string) (spans []span) {
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '`':
			n := countMarks(text[i:])
			length := spanLength(text[i:], n)
			if length == 0 { // no code: the marks stand for themselves
				length = n
			} else {
				spans = append(spans, span{i, i + length, n})
			}
			i += length - 1
		}
	}
	return spans
}

func countMarks(text string) int { return len(text) - len(strings.TrimLeft(text, "`")) }

// spanLength returns the length of the code that n marks begin, marks included; 0 if no
// other n marks end it.
func spanLength(text string, n int) int {
	for i := n; i < len(text); i++ {
		if text[i] == '`' {
			m := countMarks(text[i:])
			if m == n {
				return i + n
			}
			i += m - 1
		}
	}
	return 0
}

// cross replaces a text by as many x: words stay words, and lines stay lines.
func cross(text string) string {
	return strings.Map(func(c rune) rune {
		if unicode.IsSpace(c) {
			return c
		}
		return 'x'
	}, text)
}

var (
	escape        = regexp.MustCompile("\\\\[!-/:-@\\[-`{-~]")
	inlineLink    = regexp.MustCompile(`!?\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(\s*(<[^>]*>|(?:[^\s()]|\([^\s()]*\))*)(?:\s+(?:"[^"]*"|'[^']*'))?\s*\)`)
	referenceLink = regexp.MustCompile(`!?\[((?:[^\[\]]|\[[^\[\]]*\])+)\]\[([^\[\]]*)\]`)
	autolink      = regexp.MustCompile(`<[a-z][a-z0-9+.-]*:[^\s<>]*>`)
	tag           = regexp.MustCompile(`</?[a-zA-Z][^<>]*>`)
	emphasis      = regexp.MustCompile(`[*~]+|\b_+|_+\b`)
)

// withoutCode returns a paragraph of a document with its code crossed out, so that
// nothing in it is taken for prose or a link.
func withoutCode(text string) string {
	var out strings.Builder
	at := 0
	for _, s := range codeSpans(text) {
		out.WriteString(text[at:s.begin])
		out.WriteString(cross(text[s.begin:s.end]))
		at = s.end
	}
	out.WriteString(text[at:])
	return escape.ReplaceAllString(out.String(), "x")
}

// plain returns what a reader sees of a paragraph of a document, with its code crossed
// out. It has as many lines.
func (p paragraph) plain() paragraph {
	if p.kind == comment {
		return p
	}
	p.text = withoutLinks(withoutCode(p.text))
	p.text = autolink.ReplaceAllString(p.text, "x")
	p.text = tag.ReplaceAllString(p.text, "")
	p.text = emphasis.ReplaceAllString(p.text, "")
	return p
}

func withoutLinks(text string) string {
	for range 2 { // a link may have a picture for a text
		text = inlineLink.ReplaceAllString(text, "$1")
		text = referenceLink.ReplaceAllString(text, "$1")
	}
	return text
}

// link is a link inside of a document.
type link struct {
	line   int
	target string
	name   string // of a reference link, which has no target; in lower case
}

// links returns the links of a paragraph of a document.
func (p paragraph) links() (found []link) { return linksIn(withoutCode(p.text), p.line) }

func linksIn(text string, first int) (found []link) {
	line := func(offset int) int { return first + strings.Count(text[:offset], "\n") }
	for _, m := range inlineLink.FindAllStringSubmatchIndex(text, -1) {
		found = append(found, link{line: line(m[0]), target: strings.Trim(text[m[4]:m[5]], "<>")})
		found = append(found, linksIn(text[m[2]:m[3]], line(m[2]))...)
	}
	for _, m := range referenceLink.FindAllStringSubmatchIndex(text, -1) {
		name := text[m[4]:m[5]]
		if name == "" {
			name = text[m[2]:m[3]]
		}
		found = append(found, link{line: line(m[0]), name: strings.ToLower(name)})
	}
	return found
}
