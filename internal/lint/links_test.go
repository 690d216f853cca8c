package lint

import (
	"testing"
)

func TestLinks(t *testing.T) {
	files := map[string]string{
		"other.md": "# A `Claim`, and (more)\n\n## Same\n\n## Same\n\n## [linked](x.md) *text* snake_case\n\nSetext\n------\n\n<a id=\"named\"></a>\n",
		"d/sub.md": "# Sub\n", "d/README.md": "# Sub room\n", "code.go": "package code\n", "x.md": "",
	}
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"no file":             {"a\n[x](none.md)\n", []string{"2 no none.md"}},
		"no file in a cell":   {"| a | b |\n|---|---|\n| x | [x](none.md) |\n", []string{"3 none.md"}},
		"no file, in heading": {"# [x](none.md)\n", []string{"1 none.md"}},
		"no picture":          {"![x](none.png) [![x](none.svg)](none.md)\n", []string{"1 none.png", "1 none.svg", "1 none.md"}},
		"no anchor":           {"[x](other.md#none)\n", []string{"1 no heading of other.md"}},
		"no anchor here":      {"# Here\n\n[x](#there)\n", []string{"3 no heading of page.md"}},
		"no such duplicate":   {"[x](other.md#same-2)\n", []string{"1 same-2"}},
		"case":                {"[x](other.md#Same)\n", []string{"1 Same"}},
		"no reference":        {"See [x][y] and [z][].\n", []string{"1 [y]", "1 [z]"}},
		"dead reference":      {"See [x][y].\n\n[y]: none.md\n", []string{"3 none.md"}},
		"outside":             {"[x](../x.md)\n", []string{"1 leads out"}},
		"absolute":            {"[x](/x.md)\n", []string{"1 not relative"}},
		"over a line break":   {"[a long\ntext](none.md)\n", []string{"1 none.md"}},
		"no directory's room": {"[x](d#none)\n", []string{"1 d/README.md"}},

		"files":            {"[x](other.md) [x](d/sub.md) [x](d) [x](d/) [x](code.go) [x](code.go#L1) [x](./x.md)\n", nil},
		"anchors":          {"# Here\n[x](#here) [x](other.md#a-claim-and-more) [x](other.md#same) [x](other.md#same-1) [x](other.md#setext) [x](other.md#linked-text-snake_case) [x](other.md#named) [x](d#sub-room)\n", nil},
		"references":       {"See [x][Y] and [z][].\n\n[y]: other.md#same\n[z]: <https://x.org>\n", nil},
		"elsewhere":        {"[x](https://x.org/none.md#x) [x](mailto:a@x.org) <https://x.org>\n", nil},
		"code":             {"`[x](none.md)` and\n\n```\n[x](none.md)\n```\n", nil},
		"escaped":          {"\\[x](none.md)\n", nil},
		"brackets":         {"[x] is no link, nor is [x].\n", nil},
		"title and parens": {"[x](other.md \"a title\") [x](https://x.org/a_(b))\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			files["page.md"] = c.text
			var lines []string
			for _, l := range c.want {
				lines = append(lines, "page.md:"+l)
			}
			want(t, load(t, files).links(), lines...)
		})
	}
}

func TestLinksAreRelativeToTheirDocument(t *testing.T) {
	p := load(t, map[string]string{"a.md": "", "d/b.md": "[x](../a.md) [x](c.md) [x](a.md)", "d/c.md": ""})
	want(t, p.links(), "d/b.md:1 no d/a.md")
}

func TestCodeNamesDocumentsThatAreThere(t *testing.T) {
	const at = "docs" + "/" // else this test would name them
	p := load(t, map[string]string{
		at + "a.md": "# Here\n",
		"a.go": "package a\n\n// See " + at + "a.md#here, " + at + "a.md and other" + at + "b.md.\n" +
			"// See " + at + "b.md.\nvar s = \"https://x.org/" + at + "c.md " + at + "a.md#there\"\n",
	})
	want(t, p.links(), "a.go:4 no "+at+"b.md", "a.go:5 no heading of")
}
