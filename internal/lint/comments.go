package lint

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"strings"
)

// source is a file of code, with the paragraphs of its comments.
type source struct {
	name     string
	text     string
	comments []paragraph
}

// form finds the comments of a kind of file.
type form func(name, text string) ([]paragraph, error)

// formOf returns the form of the file's comments; nil if its name does not tell.
func formOf(name string) form {
	switch path.Ext(name) {
	case ".go":
		return goComments
	case ".sh", ".yml", ".yaml":
		return hash
	case ".lua":
		return func(_, text string) ([]paragraph, error) { return lineComments(text, 1, "--"), nil }
	}
	if path.Base(name) == "Makefile" {
		return hash
	}
	return nil
}

func hash(_, text string) ([]paragraph, error) { return lineComments(text, 1, "#"), nil }

// goComments returns the comments of a Go file.
func goComments(name, text string) (found []paragraph, err error) {
	files := token.NewFileSet()
	f, err := parser.ParseFile(files, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	for _, group := range f.Comments {
		var lines []string
		first := files.Position(group.Pos()).Line
		for _, c := range group.List {
			lines = append(lines, commentLines(c)...)
		}
		found = append(found, split(first, lines)...)
	}
	return found, nil
}

// commentLines returns the text of a comment, line by line. A directive has none.
func commentLines(c *ast.Comment) []string {
	if text, ok := strings.CutPrefix(c.Text, "//"); ok {
		if strings.HasPrefix(text, "go:") || strings.HasPrefix(text, "line ") {
			text = ""
		}
		return []string{text}
	}
	lines := strings.Split(strings.TrimSuffix(strings.TrimPrefix(c.Text, "/*"), "*/"), "\n")
	for i, l := range lines {
		lines[i] = strings.TrimPrefix(strings.TrimLeft(l, " \t"), "*")
	}
	return lines
}

// lineComments returns the comments of a text whose comments go from mark to the
// end of the line. Its first line has the number first.
func lineComments(text string, first int, mark string) (found []paragraph) {
	var block []string // comments that have their lines for themselves
	begin := 0
	flush := func() {
		found = append(found, split(begin, block)...)
		block = nil
	}
	for i, line := range strings.Split(text, "\n") {
		at := commentAt(line, mark)
		if at < 0 || i == 0 && strings.HasPrefix(line, "#!") {
			flush()
			continue
		}
		body := strings.TrimLeft(line[at:], mark[:1])
		if strings.TrimSpace(line[:at]) != "" {
			flush()
			found = append(found, split(first+i, []string{body})...)
			continue
		}
		if block == nil {
			begin = first + i
		}
		block = append(block, body)
	}
	flush()
	return found
}

// commentAt returns where a comment begins in a line of code; -1 if there is none.
// A mark inside of quotes is none, nor one in the middle of a word.
func commentAt(line, mark string) int {
	quote := byte(0)
	for i := range len(line) {
		switch c := line[i]; {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'' || c == '`':
			quote = c
		case strings.HasPrefix(line[i:], mark) && (i == 0 || line[i-1] == ' ' || line[i-1] == '\t'):
			return i
		}
	}
	return -1
}

// split cuts the lines of a comment into paragraphs: at blank lines, before items of
// a list, and around each line of code or of a table.
func split(first int, lines []string) (found []paragraph) {
	var open []string
	begin := 0
	flush := func() {
		if len(open) > 0 {
			found = append(found, newParagraph(comment, begin, open))
		}
		open = nil
	}
	for i, line := range lines {
		text := strings.TrimSpace(line)
		code := strings.HasPrefix(line, "\t")
		if text == "" || code || itemMark.MatchString(text) {
			flush()
		}
		if text == "" {
			continue
		}
		if open == nil {
			begin = first + i
		}
		open = append(open, text)
		if code {
			flush()
		}
	}
	flush()
	return found
}
