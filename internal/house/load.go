package house

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Package is a package of the module, without its tests, as a compiler for Linux on
// amd64 sees it: the same on every machine.
type Package struct {
	Path string // from the root of the module; "." for the root

	files  *token.FileSet
	syntax []*ast.File
	types  *types.Package
	info   *types.Info
}

// listed is what go list says of a package.
type listed struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	Export     string // the file with what the compiler tells importers
	Module     *struct {
		Path string
		Main bool
	}
}

// Load reads and checks the packages of the module around the directory.
func Load(ctx context.Context, dir string) ([]*Package, error) {
	all, err := list(ctx, dir)
	if err != nil {
		return nil, err
	}
	exports := map[string]string{}
	for _, l := range all {
		exports[l.ImportPath] = l.Export
	}
	files := token.NewFileSet()
	imports := importer.ForCompiler(files, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })
	var packages []*Package
	for _, l := range all {
		if l.Module == nil || !l.Module.Main || len(l.GoFiles) == 0 {
			continue
		}
		p, err := check(l, files, imports)
		if err != nil {
			return nil, err
		}
		packages = append(packages, p)
	}
	return packages, nil
}

// list asks for the module's packages and everything they import.
func list(ctx context.Context, dir string) (all []listed, err error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-export", "-deps", "-json=ImportPath,Dir,GoFiles,Export,Module", "./...")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH=amd64")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w\n%s", err, stderr.String())
	}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var l listed
		switch err := d.Decode(&l); {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return nil, fmt.Errorf("go list: %w", err)
		}
		all = append(all, l)
	}
}

func check(l listed, files *token.FileSet, imports types.Importer) (*Package, error) {
	p := &Package{Path: ".", files: files, info: &types.Info{Uses: map[*ast.Ident]types.Object{}}}
	if below, ok := strings.CutPrefix(l.ImportPath, l.Module.Path+"/"); ok {
		p.Path = below
	}
	for _, name := range l.GoFiles {
		f, err := parser.ParseFile(files, filepath.Join(l.Dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		p.syntax = append(p.syntax, f)
	}
	config := types.Config{Importer: imports, Sizes: types.SizesFor("gc", "amd64")}
	var err error
	p.types, err = config.Check(l.ImportPath, files, p.syntax, p.info)
	return p, err
}

// file returns the name of the file that has the position.
func (p *Package) file(at token.Pos) string { return filepath.Base(p.files.Position(at).Filename) }
