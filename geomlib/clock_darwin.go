package geomlib

import "golang.org/x/sys/unix"

// bootClock goes on while the system is suspended (clock_gettime(3)).
const bootClock = unix.CLOCK_MONOTONIC

func readClock(clock int32, t *unix.Timespec) error { return unix.ClockGettime(clock, t) }

func hostUUID() string {
	id, err := unix.Sysctl("kern.uuid")
	if err != nil {
		return ""
	}
	return id
}
