package main

import (
	"os"
	"syscall"
)

// tellSignals ask how far a job is.
var tellSignals = []os.Signal{syscall.SIGINFO, syscall.SIGUSR1}
