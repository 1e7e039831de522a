package nbdclient

import (
	"fmt"
	"syscall"

	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/internal/proto"
)

// Error is a server's answer to a request it did not carry out. errors.Is
// compares it with the errno of this system that it stands for.
type Error struct {
	Errno   uint32 // the protocol's number
	Message string // the server's, or empty
}

// Error is the errno's name for the eye, with the server's words.
func (e *Error) Error() string {
	s := fmt.Sprintf("NBD error %d", e.Errno)
	if errno, ok := e.local(); ok {
		s = errno.Error()
	}
	if e.Message != "" {
		s += ": " + e.Message
	}
	return s
}

// Is reports whether target is the errno that e stands for.
func (e *Error) Is(target error) bool {
	errno, ok := e.local()
	return ok && target == error(errno)
}

// local translates the protocol's number into this system's.
func (e *Error) local() (syscall.Errno, bool) {
	switch e.Errno {
	case proto.EPERM:
		return syscall.EPERM, true
	case proto.EIO:
		return syscall.EIO, true
	case proto.ENOMEM:
		return syscall.ENOMEM, true
	case proto.EINVAL:
		return syscall.EINVAL, true
	case proto.ENOSPC:
		return syscall.ENOSPC, true
	case proto.EOVERFLOW:
		return syscall.EOVERFLOW, true
	case proto.ENOTSUP:
		return syscall.ENOTSUP, true
	case proto.ESHUTDOWN:
		return syscall.ESHUTDOWN, true
	}
	return 0, false
}
