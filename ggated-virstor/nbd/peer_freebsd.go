package nbd

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// hungUp asks poll(2) without waiting. Kernels before 13 do not know
// POLLRDHUP and ignore it.
func hungUp(fd uintptr) bool {
	fds := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	n, _, errno := unix.Syscall(unix.SYS_POLL, uintptr(unsafe.Pointer(&fds[0])), uintptr(len(fds)), 0)
	return errno == 0 && n > 0 && fds[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
}
