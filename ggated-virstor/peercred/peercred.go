// Package peercred tells who is at the other end of a Unix socket. The kernel
// noted it when that end connected, so that it cannot be feigned.
package peercred

import (
	"errors"
	"fmt"
	"net"
)

// Peer is the process at the other end of a connection, as it was when it
// connected.
type Peer struct {
	UID uint32
	PID int // 0 where the system does not tell
}

func (p Peer) String() string {
	if p.PID == 0 {
		return fmt.Sprintf("uid %d", p.UID)
	}
	return fmt.Sprintf("pid %d, uid %d", p.PID, p.UID)
}

// ErrUnknown: this system, or a connection of this kind, does not tell.
var ErrUnknown = errors.New("the system does not tell who connected")

// Of tells who is at the other end of c. ErrUnknown: c is no Unix socket, or
// there is no telling on this system.
func Of(c net.Conn) (p Peer, err error) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return p, ErrUnknown
	}
	rc, err := u.SyscallConn()
	if err != nil {
		return p, fmt.Errorf("see who connected: %w", err)
	}
	e := rc.Control(func(fd uintptr) { p, err = of(int(fd)) })
	if err = errors.Join(e, err); err != nil && !errors.Is(err, ErrUnknown) {
		return p, fmt.Errorf("see who connected: %w", err)
	}
	return p, err
}
