package geomlib

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// rawRead is how much, in bytes, is read without telling the scheduler of the
// system call, which for one that only copies a page costs as much as a twentieth
// of it. Nobody else can use the processor meanwhile: a few microseconds.
const rawRead = 64 << 10

// ReadCached reads with RWF_NOWAIT, which fails when the page cache does not
// have it, or the file system cannot tell (preadv2(2)).
func (p *file) ReadCached(b []byte, off int64) bool {
	if p.direct || len(b) == 0 || len(b) > maxTransfer || off < 0 || off > p.size-int64(len(b)) {
		return false
	}
	iov := unix.Iovec{Base: &b[0]}
	iov.SetLen(len(b))
	// The kernel puts the offset together from two longs; on 64-bit systems the
	// second is ignored.
	var n uintptr
	var errno syscall.Errno
	if len(b) <= rawRead {
		n, _, errno = unix.RawSyscall6(unix.SYS_PREADV2, uintptr(p.fd), uintptr(unsafe.Pointer(&iov)), 1,
			uintptr(off), uintptr(uint64(off)>>32), unix.RWF_NOWAIT)
	} else {
		n, _, errno = unix.Syscall6(unix.SYS_PREADV2, uintptr(p.fd), uintptr(unsafe.Pointer(&iov)), 1,
			uintptr(off), uintptr(uint64(off)>>32), unix.RWF_NOWAIT)
	}
	return errno == 0 && int(n) == len(b)
}
