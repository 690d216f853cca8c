package lint

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/scanner"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// The info strings of blocks of Go.
const (
	wholeFile = "go"
	fragment  = "go fragment"
)

// goBlock is a block of Go in a document.
type goBlock struct {
	block
	document string
}

// found returns a finding at a line of the document.
func (b goBlock) found(line int, wrong, remedy string) Finding {
	return Finding{b.document, line, wrong, remedy}
}

// GoBlocks finds the blocks of Go in documents that do not compile, as they stand, in the
// module around their document; and the fragments that do not parse. root is where the
// project lies on disk. Nothing is written there.
func (p *Project) GoBlocks(ctx context.Context, root string) (found []Finding, err error) {
	modules := map[string][]goBlock{}
	for _, b := range p.goBlocks() {
		wrong := b.check()
		found = append(found, wrong...)
		if b.info == wholeFile && len(wrong) == 0 {
			module := p.moduleOf(b.document)
			modules[module] = append(modules[module], b)
		}
	}
	for module, blocks := range modules {
		wrong, err := compile(ctx, filepath.Join(root, module), blocks)
		if err != nil {
			return nil, err
		}
		found = append(found, wrong...)
	}
	sorted(found)
	return found, nil
}

// goBlocks returns the blocks of code that are marked as Go.
func (p *Project) goBlocks() (found []goBlock) {
	for _, d := range p.documents {
		for _, b := range d.blocks {
			if language, _, _ := strings.Cut(b.info, " "); strings.HasPrefix(language, "go") {
				found = append(found, goBlock{b, d.name})
			}
		}
	}
	return found
}

// moduleOf returns the directory of the module around a file.
func (p *Project) moduleOf(name string) string {
	dir := path.Dir(name)
	for dir != "." {
		if _, err := fs.Stat(p.files, path.Join(dir, "go.mod")); err == nil {
			break
		}
		dir = path.Dir(dir)
	}
	return dir
}

// check finds faults that need no compiler to be seen.
func (b goBlock) check() []Finding {
	switch b.info {
	case fragment:
		return b.checkFragment()
	case wholeFile:
		return b.checkFile()
	}
	return []Finding{b.found(b.line-1, fmt.Sprintf("unknown kind of block %q", b.info), "write ```go for a file that compiles, or ```go fragment")}
}

func (b goBlock) checkFile() (found []Finding) {
	files := token.NewFileSet()
	f, err := parser.ParseFile(files, b.document, b.withLines("", b.text), parser.ImportsOnly|parser.SkipObjectResolution)
	if err != nil {
		line, text := b.explain(err)
		return []Finding{b.found(line, "the block of Go is no file: "+text, "complete it with package and imports, or mark it: ```go fragment")}
	}
	for _, i := range f.Imports {
		if internal(i) {
			found = append(found, b.found(files.Position(i.Pos()).Line, "the block imports "+i.Path.Value+", which users cannot", "use packages outside of internal"))
		}
	}
	return found
}

func internal(i *ast.ImportSpec) bool {
	name, err := strconv.Unquote(i.Path.Value)
	return err == nil && strings.Contains("/"+name+"/", "/internal/")
}

// withLines returns Go text in which the positions are those of the document.
func (b goBlock) withLines(before, text string) string {
	return fmt.Sprintf("%s\n//line %s:%d\n%s", before, b.document, b.line, text)
}

// explain returns the first error of a parser, and its line in the document.
func (b goBlock) explain(err error) (line int, text string) {
	var list scanner.ErrorList
	if errors.As(err, &list) && len(list) > 0 {
		last := b.line + strings.Count(b.text, "\n")
		return min(max(list[0].Pos.Line, b.line), last), list[0].Msg
	}
	return b.line, err.Error()
}

// surroundings are the places that a fragment can be cut from.
var surroundings = []struct{ before, after string }{
	{"package p; func _() {", "}"},
	{"package p", ""},
	{"", ""},
	{"package p; var _ = T{", "}"},
	{"package p; type _ struct {", "}"},
	{"package p; type _ interface {", "}"},
}

var (
	elidedBlock = regexp.MustCompile(`\{\s*\.\.\.\s*\}`)
	elidedLine  = regexp.MustCompile(`(?m)^\s*\.\.\.\s*$`)
	elidedRest  = regexp.MustCompile(`(,\s*|[(\[])\.\.\.(\s*[)}\]])`)
	elidedValue = regexp.MustCompile(`(?m)([=:]\s*)\.\.\.(,?\s*)$`)
)

// withoutElisions returns a fragment with something in the places of its "...".
func withoutElisions(text string) string {
	text = elidedBlock.ReplaceAllString(text, "{}")
	text = elidedLine.ReplaceAllString(text, "")
	text = elidedRest.ReplaceAllString(text, "${1}nil$2")
	return elidedValue.ReplaceAllString(text, "${1}nil$2")
}

// checkFragment reports a fragment that parses in no surroundings. The error is that of
// the surroundings in which the parser came farthest.
func (b goBlock) checkFragment() []Finding {
	farthest, why := 0, ""
	for _, s := range surroundings {
		text := b.withLines(s.before, withoutElisions(b.text)+"\n"+s.after)
		_, err := parser.ParseFile(token.NewFileSet(), b.document, text, parser.SkipObjectResolution)
		if err == nil {
			return nil
		}
		if line, text := b.explain(err); line > farthest {
			farthest, why = line, text
		}
	}
	return []Finding{b.found(farthest, "the fragment is not Go: "+why, "mend it, or leave out the word go")}
}

// compile finds the blocks that do not compile in the module of the directory. The
// compiler sees each as a package of the module that is not on disk.
func compile(ctx context.Context, module string, blocks []goBlock) (found []Finding, err error) {
	if module, err = filepath.Abs(module); err != nil {
		return nil, err
	}
	temp, err := os.MkdirTemp("", "go-blocks-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(temp)
	var overlay struct{ Replace map[string]string }
	overlay.Replace = map[string]string{}
	args := []string{"list", "-e", "-export", "-json=ImportPath,Error,DepsErrors", "-overlay", filepath.Join(temp, "overlay.json"), "--"}
	for i, b := range blocks {
		dir := fmt.Sprintf("go-block-in-documents/%d", i)
		file := filepath.Join(temp, fmt.Sprintf("%d.go", i))
		// The name between the colons is the block's number: it comes back with an error.
		text := fmt.Sprintf("//line block-%d:%d\n%s", i, b.line, b.text)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return nil, err
		}
		overlay.Replace[filepath.Join(module, filepath.FromSlash(dir), "block.go")] = file
		args = append(args, "./"+dir)
	}
	if err := writeJSON(filepath.Join(temp, "overlay.json"), overlay); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = module
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("go list in %s: %w\n%s", module, err, stderr.String())
	}
	return compilerErrors(&out, blocks)
}

func writeJSON(file string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o600)
}

var compilerError = regexp.MustCompile(`block-(\d+):(\d+)(?::\d+)?:? ?(.*)`)

// compilerErrors reads what go list says of the blocks.
func compilerErrors(out io.Reader, blocks []goBlock) (found []Finding, err error) {
	type packageError struct{ Pos, Err string }
	for d := json.NewDecoder(out); ; {
		var pkg struct {
			ImportPath string
			Error      *packageError
			DepsErrors []*packageError
		}
		switch err := d.Decode(&pkg); {
		case errors.Is(err, io.EOF):
			return found, nil
		case err != nil:
			return nil, fmt.Errorf("go list: %w", err)
		}
		if pkg.Error != nil {
			pkg.DepsErrors = append(pkg.DepsErrors, pkg.Error)
		}
		said := map[string]bool{}
		for _, e := range pkg.DepsErrors {
			text := e.Pos + " " + e.Err
			if said[text] {
				continue
			}
			said[text] = true
			for _, m := range compilerError.FindAllStringSubmatch(text, -1) {
				// The numbers were written here, and come back as they were.
				i, _ := strconv.Atoi(m[1])
				line, _ := strconv.Atoi(m[2])
				found = append(found, blocks[i].found(line, "the block of Go does not compile: "+strings.TrimSpace(m[3]), "mend it, or mark it: ```go fragment"))
			}
			if !compilerError.MatchString(text) {
				return nil, fmt.Errorf("go list: %s: %s", pkg.ImportPath, text)
			}
		}
	}
}
