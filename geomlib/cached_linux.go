package geomlib

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// ReadCached reads with RWF_NOWAIT, which fails when the page cache does not
// have it, or the file system cannot tell (preadv2(2)).
func (p *file) ReadCached(b []byte, off int64) bool {
	if len(b) == 0 || len(b) > maxTransfer || off < 0 || off > p.size-int64(len(b)) {
		return false
	}
	iov := unix.Iovec{Base: &b[0]}
	iov.SetLen(len(b))
	// The kernel puts the offset together from two longs; on 64-bit systems the
	// second is ignored.
	n, _, errno := unix.Syscall6(unix.SYS_PREADV2, uintptr(p.fd), uintptr(unsafe.Pointer(&iov)), 1,
		uintptr(off), uintptr(uint64(off)>>32), unix.RWF_NOWAIT)
	return errno == 0 && int(n) == len(b)
}
