// Package house measures the packages of the module for its own tests: how much the
// files of each depend on each other, how wide its structs and how long its functions
// are, and which names it exports. limits.txt has a line for each package, and
// testdata/api the exported names of those that users import.
package house
