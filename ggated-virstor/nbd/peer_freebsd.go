package nbd

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const hangups = unix.POLLRDHUP | unix.POLLHUP | unix.POLLERR

// hungUp asks poll(2) without waiting. Kernels before 13 do not know
// POLLRDHUP and ignore it.
func hungUp(fd uintptr) bool { return poll(fd, unix.POLLRDHUP, 0)&hangups != 0 }

// inputWaits asks poll(2) without waiting.
func inputWaits(fd uintptr) bool { return poll(fd, unix.POLLIN, 0) != 0 }

// awaitInput waits in poll(2), d at most.
func awaitInput(fd uintptr, d time.Duration) { poll(fd, unix.POLLIN, d) }

// awaitRoom waits in poll(2) until there is room for output, d at most.
func awaitRoom(fd uintptr, d time.Duration) { poll(fd, unix.POLLOUT, d) }

func poll(fd uintptr, events int16, d time.Duration) int16 {
	fds := [1]unix.PollFd{{Fd: int32(fd), Events: events}}
	n, _, errno := unix.Syscall(unix.SYS_POLL, uintptr(unsafe.Pointer(&fds[0])), uintptr(len(fds)), uintptr(d.Milliseconds()))
	if errno != 0 || n == 0 {
		return 0
	}
	return fds[0].Revents
}
