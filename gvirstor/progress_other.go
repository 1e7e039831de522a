//go:build !freebsd && !darwin

package main

import (
	"os"
	"syscall"
)

// tellSignals ask how far a job is.
var tellSignals = []os.Signal{syscall.SIGUSR1}
