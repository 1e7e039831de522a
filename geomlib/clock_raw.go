//go:build linux || freebsd

package geomlib

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// readClock reads a clock. It is asked before each request to another host: the scheduler is
// not told of the system call, for which it would wake the thread that watches those.
func readClock(clock int32, t *unix.Timespec) error {
	_, _, errno := unix.RawSyscall(unix.SYS_CLOCK_GETTIME, uintptr(clock), uintptr(unsafe.Pointer(t)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}
