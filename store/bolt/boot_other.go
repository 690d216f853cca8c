//go:build !linux

package boltstore

func systemUptime() uptime { return uptime{} }
