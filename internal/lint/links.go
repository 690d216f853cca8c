package lint

import (
	"fmt"
	"io/fs"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// links finds links and anchors that lead nowhere: those between documents, and those
// to other files of the project. Links to other hosts are not followed.
func (p *Project) links() (found []Finding) {
	for _, d := range p.documents {
		for _, l := range p.linksOf(d) {
			found = append(found, p.follow(d, l)...)
		}
	}
	for _, s := range p.sources {
		found = append(found, p.mentions(s)...)
	}
	return found
}

// linksOf returns the links of a document. Those by reference have their targets,
// unless there is none.
func (p *Project) linksOf(d *document) (links []link) {
	for _, q := range d.paragraphs {
		for _, l := range q.links() {
			if l.name == "" {
				links = append(links, l)
			} else if _, known := d.references[l.name]; !known {
				links = append(links, l)
			}
		}
	}
	for _, r := range d.references {
		links = append(links, link{line: r.line, target: strings.Trim(r.target, "<>")})
	}
	return links
}

var elsewhere = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9+.-]*:`)

// follow returns what is wrong with a link of d.
func (p *Project) follow(d *document, l link) []Finding {
	wrong := func(remedy, format string, args ...any) []Finding {
		return []Finding{{d.name, l.line, fmt.Sprintf(format, args...), remedy}}
	}
	switch {
	case l.name != "":
		return wrong("add a line [name]: target", "the link by reference [%s] has no target", l.name)
	case elsewhere.MatchString(l.target):
		return nil
	case strings.HasPrefix(l.target, "/"):
		return wrong("write it from the document's own directory", "the link %s is not relative", l.target)
	}
	file, anchor, _ := strings.Cut(l.target, "#")
	file, err := url.PathUnescape(file)
	if err != nil {
		return wrong("escape it as a URL", "the link %s cannot be read", l.target)
	}
	name := d.name
	if file != "" {
		name = path.Join(path.Dir(d.name), file)
	}
	if why := p.missing(name, anchor); why != "" {
		return wrong("correct the link, or make what it names", "the link %s is dead: %s", l.target, why)
	}
	return nil
}

// missing says why there is no such file, directory or anchor; empty if there is.
func (p *Project) missing(name, anchor string) string {
	if !fs.ValidPath(name) {
		return "it leads out of the project"
	}
	info, err := fs.Stat(p.files, name)
	switch {
	case err != nil:
		return "there is no " + name
	case anchor == "":
		return ""
	case info.IsDir():
		name = path.Join(name, "README.md")
	}
	if path.Ext(name) != ".md" {
		return "" // a line of a file of code
	}
	for _, d := range p.documents {
		if d.name == name && !slices.Contains(d.anchors(), anchor) {
			return "no heading of " + name + " has that anchor"
		}
	}
	return ""
}

// mentioned is a document as comments and strings of code name it.
var mentioned = regexp.MustCompile(`(?:^|[^\w/.-])(docs/[\w/.-]*\w\.md)(?:#([\w-]+))?`)

// mentions finds names of documents in a source that lead nowhere.
func (p *Project) mentions(s *source) (found []Finding) {
	for i, line := range strings.Split(s.text, "\n") {
		for _, m := range mentioned.FindAllStringSubmatch(line, -1) {
			if why := p.missing(m[1], m[2]); why != "" {
				found = append(found, Finding{s.name, i + 1, "it names a place in the documents that is not there: " + why, "correct the name"})
			}
		}
	}
	return found
}

var namedAnchor = regexp.MustCompile(`<a\s+(?:id|name)="([^"]+)"`)

// anchors returns what the part of a link behind # can name, by GitHub's rules.
func (d *document) anchors() (names []string) {
	seen := map[string]int{}
	for _, q := range d.paragraphs {
		for _, m := range namedAnchor.FindAllStringSubmatch(q.text, -1) {
			names = append(names, m[1])
		}
		if q.kind != heading {
			continue
		}
		name := anchorOf(q.text)
		n := seen[name]
		seen[name]++
		if n > 0 {
			name = fmt.Sprintf("%s-%d", name, n)
		}
		names = append(names, name)
	}
	return names
}

// anchorOf returns the anchor of a heading: its text in lower case, without signs, and
// with a dash for each blank.
func anchorOf(text string) string {
	var code []string
	var marked strings.Builder
	at := 0
	for _, s := range codeSpans(text) { // nothing in code is a link or a tag
		code = append(code, s.code(text))
		marked.WriteString(text[at:s.begin] + "\x00")
		at = s.end
	}
	marked.WriteString(text[at:])
	shown := emphasis.ReplaceAllString(tag.ReplaceAllString(withoutLinks(marked.String()), ""), "")
	for _, c := range code {
		shown = strings.Replace(shown, "\x00", c, 1)
	}
	return strings.Map(func(c rune) rune {
		switch {
		case c == ' ':
			return '-'
		case c == '-' || unicode.In(c, unicode.L, unicode.M, unicode.Nd, unicode.Pc):
			return unicode.ToLower(c)
		}
		return -1
	}, shown)
}
