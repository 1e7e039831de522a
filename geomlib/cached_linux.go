package geomlib

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// cacheState remembers that a file system cannot read without waiting.
type cacheState struct{ unsupported atomic.Bool }

// ReadCached reads with RWF_NOWAIT, which fails when the page cache does not
// have it (preadv2(2)).
func (p *file) ReadCached(b []byte, off int64) bool {
	if p.cached.unsupported.Load() || len(b) == 0 || len(b) > maxTransfer {
		return false
	}
	if off < 0 || off > p.size-int64(len(b)) {
		return false
	}
	iov := unix.Iovec{Base: &b[0]}
	iov.SetLen(len(b))
	// The kernel puts the offset together from two longs; on 64-bit systems the
	// second is ignored.
	n, _, errno := unix.Syscall6(unix.SYS_PREADV2, uintptr(p.fd), uintptr(unsafe.Pointer(&iov)), 1,
		uintptr(off), uintptr(uint64(off)>>32), unix.RWF_NOWAIT)
	switch errno {
	case 0:
		return int(n) == len(b)
	case unix.EOPNOTSUPP, unix.ENOSYS, unix.EINVAL:
		p.cached.unsupported.Store(true)
	}
	return false
}
