//go:build !linux

package redisstore_test

import "syscall"

var dieWithParent *syscall.SysProcAttr
