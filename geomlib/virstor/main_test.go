package virstor_test

import (
	"runtime/debug"
	"testing"
)

// TestMain lets garbage gather before it is collected: each state that a crash leaves is a few
// disks in memory that nobody wants afterwards, and collecting them took a fifth of the time.
func TestMain(m *testing.M) {
	debug.SetGCPercent(400)
	m.Run()
}
