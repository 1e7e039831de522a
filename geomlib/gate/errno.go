package gate

import "strconv"

// Errno is an error number of FreeBSD, on every system: requests carry it in
// their error field, and the numbers of other systems differ.
type Errno int32

// The error numbers that geom_gate answers or is answered with
// (sys/sys/errno.h).
const (
	EPERM      Errno = 1
	ENOENT     Errno = 2
	EINTR      Errno = 4
	EIO        Errno = 5
	ENXIO      Errno = 6
	EBADF      Errno = 9
	ENOMEM     Errno = 12
	EACCES     Errno = 13
	EFAULT     Errno = 14
	EBUSY      Errno = 16
	EEXIST     Errno = 17
	EINVAL     Errno = 22
	ENFILE     Errno = 23
	ENOTTY     Errno = 25
	ENOSPC     Errno = 28
	EROFS      Errno = 30
	EAGAIN     Errno = 35
	EOPNOTSUPP Errno = 45
	ECANCELED  Errno = 85
)

// What callers decide by. Use errors.Is.
const (
	// ErrBusy: the unit is open (Destroy without force).
	ErrBusy = EBUSY
	// ErrExists: the unit number or the name is taken (Create).
	ErrExists = EEXIST
	// ErrGone: there is no such unit, or no longer.
	ErrGone = ENXIO
	// ErrCanceled: the unit is being destroyed or, with older kernels, a
	// signal came while Start slept. Another Start tells which.
	ErrCanceled = ECANCELED
	// ErrInterrupted: a signal came while Start slept.
	ErrInterrupted = EINTR
	// ErrTooLong: the next request needs a longer buffer (Start). The
	// request stays at the head of the queue; IO.Cmd and IO.Length are its.
	ErrTooLong = ENOMEM
	// ErrBadBuffer: a write came for a Start without a buffer (StartClaiming).
	// The request stays at the head of the queue.
	ErrBadBuffer = EFAULT
)

var errnoText = map[Errno]string{
	EPERM:      "operation not permitted",
	ENOENT:     "no such file or directory",
	EINTR:      "interrupted by a signal",
	EIO:        "input/output error",
	ENXIO:      "no such unit",
	EBADF:      "bad file descriptor",
	ENOMEM:     "request longer than the buffer",
	EACCES:     "permission denied",
	EFAULT:     "bad address",
	EBUSY:      "the device is open",
	EEXIST:     "the unit or name is taken",
	EINVAL:     "invalid argument",
	ENFILE:     "no free unit (sysctl kern.geom.gate.maxunits)",
	ENOTTY:     "not a geom_gate control device",
	ENOSPC:     "no space left on device",
	EROFS:      "read-only file system",
	EAGAIN:     "resource temporarily unavailable",
	EOPNOTSUPP: "operation not supported",
	ECANCELED:  "canceled: the unit is being destroyed, or a signal came",
}

// Error is in the words of geom_gate, where a number has a meaning of its own
// there.
func (e Errno) Error() string {
	if s, ok := errnoText[e]; ok {
		return s
	}
	return "error " + strconv.Itoa(int(e))
}
