package geomlib

import (
	"fmt"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// directAlign is what the system asks of the address of memory that a device reads or
// writes itself, bytes. Few devices ask for more, and are given what is aligned then.
const directAlign = 512

const (
	// alignment is that of memory which devices are read into and written from, bytes: as
	// much as any asks for.
	alignment = 4096
	// bounceSize is how much is read or written at once by way of memory that is aligned,
	// bytes.
	bounceSize = 256 << 10
)

// bounces are pieces of memory that is aligned.
var bounces = sync.Pool{New: func() any {
	b := make([]byte, bounceSize+alignment)
	skip := -int(uintptr(unsafe.Pointer(&b[0]))) & (alignment - 1)
	b = b[skip : skip+bounceSize]
	return &b
}}

// bypassCache has reads and writes of p go past the cache of the system, again if it was
// passed on like that.
func (p *file) bypassCache(again bool) error {
	unit, err := bypassCache(p, again)
	if err != nil {
		return fmt.Errorf("%s: read and written past the system's cache (direct): %w", p.name, err)
	}
	if unit > p.sector {
		return fmt.Errorf("%s: read and written past the system's cache (direct) it can be in units of %d bytes only, and its sectors are of %d: %w",
			p.name, unit, p.sector, ErrNotSupported)
	}
	p.direct = isDirect(p.fd)
	return nil
}

// suits reports whether a device can read or write memory itself.
func suits(b []byte) bool {
	return uintptr(unsafe.Pointer(unsafe.SliceData(b)))&(directAlign-1) == 0
}

// readDirect is ReadAt past the cache, of what was looked at.
func (p *file) readDirect(b []byte, off int64) (int, error) {
	if suits(b) {
		n, err := unix.Pread(p.fd, b[:min(len(b), maxTransfer)], off)
		if err != syscall.EINVAL {
			return p.transfer("read", unix.Pread, maxTransfer, b, off, n, err)
		}
	}
	buf := bounces.Get().(*[]byte)
	defer bounces.Put(buf)
	for done := 0; done < len(b); {
		part := (*buf)[:min(len(b)-done, bounceSize)]
		n, err := unix.Pread(p.fd, part, off+int64(done))
		n, err = p.transfer("read", unix.Pread, bounceSize, part, off+int64(done), n, err)
		copy(b[done:], part[:n])
		done += n
		if err != nil {
			return done, err
		}
	}
	return len(b), nil
}

// writeDirect is WriteAt past the cache, of what was looked at.
func (p *file) writeDirect(b []byte, off int64) (int, error) {
	if suits(b) {
		n, err := unix.Pwrite(p.fd, b[:min(len(b), maxTransfer)], off)
		if err != syscall.EINVAL {
			return p.transfer("write", unix.Pwrite, maxTransfer, b, off, n, err)
		}
	}
	buf := bounces.Get().(*[]byte)
	defer bounces.Put(buf)
	for done := 0; done < len(b); {
		part := (*buf)[:copy(*buf, b[done:])]
		n, err := unix.Pwrite(p.fd, part, off+int64(done))
		n, err = p.transfer("write", unix.Pwrite, bounceSize, part, off+int64(done), n, err)
		done += n
		if err != nil {
			return done, err
		}
	}
	return len(b), nil
}
