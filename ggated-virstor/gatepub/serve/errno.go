package serve

import (
	"errors"
	"syscall"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/gate"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
)

// ErrVolumeGone in a request's error means that the volume is gone for good. It
// is answered with ENXIO, upon which UFS drops the file system; whatever else it
// is told, it tries again.
var ErrVolumeGone = errors.New("volume is gone")

// errnoOf is the answer for a request that completed with err. answer is false
// when there must be none: the volume closes, the unit stays, and the next
// process that serves it is to find the request unanswered.
//
// ENOMEM and EAGAIN, whose meaning geom_gate and GEOM take from the request's
// consumer, are not among the answers, nor is the errno of a component's device, for
// its ENXIO is not the volume's, but that there is no room below it.
func errnoOf(err error) (errno gate.Errno, answer bool) {
	switch {
	case err == nil:
		return 0, true
	case errors.Is(err, virstor.ErrClosed):
		return 0, false
	case errors.Is(err, ErrVolumeGone):
		return gate.ENXIO, true
	case errors.Is(err, virstor.ErrNoSpace), errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return gate.ENOSPC, true
	case errors.Is(err, virstor.ErrReadOnly):
		return gate.EROFS, true
	case errors.Is(err, virstor.ErrRequest):
		return gate.EINVAL, true
	case errors.Is(err, geomlib.ErrNotSupported):
		return gate.EOPNOTSUPP, true
	}
	return gate.EIO, true
}
