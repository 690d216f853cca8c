package lint

import "strings"

// paragraph is text that is read as one: of a document or of a comment. Its lines
// follow each other in the file.
type paragraph struct {
	kind kind
	line int // of its first line
	text string
}

type kind int

const (
	comment   kind = iota
	prose          // a paragraph of a document, or an item of a list
	heading        // of a document
	cell           // of a table
	titleCell      // of the first row of a table
)

// newParagraph joins lines, the first of which is line.
func newParagraph(k kind, line int, lines []string) paragraph {
	return paragraph{kind: k, line: line, text: strings.Join(lines, "\n")}
}

// lineAt returns the line of the file that has the byte of the text.
func (p paragraph) lineAt(offset int) int { return p.line + strings.Count(p.text[:offset], "\n") }

// words counts the words.
func (p paragraph) words() int { return len(strings.Fields(p.text)) }
