package mutants

import (
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// Bug is one bug to plant.
type Bug struct {
	Name      string
	Promise   string   // the one that it breaks
	Tests     []string // those that should fail: names, or directory, dot and name
	Old, New  []string // lines of code, without the white space at their beginnings
	Directory string   // below which the code is
	At        string   // file and line of the list
}

// Load reads the lists, which are the text files in the directory of fsys.
func Load(fsys fs.FS, directory string) ([]Bug, error) {
	names, err := fs.Glob(fsys, path.Join(directory, "*.txt"))
	if err != nil {
		return nil, err
	}
	var all []Bug
	seen := make(map[string]string)
	for _, name := range names {
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			return nil, err
		}
		bugs, err := parse(name, string(text))
		if err != nil {
			return nil, err
		}
		for _, b := range bugs {
			if first := seen[b.Name]; first != "" {
				return nil, fmt.Errorf("%s: there is another bug %s at %s", b.At, b.Name, first)
			}
			seen[b.Name] = b.At
		}
		all = append(all, bugs...)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no bugs in %s", path.Join(directory, "*.txt"))
	}
	return all, nil
}

// parse reads one list.
func parse(file, text string) ([]Bug, error) {
	var bugs []Bug
	directory := ""
	for i, line := range strings.Split(text, "\n") {
		at := fmt.Sprintf("%s:%d", file, i+1)
		word, rest, _ := strings.Cut(line, " ")
		rest = strings.TrimSpace(rest)
		var b *Bug
		if len(bugs) > 0 {
			b = &bugs[len(bugs)-1]
		}
		switch {
		case word == "" || word[0] == '#':
		case word == "directory" && directory == "" && rest != "":
			directory = path.Clean(rest)
		case word == "bug" && directory != "" && rest != "":
			bugs = append(bugs, Bug{Name: rest, Directory: directory, At: at})
		case word == "promise" && b != nil && b.Promise == "":
			b.Promise = rest
		case word == "tests" && b != nil && b.Tests == nil:
			b.Tests = strings.Fields(rest)
		case word == "-" && b != nil && b.New == nil:
			b.Old = append(b.Old, rest)
		case word == "+" && b != nil && b.Old != nil:
			b.New = append(b.New, rest)
		default:
			return nil, fmt.Errorf("%s: %q has no place here: a list has a directory, and then bugs, each with promise, tests, old lines (-) and new ones (+)", at, line)
		}
	}
	for _, b := range bugs {
		if b.Promise == "" || len(b.Tests) == 0 || len(b.Old) == 0 || len(b.New) == 0 {
			return nil, fmt.Errorf("%s: bug %s needs a promise, tests, old lines (-) and new ones (+)", b.At, b.Name)
		}
	}
	return bugs, nil
}
