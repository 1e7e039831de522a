package peercred

import "golang.org/x/sys/unix"

// of asks SO_PEERCRED, see unix(7).
func of(fd int) (Peer, error) {
	c, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return Peer{}, err
	}
	return Peer{UID: c.Uid, PID: int(c.Pid)}, nil
}
