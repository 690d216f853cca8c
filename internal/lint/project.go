package lint

import (
	"io/fs"
	"path"
	"strings"
)

// Project is the text of a project, read once for all checks.
type Project struct {
	files     fs.FS
	documents []*document
	sources   []*source
}

// Load reads the documents and sources below the root of files. Directories whose
// names begin with a dot are passed over, except .ci, and so are testdata and what
// builds leave behind.
func Load(files fs.FS) (*Project, error) {
	p := &Project{files: files}
	err := fs.WalkDir(files, ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && passedOver(name):
			return fs.SkipDir
		case !entry.Type().IsRegular():
			return nil
		}
		return p.load(name)
	})
	return p, err
}

func passedOver(dir string) bool {
	base := path.Base(dir)
	switch {
	case dir == "." || base == ".ci":
		return false
	case strings.HasPrefix(base, "."):
		return true
	}
	return base == "testdata" || dir == "bin"
}

func (p *Project) load(name string) error {
	document := path.Ext(name) == ".md"
	form := formOf(name)
	if !document && form == nil && path.Ext(name) != "" {
		return nil
	}
	text, err := fs.ReadFile(p.files, name)
	if err != nil {
		return err
	}
	if form == nil && strings.HasPrefix(string(text), "#!") {
		form = hash
	}
	switch {
	case document:
		p.documents = append(p.documents, parseMarkdown(name, string(text)))
	case form != nil:
		s := &source{name: name, text: string(text)}
		if s.comments, err = form(name, s.text); err != nil {
			return err
		}
		p.sources = append(p.sources, s)
	}
	return nil
}
