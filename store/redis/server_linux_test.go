package redisstore_test

import "syscall"

var dieWithParent = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
