package mutants

import (
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
)

// planted is a file with a bug.
type planted struct {
	file string // by its path in the project
	line int
	text []byte
}

// plant finds the code of b in its directory, and changes it.
func plant(fsys fs.FS, b Bug) (planted, error) {
	quoted := make([]string, len(b.Old))
	for i, line := range b.Old {
		quoted[i] = regexp.QuoteMeta(line)
	}
	old := regexp.MustCompile(strings.Join(quoted, `[ \t]*(?://[^\n]*)?\n[ \t]*`))
	var found planted
	var places []string
	err := walk(fsys, b.Directory, func(file string, text []byte) {
		if strings.HasSuffix(file, "_test.go") || path.Ext(file) != ".go" && path.Ext(file) != ".lua" {
			return
		}
		for _, at := range old.FindAllIndex(text, -1) {
			line := 1 + strings.Count(string(text[:at[0]]), "\n")
			places = append(places, fmt.Sprintf("%s:%d", file, line))
			changed := slices.Concat(text[:at[0]], []byte(strings.Join(b.New, "\n")), text[at[1]:])
			found = planted{file, line, changed}
		}
	})
	switch {
	case err != nil:
		return planted{}, err
	case len(places) == 0:
		return planted{}, fmt.Errorf("its code is nowhere below %s: it has changed, so change the list", b.Directory)
	case len(places) > 1:
		return planted{}, fmt.Errorf("its code is at %s: take more of it, so that it is in one place", strings.Join(places, " and "))
	}
	return found, nil
}

// tests returns the names of the tests of b, by the directories of their packages.
func tests(fsys fs.FS, b Bug) (map[string][]string, error) {
	named := make(map[string][]string)
	for _, test := range b.Tests {
		below, name := b.Directory, test
		if dot := strings.LastIndexByte(test, '.'); dot >= 0 {
			below, name = test[:dot], test[dot+1:]
		}
		found := ""
		err := walk(fsys, below, func(file string, text []byte) {
			if strings.HasSuffix(file, "_test.go") && strings.Contains(string(text), "\nfunc "+name+"(") {
				found = path.Dir(file)
			}
		})
		if err != nil {
			return nil, err
		}
		if found == "" {
			return nil, fmt.Errorf("there is no test %s below %s", name, below)
		}
		named[found] = append(named[found], name)
	}
	return named, nil
}

// walk calls see for each file below the directory.
func walk(fsys fs.FS, directory string, see func(file string, text []byte)) error {
	return fs.WalkDir(fsys, directory, func(file string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && entry.Name() == "testdata":
			return fs.SkipDir
		case entry.IsDir():
			return nil
		}
		text, err := fs.ReadFile(fsys, file)
		if err == nil {
			see(file, text)
		}
		return err
	})
}
