// Package lint checks the words of the project: its Markdown documents, and the
// comments of its code. It is run by make prose, and parts of it by make test.
//
//	check        what it finds
//	headless     clauses in which "who" or "what" stands for a noun, in documents and comments
//	long lines   Markdown lines of more than 120 characters outside tables and code
//	links        links and anchors that lead nowhere, between documents and to files
//	tests        names of tests in documents that no test file has
//	Go blocks    code in documents that does not compile, or, if marked as a fragment, does not parse
//	figures      paragraphs and a README that are too long
//
// The package needs the standard library only. So it lives in the module of the
// library without a line in its go.mod.
package lint
