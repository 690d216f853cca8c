package lint

import (
	"fmt"
	"path"
	"regexp"
	"strings"
)

var (
	// testName is a test as documents name it: `dedup.TestX`, `store/bolt.TestRealX`, or
	// `TestX` alone.
	testName = regexp.MustCompile(`^(?:([\w/-]+(?:/[\w.-]+)*)\.)?((?:Test|Fuzz|Benchmark|Example)[A-Z0-9_]\w*)(?:/\S*)?$`)
	testFunc = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark|Example)\w*)\(`)
)

const guarantees = "docs/guarantees.md"

// TestNames finds names of tests in the code of documents that no test file has. Each row of
// a table of docs/guarantees.md with a column of tests has to name one.
func (p *Project) TestNames() (found []Finding) {
	tests := p.tests()
	for _, d := range p.documents {
		for _, q := range d.paragraphs {
			for _, n := range q.testNames() {
				if !tests[n.test] {
					found = append(found, Finding{d.name, n.line, fmt.Sprintf("no test file has %s", n.test), "correct the name: DIRECTORY.TestName"})
				}
			}
		}
		if d.name == guarantees {
			found = append(found, d.unproved()...)
		}
	}
	return found
}

// tests are the names of all test functions, whatever their build tags: with their
// directory and alone.
func (p *Project) tests() map[string]bool {
	names := map[string]bool{}
	for _, s := range p.sources {
		if !strings.HasSuffix(s.name, "_test.go") {
			continue
		}
		for _, m := range testFunc.FindAllStringSubmatch(s.text, -1) {
			names[m[1]] = true
			names[path.Dir(s.name)+"."+m[1]] = true
		}
	}
	return names
}

type namedTest struct {
	line int
	test string
}

// testNames returns the tests that the code of a paragraph names.
func (q paragraph) testNames() (found []namedTest) {
	for _, s := range codeSpans(q.text) {
		m := testName.FindStringSubmatch(s.code(q.text))
		if m == nil {
			continue
		}
		name := m[2]
		if m[1] != "" {
			name = m[1] + "." + name
		}
		found = append(found, namedTest{q.lineAt(s.begin), name})
	}
	return found
}

// unproved finds the rows of tables that name no test in their column of tests; and the
// lack of such a table.
func (d *document) unproved() (found []Finding) {
	columns := 0
	for _, t := range d.tables {
		column := t.columnOfTests()
		if column < 0 {
			continue
		}
		columns++
		for _, row := range t.rows[1:] {
			if column >= len(row) || len(row[column].testNames()) == 0 {
				found = append(found, Finding{d.name, row[0].line, "the row names no test", "name the test that shows it: `DIRECTORY.TestName`"})
			}
		}
	}
	if columns == 0 {
		found = append(found, Finding{d.name, 1, "no table has a column of tests", "give the table of crashes a column \"test\""})
	}
	return found
}

// columnOfTests returns the column whose title speaks of tests; -1 if there is none.
func (t table) columnOfTests() int {
	for i, c := range t.rows[0] {
		if title := strings.ToLower(c.text); strings.Contains(title, "test") || strings.Contains(title, "shown by") {
			return i
		}
	}
	return -1
}
