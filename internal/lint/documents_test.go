package lint

import (
	"os"
	"testing"
)

const root = "../.."

func project(t *testing.T) *Project {
	t.Helper()
	p, err := Load(os.DirFS(root))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// The code that README and the other documents show is code that builds.
func TestGoInDocumentsCompiles(t *testing.T) {
	p := project(t)
	found, err := p.GoBlocks(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		t.Error(f)
	}
	files := 0
	for _, b := range p.goBlocks() {
		if b.document == readme && b.info == wholeFile {
			files++
		}
	}
	if files == 0 {
		t.Errorf("%s shows no Go that compiles as it stands, want the consumer", readme)
	}
}

// The documents name tests that there are.
func TestDocumentsNameRealTests(t *testing.T) {
	for _, f := range project(t).TestNames() {
		t.Error(f)
	}
}
