package peercred

import "golang.org/x/sys/unix"

// of asks LOCAL_PEERCRED and LOCAL_PEERPID, see sys/un.h.
func of(fd int) (Peer, error) {
	c, err := unix.GetsockoptXucred(fd, unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
	if err != nil {
		return Peer{}, err
	}
	pid, err := unix.GetsockoptInt(fd, unix.SOL_LOCAL, unix.LOCAL_PEERPID)
	return Peer{UID: c.Uid, PID: pid}, err
}
