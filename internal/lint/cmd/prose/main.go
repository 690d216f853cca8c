// Command prose checks the words of the project, as package lint says. Run it from the
// root of the project:
//
//	go run ./internal/lint/cmd/prose
//
// Each finding is a line. It exits with 1 if there are any, and with 2 if it cannot check.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/oncequeue/oncequeue/internal/lint"
)

func main() {
	found, err := run(context.Background(), ".")
	if err != nil {
		fmt.Fprintln(os.Stderr, "prose:", err)
		os.Exit(2)
	}
	if found > 0 {
		os.Exit(1)
	}
}

// run checks the project below root, prints the findings and figures, and returns how
// many findings there are.
func run(ctx context.Context, root string) (int, error) {
	p, err := lint.Load(os.DirFS(root))
	if err != nil {
		return 0, err
	}
	found, figures := p.Prose()
	show(found)
	blocks, err := p.GoBlocks(ctx, root)
	if err != nil {
		return 0, err
	}
	show(blocks)
	for _, n := range p.Needless() {
		fmt.Println("prose: note:", n)
	}
	fmt.Println("prose:", figures)
	return len(found) + len(blocks), nil
}

func show(found []lint.Finding) {
	for _, f := range found {
		fmt.Println(f)
	}
}
