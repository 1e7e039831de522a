package peercred

import "golang.org/x/sys/unix"

// of asks LOCAL_PEERCRED, see unix(4). The process id came with FreeBSD 13; this
// interface to it does not have it.
func of(fd int) (Peer, error) {
	c, err := unix.GetsockoptXucred(fd, unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
	if err != nil {
		return Peer{}, err
	}
	return Peer{UID: c.Uid}, nil
}
