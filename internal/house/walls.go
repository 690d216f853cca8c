package house

import (
	"go/ast"
	"go/types"
	"maps"
	"slices"
)

// Walls are what a package looks like inside.
type Walls struct {
	Circle   []string // the most files of which each depends on each other; none for fewer than two
	Struct   Measured // the type with the most fields
	Function Measured // the one with the most lines
	Exported int      // names of the package that other packages can use
}

// Measured is something and its size.
type Measured struct {
	Name string
	Size int
}

func (m *Measured) atLeast(name string, size int) {
	if size > m.Size {
		*m = Measured{name, size}
	}
}

// Walls measures the package. Types in the list exempt may have any number of fields.
func (p *Package) Walls(exempt map[string]string) Walls {
	var w Walls
	for _, name := range p.types.Scope().Names() {
		o := p.types.Scope().Lookup(name)
		if o.Exported() {
			w.Exported++
		}
		if t, ok := o.(*types.TypeName); ok && exempt[p.Path+"."+name] == "" {
			if s, ok := t.Type().Underlying().(*types.Struct); ok && !t.IsAlias() {
				w.Struct.atLeast(name, s.NumFields())
			}
		}
	}
	for _, f := range p.syntax {
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok {
				w.Function.atLeast(fn.Name.Name, p.files.Position(fn.End()).Line-p.files.Position(fn.Pos()).Line+1)
			}
		}
	}
	if circle := largestCircle(p.dependencies()); len(circle) > 1 {
		w.Circle = circle
	}
	return w
}

// graph has, for each file, the files it depends on.
type graph map[string]map[string]bool

// dependencies finds which file uses which: by the names of the package, and by the
// methods and fields of its types. Names inside of functions are nobody else's.
func (p *Package) dependencies() graph {
	g := graph{}
	for _, f := range p.syntax {
		g[p.file(f.Package)] = map[string]bool{}
	}
	for name, o := range p.info.Uses {
		if o.Pkg() != p.types || !o.Pos().IsValid() || o.Parent() != nil && o.Parent() != p.types.Scope() {
			continue
		}
		if from, to := p.file(name.Pos()), p.file(o.Pos()); from != to {
			g[from][to] = true
		}
	}
	return g
}

// largestCircle returns the largest set of nodes that all reach each other, sorted.
func largestCircle(g graph) (largest []string) {
	reach := map[string]map[string]bool{}
	for node := range g {
		reach[node] = g.from(node)
	}
	for _, node := range slices.Sorted(maps.Keys(g)) {
		circle := []string{node}
		for other := range reach[node] {
			if other != node && reach[other][node] {
				circle = append(circle, other)
			}
		}
		if len(circle) > len(largest) {
			largest = circle
		}
	}
	slices.Sort(largest)
	return largest
}

// from returns what can be reached from a node, itself included if a way leads back.
func (g graph) from(node string) map[string]bool {
	reached := map[string]bool{}
	for next := []string{node}; len(next) > 0; {
		at := next[len(next)-1]
		next = next[:len(next)-1]
		for to := range g[at] {
			if !reached[to] {
				reached[to] = true
				next = append(next, to)
			}
		}
	}
	return reached
}
