//go:build !linux

package boltstore

func doubts(string) string { return "" }
