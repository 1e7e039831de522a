package nbd

import (
	"net"
	"syscall"
)

// peerGone says whether a socket's peer has hung up, without reading from the
// socket, so that it is noticed behind unread input too. It may say no when it
// cannot know.
func peerGone(nc net.Conn) bool {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return false
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	gone := false
	if err := rc.Control(func(fd uintptr) { gone = hungUp(fd) }); err != nil {
		return true // closed here
	}
	return gone
}
