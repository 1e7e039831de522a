package nbd

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

const hangups = unix.POLLRDHUP | unix.POLLHUP | unix.POLLERR

// hungUp asks poll(2) without waiting. Kernels before 13 do not know
// POLLRDHUP and ignore it.
func hungUp(fd uintptr) bool { return poll(fd, unix.POLLRDHUP)&hangups != 0 }

// inputWaits asks poll(2) without waiting.
func inputWaits(fd uintptr) bool { return poll(fd, unix.POLLIN) != 0 }

func poll(fd uintptr, events int16) int16 {
	fds := [1]unix.PollFd{{Fd: int32(fd), Events: events}}
	n, _, errno := unix.Syscall(unix.SYS_POLL, uintptr(unsafe.Pointer(&fds[0])), uintptr(len(fds)), 0)
	if errno != 0 || n == 0 {
		return 0
	}
	return fds[0].Revents
}
