package house

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/oncequeue/oncequeue/internal/golden"
)

// exempt are types that may have any number of fields, and why: each is a list of values
// for others to set or to read.
var exempt = map[string]string{
	"cmd/dedup-relay.flags":          "options, as typed",
	"dedup.Message":                  "a message",
	"dedup.Options":                  "options",
	"dedup/driver.Op":                "a message to a store",
	"dedup/driver.Record":            "a record",
	"internal/relay.Config":          "options",
	"internal/relay.Endpoint":        "options, as a URL has them",
	"internal/relay.Security":        "options, as a URL has them",
	"internal/relay.status":          "a record",
	"internal/relay.storeStatus":     "a record",
	"store/bolt.Options":             "options",
	"store/redis.Options":            "options",
	"transport/kafka.Config":         "options",
	"transport/kafka.PartitionStats": "a record",
	"transport/nats.Config":          "options",
	"transport/nats.Status":          "a record",
}

var load = sync.OnceValues(func() ([]*Package, error) { return Load(context.Background(), "../..") })

func packages(t *testing.T) []*Package {
	t.Helper()
	all, err := load()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

const limitsFile = "limits.txt"

// Inside of packages, walls get no weaker; and when they get stronger, they stay so. With
// -update limits are lowered, and never raised.
func TestWalls(t *testing.T) {
	found := map[string]Walls{}
	for _, p := range packages(t) {
		if !strings.HasPrefix(p.Path, "examples/") {
			found[p.Path] = p.Walls(exempt)
		}
	}
	text, err := os.ReadFile(limitsFile)
	if err != nil && !golden.Update() {
		t.Fatal(err)
	}
	limits, err := ParseLimits(string(text))
	if err != nil {
		t.Fatalf("%s: %v", limitsFile, err)
	}
	if golden.Update() {
		limits = Lower(limits, found)
		golden.Write(t, limitsFile, FormatLimits(limits))
	}
	for _, wrong := range Judge(limits, found) {
		t.Errorf("%s: %s", limitsFile, wrong)
	}
	if t.Failed() {
		t.Log("go test -update lowers limits; to raise one, edit the file, and say why in the commit")
	}
}

func TestExemptTypesAreThere(t *testing.T) {
	there := map[string]bool{}
	for _, p := range packages(t) {
		for _, name := range p.types.Scope().Names() {
			there[p.Path+"."+name] = true
		}
	}
	for name := range exempt {
		if !there[name] {
			t.Errorf("%s is exempt, and gone", name)
		}
	}
}

// The names that users import change only with a word in the changelog.
func TestExportedNames(t *testing.T) {
	const dir = "testdata/api"
	if golden.Update() {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	files := map[string]bool{}
	for _, p := range packages(t) {
		if p.Public() {
			file := filepath.Join(dir, filepath.FromSlash(p.Path)+".txt")
			files[file] = true
			golden.Lines(t, file, p.API())
		}
	}
	err := filepath.WalkDir(dir, func(file string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && !files[file] {
			return errors.New(file + " is of a package that is gone: run go test with -update, and write a line in CHANGELOG.md")
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
