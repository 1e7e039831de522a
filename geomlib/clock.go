package geomlib

import (
	"time"

	"golang.org/x/sys/unix"
)

// SinceBoot is how long ago this host was started, the time that it was suspended
// included: what a lease is measured by. Clocks of two hosts have nothing in common.
func SinceBoot() time.Duration {
	var t unix.Timespec
	if err := readClock(bootClock, &t); err != nil {
		panic("geomlib: clock_gettime: " + err.Error()) // the clock is there, or the program does not run here
	}
	return time.Duration(t.Nano())
}
