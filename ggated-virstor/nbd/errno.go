package nbd

import (
	"errors"
	"syscall"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/internal/proto"
)

// errno translates the result of a request into the protocol's number and a
// text for the client's user.
func errno(op virstor.Op, err error) (uint32, string) {
	switch {
	case errors.Is(err, virstor.ErrNoSpace):
		return proto.ENOSPC, "no space left: add a component to the volume"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		return proto.ENOSPC, "no space left on the file system that a component is on"
	case errors.Is(err, virstor.ErrReadOnly), errors.Is(err, syscall.EROFS):
		return proto.EPERM, "the volume is read-only"
	case errors.Is(err, virstor.ErrClosed):
		return proto.ESHUTDOWN, "the volume is being stopped"
	case errors.Is(err, virstor.ErrAbandoned):
		return proto.ESHUTDOWN, "the connection ends, and the write waited for space"
	case errors.Is(err, virstor.ErrRange):
		return rangeErrno(op), "beyond the end of the volume"
	}
	return proto.EIO, "input/output error"
}

// rangeErrno is what the protocol wants for a request beyond the end.
func rangeErrno(op virstor.Op) uint32 {
	if op == virstor.OpWrite || op == virstor.OpWriteZeroes {
		return proto.ENOSPC
	}
	return proto.EINVAL
}
