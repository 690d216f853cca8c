package main

import (
	"fmt"
	"io"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/oncequeue/oncequeue/internal/golden"
)

// Commands, flags and their defaults change only with a word in the changelog.
func TestFlags(t *testing.T) {
	golden.Lines(t, "testdata/flags.txt", flagLines(command(io.Discard)))
}

// flagLines returns a line for a command, and for each of its flags; and those of its
// sub-commands.
func flagLines(c *cobra.Command) []string {
	lines := []string{c.CommandPath()}
	c.LocalFlags().VisitAll(func(f *pflag.Flag) {
		line := fmt.Sprintf("%s --%s %s", c.CommandPath(), f.Name, f.Value.Type())
		if f.DefValue != "" {
			line += ", default " + f.DefValue
		}
		if f.Shorthand != "" {
			line += ", short -" + f.Shorthand
		}
		lines = append(lines, line)
	})
	for _, sub := range c.Commands() {
		lines = append(lines, flagLines(sub)...)
	}
	return lines
}
