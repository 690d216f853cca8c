package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v4"
)

// readFile sets the flags that a YAML file names, except those that were typed:
// a mapping of flag names, without dashes, to their values.
//
//	from: kafka://localhost:9092/orders?group=orders-once
//	to: kafka://localhost:9092/orders.once
//	store: bolt:/var/lib/dedup-relay
//	ttl: 48h
//
// An error names the file, line and column.
func readFile(path string, flags *pflag.FlagSet) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("-c: %w", err)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return fmt.Errorf("-c %s: %w", path, err)
	}
	if len(doc.Content) == 0 {
		return fmt.Errorf("-c %s: the file is empty", path)
	}
	root := doc.Content[0]
	at := func(n *yaml.Node, format string, args ...any) error {
		return fmt.Errorf("-c %s:%d:%d: "+format, append([]any{path, n.Line, n.Column}, args...)...)
	}
	if root.Kind != yaml.MappingNode {
		return at(root, "it must be a list of NAME: VALUE lines, with the flags' names")
	}
	var errs []error
	seen := map[string]bool{}
	for i := 0; i+1 < len(root.Content); i += 2 {
		name, value := root.Content[i], root.Content[i+1]
		flag := flags.Lookup(name.Value)
		switch {
		case flag == nil || name.Value == "config" || name.Value == "help":
			errs = append(errs, at(name, "unknown setting %q: it is one of %s", name.Value, strings.Join(settings(flags), ", ")))
		case seen[name.Value]:
			errs = append(errs, at(name, "%s is set twice", name.Value))
		case value.Kind != yaml.ScalarNode:
			errs = append(errs, at(value, "%s must be a single value", name.Value))
		case flag.Changed: // typed: that counts
		default:
			if err := flag.Value.Set(value.Value); err != nil {
				errs = append(errs, at(value, "%s: %w", name.Value, err))
			}
		}
		seen[name.Value] = true
	}
	return errors.Join(errs...)
}

// settings are the names that a file may hold.
func settings(flags *pflag.FlagSet) (names []string) {
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Name != "config" && f.Name != "help" {
			names = append(names, f.Name)
		}
	})
	slices.Sort(names)
	return names
}
