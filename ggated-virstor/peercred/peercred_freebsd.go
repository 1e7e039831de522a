package peercred

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// xucred is struct xucred of 64-bit FreeBSD (sys/sys/ucred.h). unix.Xucred does not
// name the process id, which came with FreeBSD 13; before it is 0.
type xucred struct {
	version uint32
	uid     uint32
	ngroups int16
	groups  [16]uint32
	_       int32
	pid     int32 // shares the place of a pointer
	_       int32
}

// of asks LOCAL_PEERCRED, see unix(4).
func of(fd int) (Peer, error) {
	var c xucred
	size := uint32(unsafe.Sizeof(c))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_LOCAL, unix.LOCAL_PEERCRED,
		uintptr(unsafe.Pointer(&c)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return Peer{}, errno
	}
	return Peer{UID: c.uid, PID: int(c.pid)}, nil
}
