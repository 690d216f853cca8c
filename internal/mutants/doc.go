// Package mutants plants bugs into the project, one at a time, and tells which of them no
// test notices. A bug that survives is a promise that no test keeps.
//
// The bugs are in lists, one for each package: dedup.txt and the other text files beside
// this one. A list begins with the directory that it is about. A bug gives the code as it
// is and as it is with the bug, and names the promise that it breaks and the tests that
// should fail:
//
//	directory dedup
//
//	bug max-result-by-one
//	promise a result of exactly MaxResult bytes is kept
//	tests TestMaxResultIsTheLengthOfTheLongest
//	- if len(a.Result) > d.o.MaxResult {
//	+ if len(a.Result) >= d.o.MaxResult {
//
// Code moves between files, so a bug names no file. Its old code must occur exactly once in
// the files below the directory that are built into the package: Go files without tests, and
// Lua scripts. Lines of code are compared without the white space at their beginnings, and
// without comments between them. A test is found by its name below the same directory, or below another one, as in
// "store/mem.TestApply".
//
// A bug whose code is not found once, which does not compile, or whose tests do not exist is
// an error of its list. It is never skipped. Before any bug is planted, the tests must pass
// without one.
//
// The files of the project are not touched: go test takes the changed one by -overlay. A
// hang counts as a failed test only if the test binary itself ends it, with the stacks of
// its goroutines.
package mutants
