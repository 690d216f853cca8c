package house

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"maps"
	"slices"
	"strings"
	"testing"
)

// planted returns a package p that has the files, each without its package clause.
func planted(t *testing.T, files map[string]string) *Package {
	t.Helper()
	p := &Package{Path: "p", files: token.NewFileSet(), info: &types.Info{Uses: map[*ast.Ident]types.Object{}}}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		f, err := parser.ParseFile(p.files, name, "package p\n\n"+files[name], parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		p.syntax = append(p.syntax, f)
	}
	var err error
	if p.types, err = new(types.Config).Check("example.org/p", p.files, p.syntax, p.info); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestLargestCircle(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  []string
	}{
		"by names":     {map[string]string{"a.go": "func A() { B() }", "b.go": "func B() { C() }", "c.go": "func C() { A() }", "d.go": "func D() { A() }"}, []string{"a.go", "b.go", "c.go"}},
		"by a method":  {map[string]string{"a.go": "type A struct{}\nfunc (A) m() { (A{}).n() }", "b.go": "func (A) n() {}"}, []string{"a.go", "b.go"}},
		"by a field":   {map[string]string{"a.go": "type A struct{ x int }\nvar _ = get", "b.go": "func get(v struct{ A }) int { return v.x }"}, []string{"a.go", "b.go"}},
		"by a literal": {map[string]string{"a.go": "type A struct{ x int }\nfunc a() { b() }", "b.go": "func b() any { return A{x: 1} }"}, []string{"a.go", "b.go"}},
		"of generics":  {map[string]string{"a.go": "type A[T any] struct{ x T }\nfunc a() { b(A[int]{}) }", "b.go": "func b(v A[int]) int { return v.x }"}, []string{"a.go", "b.go"}},
		"two circles": {map[string]string{
			"a.go": "func a() { b() }", "b.go": "func b() { a(); c() }",
			"c.go": "func c() { d() }", "d.go": "func d() { e() }", "e.go": "func e() { c() }",
		}, []string{"c.go", "d.go", "e.go"}},

		"chain":               {map[string]string{"a.go": "func A() { B() }", "b.go": "func B() { C() }", "c.go": "func C() {}"}, nil},
		"one file":            {map[string]string{"a.go": "func A() { A() }"}, nil},
		"by an interface":     {map[string]string{"a.go": "type A interface{ m() }\nfunc a(x A) { x.m() }", "b.go": "type B struct{}\nfunc (B) m() { a(B{}) }"}, nil},
		"names inside of one": {map[string]string{"a.go": "func A() { b := 1; _ = b; B() }", "b.go": "func B() { a := 1; _ = a }"}, nil},
	} {
		if got := planted(t, c.files).Walls(nil).Circle; !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

func TestStructsFunctionsAndNames(t *testing.T) {
	p := planted(t, map[string]string{
		"a.go": "type Options struct{ a, b, c, d int }\ntype T struct{ a, B int }\ntype Alias = Options\ntype unseen struct{ x int }\n",
		"b.go": "const C, d = 1, 2\nvar V, w int\n\n// A comment is no line of it.\nfunc F() {\n\tg()\n\n}\n\nfunc (T) Method() {}\nfunc g() { _ = struct{ a, b, c, d, e int }{} }\n",
	})
	got := p.Walls(map[string]string{"p.Options": "options"})
	if got.Struct != (Measured{"T", 2}) || got.Function != (Measured{"F", 4}) || got.Exported != 6 {
		t.Errorf("got %+v, want T with 2 fields, F with 4 lines, and 6 names", got)
	}
	if got := p.Walls(nil).Struct; got != (Measured{"Options", 4}) {
		t.Errorf("nothing exempt: got %+v, want Options with 4 fields", got)
	}
}

func TestAPI(t *testing.T) {
	p := planted(t, map[string]string{"a.go": `
const Limit, hidden = 4096, 1
type State uint8
const Done State = 2
var ErrX error
func F(first int, more ...string) (n int, err error) { return }
func Map[K comparable, V any](of map[K]V, f func(key K) V) []V { return nil }
type Options struct {
	TTL int
	Hook func(name string) error
	inner
	*Result
	unseen int
}
type inner struct { Promoted bool }
func (*inner) Moved(by int) {}
type Result struct { N int }
func (r Result) Settled() bool { return true }
func (r *Result) set() {}
type Store interface {
	Apply(ops []int) error
	sealed()
}
type List[T any] []T
func (l *List[T]) Add(item T) {}
type Same = Options
type Handler func(m *Result) ([]byte, error)
`})
	want := strings.Split(strings.TrimSpace(`
const Done State = 2
const Limit untyped int = 4096
field Options.Hook func(string) error
field Options.Promoted bool
field Options.Result *Result
field Options.TTL int
field Result.N int
func F(int, ...string) (int, error)
func Map[K comparable, V any](map[K]V, func(K) V) []V
method (*List) Add(T)
method (*Options) Moved(int)
method (Options) Settled() bool
method (Result) Settled() bool
method Store.Apply([]int) error
method Store: no other package can implement it
type Handler func(*Result) ([]byte, error)
type List[T any] []T
type Options struct
type Result struct
type Same = Options
type State uint8
type Store interface
var ErrX error
`), "\n")
	if got := p.API(); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestPublic(t *testing.T) {
	for path, want := range map[string]bool{"dedup": true, "store/internal/horizon": false, "internal/relay": false, "transport/nats/metrics": true} {
		p := planted(t, nil)
		if p.Path = path; p.Public() != want {
			t.Errorf("%s: got %v, want %v", path, p.Public(), want)
		}
	}
}
