package nbd

import (
	"time"

	"golang.org/x/sys/unix"
)

const hangups = unix.POLLRDHUP | unix.POLLHUP | unix.POLLERR

// hungUp asks poll(2) without waiting.
func hungUp(fd uintptr) bool { return poll(fd, unix.POLLRDHUP, 0)&hangups != 0 }

// inputWaits asks poll(2) without waiting.
func inputWaits(fd uintptr) bool { return poll(fd, unix.POLLIN, 0) != 0 }

// awaitInput waits in poll(2), d at most.
func awaitInput(fd uintptr, d time.Duration) { poll(fd, unix.POLLIN, d) }

// awaitRoom waits in poll(2) until there is room for output, d at most.
func awaitRoom(fd uintptr, d time.Duration) { poll(fd, unix.POLLOUT, d) }

func poll(fd uintptr, events int16, d time.Duration) int16 {
	fds := [1]unix.PollFd{{Fd: int32(fd), Events: events}}
	if n, err := unix.Poll(fds[:], int(d.Milliseconds())); err != nil || n == 0 {
		return 0
	}
	return fds[0].Revents
}
