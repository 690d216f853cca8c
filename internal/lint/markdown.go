package lint

import (
	"regexp"
	"strings"
)

// document is a Markdown file, as far as the checks need it.
type document struct {
	name       string
	lines      []string
	paragraphs []paragraph // prose, headings and cells of tables, as they are written
	blocks     []block
	tables     []table
	references map[string]reference // by name, in lower case
	code       map[int]bool         // lines of code, with their fences
	table      map[int]bool         // lines of tables
}

// block is code, between fences or indented.
type block struct {
	line int    // of its first line of code
	info string // behind the opening fence
	text string
}

// table has its cells by rows; the first row is the title.
type table struct {
	line int
	rows [][]paragraph
}

// reference is a line such as "[name]: target".
type reference struct {
	line   int
	target string
}

var (
	fenceMark     = regexp.MustCompile("^(\\s*(?:(?:[-*+]|\\d{1,9}[.)])\\s+)?)(`{3,}|~{3,})\\s*([^`]*?)\\s*$")
	headingMark   = regexp.MustCompile(`^ {0,3}#{1,6}(?:\s+(.*?))??(?:\s+#+)?\s*$`)
	underline     = regexp.MustCompile(`^ {0,3}(?:=+|-+)\s*$`)
	rule          = regexp.MustCompile(`^ {0,3}(?:(?:\*\s*){3,}|(?:-\s*){3,}|(?:_\s*){3,})$`)
	itemMark      = regexp.MustCompile(`^\s*(?:[-*+]|\d{1,9}[.)])\s+`)
	quoteMark     = regexp.MustCompile(`^(?: {0,3}>\s?)+`)
	delimiterRow  = regexp.MustCompile(`^\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$`)
	referenceMark = regexp.MustCompile(`^ {0,3}\[([^\]]+)\]:\s*(\S+)`)
)

// reader reads a document line by line. It knows the Markdown that the project writes:
// headings, paragraphs, lists, quotes, tables, code, HTML comments and references.
type reader struct {
	*document
	at    int      // the next line, counted from 0
	open  []string // lines of the paragraph that has begun
	begin int      // the number of the first of them
	item  bool     // the paragraph is an item of a list
	list  bool     // inside a list, where indented text is no code
}

func parseMarkdown(name, text string) *document {
	r := &reader{document: &document{
		name: name, lines: strings.Split(text, "\n"),
		references: map[string]reference{}, code: map[int]bool{}, table: map[int]bool{},
	}}
	for r.at < len(r.lines) {
		r.step()
	}
	r.flush()
	return r.document
}

// peek returns a line without the marks of quotes; the one behind the last is blank.
func (r *reader) peek(at int) string {
	if at >= len(r.lines) {
		return ""
	}
	return r.lines[at][len(quoteMark.FindString(r.lines[at])):]
}

// step reads a line, or a block of several.
func (r *reader) step() {
	line := r.peek(r.at)
	fence := fenceMark.FindStringSubmatch(line)
	switch {
	case strings.TrimSpace(line) == "":
		r.flush()
		r.at++
	case fence != nil:
		r.flush()
		r.fenced(len(fence[1]), fence[2], fence[3])
	case len(r.open) == 0 && !r.list && indentOf(line) >= 4:
		r.indented()
	case strings.HasPrefix(strings.TrimSpace(line), "<!--"):
		r.flush()
		r.skipComment()
	case strings.Contains(line, "|") && strings.Contains(r.peek(r.at+1), "|") && delimiterRow.MatchString(r.peek(r.at+1)):
		r.flush()
		r.readTable()
	default:
		r.line(line)
	}
}

// line reads a line that is a block for itself, or part of a paragraph.
func (r *reader) line(line string) {
	mark := itemMark.FindString(line)
	switch {
	case len(r.open) > 0 && !r.item && underline.MatchString(line):
		r.end(heading)
	case rule.MatchString(line):
		r.flush()
	case headingMark.MatchString(line):
		r.flush()
		r.open, r.begin = []string{headingMark.FindStringSubmatch(line)[1]}, r.at+1
		r.end(heading)
		r.list = false
	case len(r.open) == 0 && referenceMark.MatchString(line):
		m := referenceMark.FindStringSubmatch(line)
		r.references[strings.ToLower(m[1])] = reference{r.at + 1, m[2]}
	case mark != "":
		r.flush()
		r.open, r.begin, r.item, r.list = []string{line[len(mark):]}, r.at+1, true, true
	default:
		if len(r.open) == 0 {
			r.begin, r.item = r.at+1, false
			r.list = r.list && indentOf(line) > 0
		}
		r.open = append(r.open, line)
	}
	r.at++
}

func (r *reader) flush() { r.end(prose) }

// end ends the paragraph that has begun, if any.
func (r *reader) end(k kind) {
	if len(r.open) > 0 {
		r.paragraphs = append(r.paragraphs, newParagraph(k, r.begin, r.open))
	}
	r.open, r.item = nil, false
}

// fenced reads a block between fences, the first of which is the next line.
func (r *reader) fenced(indent int, fence, info string) {
	b := block{line: r.at + 2, info: info}
	var code []string
	r.code[r.at+1] = true
	for r.at++; r.at < len(r.lines); r.at++ {
		line := r.peek(r.at)
		r.code[r.at+1] = true
		if text := strings.TrimSpace(line); strings.HasPrefix(text, fence) && strings.Trim(text, fence[:1]) == "" {
			r.at++
			break
		}
		code = append(code, line[min(indent, indentOf(line)):])
	}
	b.text = strings.Join(code, "\n")
	r.blocks = append(r.blocks, b)
}

// indented reads a block of indented code.
func (r *reader) indented() {
	b := block{line: r.at + 1}
	var code []string
	for ; r.at < len(r.lines); r.at++ {
		line := r.peek(r.at)
		if strings.TrimSpace(line) != "" && indentOf(line) < 4 {
			break
		}
		r.code[r.at+1] = true
		code = append(code, strings.TrimSpace(line))
	}
	b.text = strings.Join(code, "\n")
	r.blocks = append(r.blocks, b)
}

func (r *reader) skipComment() {
	for r.at < len(r.lines) {
		r.at++
		if strings.Contains(r.lines[r.at-1], "-->") {
			return
		}
	}
}

// readTable reads a table, whose title is the next line.
func (r *reader) readTable() {
	t := table{line: r.at + 1}
	for ; strings.TrimSpace(r.peek(r.at)) != ""; r.at++ {
		r.table[r.at+1] = true
		if r.at+1 == t.line+1 {
			continue // the delimiters
		}
		k := cell
		if len(t.rows) == 0 {
			k = titleCell
		}
		var row []paragraph
		for _, text := range cellsOf(r.peek(r.at)) {
			row = append(row, newParagraph(k, r.at+1, []string{text}))
		}
		t.rows = append(t.rows, row)
		r.paragraphs = append(r.paragraphs, row...)
	}
	r.tables = append(r.tables, t)
}

// cellsOf splits a row of a table at its bars, but for those that are escaped.
func cellsOf(row string) (cells []string) {
	row = strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(row), "|"), "|")
	begin := 0
	for i := range len(row) {
		if row[i] == '|' && (i == 0 || row[i-1] != '\\') {
			cells = append(cells, strings.TrimSpace(row[begin:i]))
			begin = i + 1
		}
	}
	return append(cells, strings.TrimSpace(row[begin:]))
}

// indentOf counts the blanks before the text of a line; a tab is up to the next fourth.
func indentOf(line string) (n int) {
	for _, c := range line {
		switch c {
		case ' ':
			n++
		case '\t':
			n += 4 - n%4
		default:
			return n
		}
	}
	return n
}
