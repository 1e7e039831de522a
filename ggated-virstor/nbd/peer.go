package nbd

import (
	"net"
	"syscall"
)

// probe asks a socket whether there is unread input. It allocates nothing.
type probe struct {
	rc      syscall.RawConn
	ask     func(fd uintptr)
	waiting bool
}

func newProbe(nc net.Conn) *probe {
	p := new(probe)
	p.ask = func(fd uintptr) { p.waiting = inputWaits(fd) }
	if sc, ok := nc.(syscall.Conn); ok {
		if rc, err := sc.SyscallConn(); err == nil {
			p.rc = rc
		}
	}
	return p
}

// inputWaits says yes when it cannot know.
func (p *probe) inputWaits() bool {
	p.waiting = true
	if p.rc == nil || p.rc.Control(p.ask) != nil {
		return true
	}
	return p.waiting
}

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
