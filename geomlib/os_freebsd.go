package geomlib

import (
	"bytes"
	"errors"
	"io/fs"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Not in package unix. sys/sys/unistd.h, sys/kern/syscalls.master,
// sys/sys/fcntl.h, sys/sys/param.h.
const (
	sysFspacectl      = 580
	sysCopyFileRange  = 569
	spacectlDealloc   = 1
	pcDeallocPresent  = 65
	maxPathLen        = 1024
	diocgProviderName = unix.DIOCGPROVIDERNAME
)

// isDisk: disks are character devices, made by geom_dev.
func isDisk(mode fs.FileMode) bool { return mode&fs.ModeCharDevice != 0 }

func exclusiveFlag(fs.FileMode, OpenOptions) int { return 0 }

// isHeld: GEOM answers EPERM to an open for writing of what a consumer holds
// exclusively (g_access in sys/geom/geom_subr.c).
func isHeld(err error, mode fs.FileMode) bool {
	return isDisk(mode) && (err == unix.EPERM || err == unix.EBUSY)
}

// holesAreTrusted: UFS finds holes by its block pointers, tmpfs by its pages.
// ZFS is out: what it says of data not yet in a transaction group depends on
// its version and tunables.
func holesAreTrusted(fd int) bool {
	switch fileSystem(fd) {
	case "ufs", "tmpfs":
		return true
	}
	return false
}

// fileSystem is the type of the file system that a file is on, or empty.
func fileSystem(fd int) string {
	var st unix.Statfs_t
	if err := ignoringEINTR(func() error { return unix.Fstatfs(fd, &st) }); err != nil {
		return ""
	}
	return cString(st.Fstypename[:])
}

// regularMedium asks whether the kernel has fspacectl(2) before anything calls
// it, because an unknown system call is answered with SIGSYS: a kernel
// without it (before 14) answers EINVAL to pcDeallocPresent.
//
// On tmpfs it is not called: given a range that begins with a page and ends
// within it, tmpfs_reg_punch_hole (sys/fs/tmpfs/tmpfs_subr.c, 14.0) does nothing
// and says so, upon which vn_deallocate_impl asks again, for ever, and the process
// cannot be killed.
func regularMedium(fd int) medium {
	present, _, errno := unix.Syscall(unix.SYS_FPATHCONF, uintptr(fd), pcDeallocPresent, 0)
	known := errno == 0 && fileSystem(fd) != "tmpfs"
	keep := preallocated(fd)
	return regular{punches: known && present == 1 && !keep, zeroes: known && holesAreTrusted(fd) && !keep, keep: keep}
}

// writePiece is how much one system call writes, bytes.
const writePiece = maxTransfer

// regular is a regular file.
type regular struct {
	punches bool // the file system gives space back, and does not write zeros
	zeroes  bool // what is punched may be relied on to be zeros
	keep    bool // preallocated: its blocks stay
}

func (regular) buffered() bool      { return true }
func (r regular) keepsBlocks() bool { return r.keep }

func (regular) flush(fd int) error {
	if _, _, errno := unix.Syscall(unix.SYS_FDATASYNC, uintptr(fd), 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// drop: UFS and what else has FreeBSD's buffer cache lets go of clean pages
// (vop_stdadvise in sys/kern/vfs_default.c), and keeps dirty what it failed to
// write. ZFS has a cache of its own that takes no advice.
func (regular) drop(fd int) error {
	if fileSystem(fd) == "zfs" {
		return ErrNotSupported
	}
	// The call returns its error instead of setting errno.
	r, _, errno := unix.Syscall6(unix.SYS_POSIX_FADVISE, uintptr(fd), 0, 0, unix.FADV_DONTNEED, 0, 0)
	if errno == 0 {
		errno = unix.Errno(r)
	}
	if errno == 0 {
		return nil
	}
	return notSupported(errno)
}

// share: ZFS clones blocks for copy_file_range(2), where the pool has the feature, and
// copies them itself where it has not. Other file systems copy, zeros too.
func (regular) share(fd int, off int64, src int, from, length int64) error {
	if fileSystem(fd) != "zfs" || fileSystem(src) != "zfs" {
		return ErrNotSupported
	}
	return copyFileRange(fd, off, src, from, length)
}

// copyFileRange calls copy_file_range(2) until all of the range is copied.
func copyFileRange(fd int, off int64, src int, from, length int64) error {
	for length > 0 {
		n, _, errno := unix.Syscall6(sysCopyFileRange, uintptr(src), uintptr(unsafe.Pointer(&from)),
			uintptr(fd), uintptr(unsafe.Pointer(&off)), uintptr(length), 0)
		switch {
		case errno == unix.EINTR:
		case errno != 0:
			return notSupported(errno)
		case n == 0:
			return unix.EIO // a file that was cut short
		}
		length -= int64(n)
	}
	return nil
}

func (r regular) remove(fd int, off, length int64) error {
	if !r.punches {
		return ErrNotSupported
	}
	return deallocate(fd, off, length)
}

// zero leaves it to the file system whether it punches or, around the holes
// that are there, writes zeros (vop_stddeallocate).
func (r regular) zero(fd int, off, length int64) error {
	if !r.zeroes {
		return ErrNotSupported
	}
	return deallocate(fd, off, length)
}

// deallocate calls fspacectl(2) until nothing of the range remains.
func deallocate(fd int, off, length int64) error {
	type spacectlRange struct{ offset, length int64 }
	todo := spacectlRange{off, length}
	for todo.length > 0 {
		var rest spacectlRange
		_, _, errno := unix.Syscall6(sysFspacectl, uintptr(fd), spacectlDealloc,
			uintptr(unsafe.Pointer(&todo)), 0, uintptr(unsafe.Pointer(&rest)), 0)
		switch errno {
		case 0:
			todo = rest
		case unix.EINTR:
		default:
			return notSupported(errno)
		}
	}
	return nil
}

// disk is a provider of GEOM. Raw I/O is not cached.
type disk struct{}

func (disk) buffered() bool    { return false }
func (disk) keepsBlocks() bool { return false }

// drop: there is no cache between a device of GEOM and whoever reads it.
func (disk) drop(int) error { return nil }

func (disk) flush(fd int) error {
	return notSupported(ioctl(fd, unix.DIOCGFLUSH, nil))
}

func (disk) share(int, int64, int, int64, int64) error { return ErrNotSupported }

func (disk) remove(fd int, off, length int64) error {
	r := [2]int64{off, length}
	return notSupported(ioctl(fd, unix.DIOCGDELETE, unsafe.Pointer(&r)))
}

// zero: BIO_DELETE promises nothing about what is read afterwards.
func (disk) zero(int, int64, int64) error { return ErrNotSupported }

// pastCaches: raw I/O is not cached.
func pastCaches(_ int, kind Kind) error {
	if kind != KindDevice {
		return errors.New("a file; take a device, or a URI of NBD")
	}
	return nil
}

func byCaches(int, int) error { return nil }

func deviceSize(fd int) (size int64, sector int, err error) {
	if err := ioctl(fd, unix.DIOCGMEDIASIZE, unsafe.Pointer(&size)); err != nil {
		if err == unix.ENOTTY {
			err = errKind
		}
		return 0, 0, err
	}
	var s uint32 // DIOCGSECTORSIZE stores a u_int
	if err := ioctl(fd, unix.DIOCGSECTORSIZE, unsafe.Pointer(&s)); err != nil {
		return 0, 0, err
	}
	return size, int(s), nil
}

// writeProtected: the open for writing has failed already.
func writeProtected(int) bool { return false }

// deviceName asks GEOM, which knows what a link in /dev leads to.
func deviceName(fd int, path string) string {
	var b [maxPathLen]byte
	if err := ioctl(fd, diocgProviderName, unsafe.Pointer(&b)); err == nil {
		if name := cString(b[:]); name != "" {
			return name
		}
	}
	return Name(path).Bare()
}

// cString returns what stands before the first NUL.
func cString(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}
