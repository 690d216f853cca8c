package lint

import (
	"os"
	"path/filepath"
	"testing"
)

// fence puts code between fences.
func fence(info, code string) string { return "```" + info + "\n" + code + "\n```\n" }

const program = "package main\n\nimport \"fmt\"\n\nfunc main() { fmt.Println(1) }"

func TestGoBlocks(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"no file":            {fence("go", "x := 1"), []string{"2 is no file"}},
		"undefined":          {fence("go", "package main\n\nfunc main() {\n\tnowhere()\n}"), []string{"5 undefined: nowhere"}},
		"unused":             {"x\n\n" + fence("go", "package a\n\nfunc f() { x := 1 }"), []string{"6 declared and not used"}},
		"unused import":      {fence("go", "package a\n\nimport \"fmt\""), []string{"4 \"fmt\" imported and not used"}},
		"unknown import":     {fence("go", "package a\n\nimport _ \"example.org/nowhere\""), []string{"4 example.org/nowhere"}},
		"internal import":    {fence("go", "package a\n\nimport _ \"example.org/a/internal/b\""), []string{"4 which users cannot"}},
		"syntax":             {fence("go", "package a\n\nfunc f() {"), []string{"4 syntax error"}},
		"two":                {fence("go", "package a\n\nvar x int = \"\"") + "\n" + fence("go", program) + fence("go", "package a\n\nvar y = z"), []string{"4 cannot use", "17 undefined: z"}},
		"fragment":           {fence("go fragment", "x := 1\nif {"), []string{"3 fragment"}},
		"fragment, unclosed": {fence("go fragment", "f("), []string{"2 fragment"}},
		"unknown kind":       {"x\n" + fence("golang", program), []string{"2 unknown kind"}},
		"item":               {"- x\n\n  ```go\n  package a\n\n  var x = y\n  ```\n", []string{"6 undefined: y"}},

		"program":             {fence("go", program), nil},
		"test":                {fence("go", "package a_test\n\nimport \"testing\"\n\nfunc TestA(t *testing.T) {}"), nil},
		"same names":          {fence("go", program) + fence("go", program), nil},
		"other language":      {fence("sh", "go build") + fence("", "x :="), nil},
		"statements":          {fence("go fragment", "x, err := f(nil)\nif err != nil { ... }\ndefer x.Close()"), nil},
		"declarations":        {fence("go fragment", "// F does it.\nfunc F(a ...int) error { ... }\n\ntype T struct{ ... }"), nil},
		"file with elisions":  {fence("go fragment", "package a\n\nimport (\n\t...\n)\n\nfunc f() { g(...) }"), nil},
		"elided lines":        {fence("go fragment", "for {\n\t...\n}\nx := ...\ny := T{A: 1, ...}"), nil},
		"fields of a literal": {fence("go fragment", "TTL: time.Hour,\nHooks: ...,"), nil},
		"fields of a struct":  {fence("go fragment", "// A is it.\nA, B int `json:\"a\"`"), nil},
		"methods":             {fence("go fragment", "Apply(ctx context.Context) error\nVouch() (Vouch, error)"), nil},
		"spread":              {fence("go fragment", "f(xs...)"), nil},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for name, text := range map[string]string{"go.mod": "module example.org/a\n\ngo 1.26\n", "page.md": c.text} {
				if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			p, err := Load(os.DirFS(root))
			if err != nil {
				t.Fatal(err)
			}
			found, err := p.GoBlocks(t.Context(), root)
			if err != nil {
				t.Fatal(err)
			}
			var lines []string
			for _, l := range c.want {
				lines = append(lines, "page.md:"+l)
			}
			want(t, found, lines...)
			if left, err := os.ReadDir(root); err != nil || len(left) != 2 {
				t.Errorf("got %v, %v left in the module, want the two files of before", left, err)
			}
		})
	}
}

// A document of a nested module is compiled in that.
func TestGoBlocksKnowTheirModule(t *testing.T) {
	p := load(t, map[string]string{"go.mod": "", "d/a.md": "", "b/go.mod": "", "b/c/a.md": "", "b.md": ""})
	for name, want := range map[string]string{"d/a.md": ".", "b/c/a.md": "b", "b.md": ".", "b/a.md": "b"} {
		if got := p.moduleOf(name); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}
