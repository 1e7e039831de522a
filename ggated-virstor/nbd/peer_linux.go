package nbd

import "golang.org/x/sys/unix"

const hangups = unix.POLLRDHUP | unix.POLLHUP | unix.POLLERR

// hungUp asks poll(2) without waiting.
func hungUp(fd uintptr) bool { return poll(fd, unix.POLLRDHUP)&hangups != 0 }

// inputWaits asks poll(2) without waiting.
func inputWaits(fd uintptr) bool { return poll(fd, unix.POLLIN) != 0 }

func poll(fd uintptr, events int16) int16 {
	fds := [1]unix.PollFd{{Fd: int32(fd), Events: events}}
	if n, err := unix.Poll(fds[:], 0); err != nil || n == 0 {
		return 0
	}
	return fds[0].Revents
}
