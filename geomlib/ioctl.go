//go:build linux || freebsd

package geomlib

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// ioctl passes arg to the driver. It fails with an errno.
func ioctl(fd int, request uintptr, arg unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return errno
		}
	}
}

// notSupported turns the several ways in which devices and file systems say
// that they have no such operation into ErrNotSupported.
func notSupported(err error) error {
	switch err {
	case unix.EOPNOTSUPP, unix.ENOTTY, unix.ENOSYS:
		return ErrNotSupported
	}
	return err
}
