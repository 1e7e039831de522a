package geomlib

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Kind says what a provider is made of.
type Kind int

const (
	// KindOther is neither of these.
	KindOther Kind = iota
	// KindRegular is a regular file.
	KindRegular
	// KindDevice is a disk or a part of one: a block device of Linux, a
	// character device of FreeBSD.
	KindDevice
)

func (k Kind) String() string {
	switch k {
	case KindRegular:
		return "regular file"
	case KindDevice:
		return "device"
	}
	return "other"
}

// KindOf returns what p is made of.
func KindOf(p Provider) Kind {
	if k, ok := p.(Kinded); ok {
		return k.Kind()
	}
	return KindOther
}

// IsRegular reports whether p is a regular file. A volume that is published
// by geom_gate(4) must refuse those.
func IsRegular(p Provider) bool { return KindOf(p) == KindRegular }

// KeepsBlocks is that of p, false when it is no BlockKeeper.
func KeepsBlocks(p Provider) bool {
	k, ok := p.(BlockKeeper)
	return ok && k.KeepsBlocks()
}

// preallocated reports whether a regular file has blocks for all of its bytes. One
// that was made by truncate(1) and written to since seldom does: volumes never write
// to what is left between the last chunk and the last sector.
func preallocated(fd int) bool {
	var st unix.Stat_t
	if err := ignoringEINTR(func() error { return unix.Fstat(fd, &st) }); err != nil {
		return false
	}
	const block = 512 // of st_blocks, whatever the file system's (stat(2))
	return st.Size > 0 && int64(st.Blocks)*block >= st.Size
}

// medium is what the operating system does for one open descriptor beyond
// pread and pwrite. It fails with errno values, or ErrNotSupported.
type medium interface {
	flush(fd int) error
	remove(fd int, off, length int64) error
	zero(fd int, off, length int64) error
	// share makes a range of fd what that of another file is, without copying.
	share(fd int, off int64, src int, from, length int64) error
	// drop makes the system's cache forget what is on the medium.
	drop(fd int) error
	// buffered reports whether a write goes to a cache of the system.
	buffered() bool
	// keepsBlocks reports whether nothing is given back to the file system.
	keepsBlocks() bool
}

// file is the provider behind a descriptor.
type file struct {
	f        *os.File
	fd       int
	name     string
	kind     Kind
	size     int64
	sector   int64
	readOnly bool
	direct   bool // past the system's cache
	medium   medium
	windows  windows
	starting starting
	closed   func(name string) error // or nil

	flushHasFailed bool
	flushFails     func(name string) // or nil
}

// sparseFile is a regular file on a file system whose holes are trusted.
type sparseFile struct{ *file }

func (p *file) Name() string            { return p.name }
func (p *file) MediaSize() int64        { return p.size }
func (p *file) SectorSize() int         { return int(p.sector) }
func (p *file) WritesAreBuffered() bool { return !p.direct && p.medium.buffered() }

// Kind implements Kinded.
func (p *file) Kind() Kind { return p.kind }

// KeepsBlocks implements BlockKeeper.
func (p *file) KeepsBlocks() bool { return p.medium.keepsBlocks() }

// Descriptor implements Passable. There is nothing else to know of it.
func (p *file) Descriptor() (f *os.File, state []byte, ok bool) { return p.f, nil, true }

func (p *file) ReadAt(b []byte, off int64) (int, error) {
	if err := p.check("read", off, int64(len(b))); err != nil {
		return 0, err
	}
	if p.direct {
		return p.readDirect(b, off)
	}
	n, err := unix.Pread(p.fd, b[:min(len(b), maxTransfer)], off)
	if n == len(b) && err == nil {
		return n, nil // nearly always
	}
	return p.transfer("read", unix.Pread, maxTransfer, b, off, n, err)
}

func (p *file) WriteAt(b []byte, off int64) (int, error) {
	if err := p.checkWrite("write", off, int64(len(b))); err != nil {
		return 0, err
	}
	if p.direct {
		return p.writeDirect(b, off)
	}
	n, err := unix.Pwrite(p.fd, b[:min(len(b), writePiece)], off)
	if n == len(b) && err == nil {
		return n, nil // nearly always
	}
	return p.transfer("write", unix.Pwrite, writePiece, b, off, n, err)
}

// maxTransfer is what one system call is given; FreeBSD refuses 2 GiB.
const maxTransfer = 1 << 30

// transfer goes on until all of b is transferred, at most piece bytes a call; a
// first call gave n and err.
func (p *file) transfer(what string, do func(int, []byte, int64) (int, error), piece int, b []byte, off int64, n int, err error) (int, error) {
	for done := 0; ; {
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return done, p.failed(what, off, int64(len(b)), err)
		case n == 0 && len(b) > 0: // a file that was cut short
			return done, p.failed(what, off, int64(len(b)), io.ErrUnexpectedEOF)
		default:
			done += n
		}
		if done == len(b) {
			return done, nil
		}
		n, err = do(p.fd, b[done:min(len(b), done+piece)], off+int64(done))
	}
}

func (p *file) Flush() error {
	err := ignoringEINTR(func() error { return p.medium.flush(p.fd) })
	if err == nil {
		return nil
	}
	if !errors.Is(err, ErrNotSupported) && p.flushFails != nil {
		p.flushFails(p.name)
	}
	return fmt.Errorf("%s: flush: %w", p.name, err)
}

// FlushFailed is FlushHistory's.
func (p *file) FlushFailed() bool { return p.flushHasFailed }

// DropCache is CacheDropper's.
func (p *file) DropCache() error {
	err := p.windows.drop(func() error {
		return ignoringEINTR(func() error { return p.medium.drop(p.fd) })
	})
	if err != nil {
		return fmt.Errorf("%s: drop the cache: %w", p.name, err)
	}
	return nil
}

func (p *file) Delete(off, length int64) error {
	return p.discard("delete", p.medium.remove, off, length)
}

func (p *file) WriteZeroes(off, length int64) error {
	return p.discard("zero", p.medium.zero, off, length)
}

// ShareBlocks is BlockSharer's. A file that had all of its blocks keeps them.
func (p *file) ShareBlocks(off int64, src Provider, from, n int64) error {
	if err := p.checkWrite("share", off, n); err != nil {
		return err
	}
	f, _, passable := DescriptorOf(src)
	if !passable || p.kind != KindRegular || KindOf(src) != KindRegular || KeepsBlocks(p) || KeepsBlocks(src) {
		return fmt.Errorf("%s: share with %s: %w", p.name, src.Name(), ErrNotSupported)
	}
	err := ignoringEINTR(func() error { return p.medium.share(p.fd, off, int(f.Fd()), from, n) })
	if err != nil {
		return p.failed("share with "+src.Name(), off, n, err)
	}
	return nil
}

func (p *file) discard(what string, do func(fd int, off, length int64) error, off, length int64) error {
	if err := p.checkWrite(what, off, length); err != nil {
		return err
	}
	if length == 0 {
		return nil
	}
	err := ignoringEINTR(func() error { return do(p.fd, off, length) })
	if err != nil {
		return p.failed(what, off, length, err)
	}
	return nil
}

// Close gives the provider back, and its lock unless another process was
// passed the descriptor. No other method may be running. It waits for what was started.
func (p *file) Close() error {
	p.starting.end()
	err := p.windows.close()
	if e := p.f.Close(); e != nil {
		err = errors.Join(err, fmt.Errorf("%s: close: %w", p.name, errnoOf(e)))
	}
	if p.closed != nil {
		err = errors.Join(err, p.closed(p.name))
	}
	return err
}

// NextData rounds what the file system says outwards to whole sectors.
func (p sparseFile) NextData(off, limit int64) (start, end int64, err error) {
	if off < 0 || off > limit || limit > p.size {
		return 0, 0, p.rangeError("look for data in", off, limit-off)
	}
	if off == limit {
		return limit, limit, nil
	}
	start, err = unix.Seek(p.fd, off, unix.SEEK_DATA)
	if err == syscall.ENXIO || err == nil && start >= limit {
		return limit, limit, nil
	}
	if err != nil {
		return 0, 0, p.failed("look for data in", off, limit-off, err)
	}
	end, err = unix.Seek(p.fd, start, unix.SEEK_HOLE)
	if err != nil && err != syscall.ENXIO {
		return 0, 0, p.failed("look for a hole in", off, limit-off, err)
	}
	// A hole punched between the two questions must not make the range empty.
	end = max(end, start+1)
	start = max(off, start-start%p.sector)
	end = min(limit, (end+p.sector-1)/p.sector*p.sector)
	return start, end, nil
}

func (p *file) check(what string, off, length int64) error {
	if off < 0 || length < 0 || off > p.size-length {
		return p.rangeError(what, off, length)
	}
	if !p.whole(off | length) {
		return fmt.Errorf("%s: %s %d bytes at %d: not whole sectors of %d bytes: %w",
			p.name, what, length, off, p.sector, syscall.EINVAL)
	}
	return nil
}

// whole reports whether n is a multiple of the sector size, and of two numbers
// combined by or, whether both are. A division costs as much as the rest of
// what is done for a request.
func (p *file) whole(n int64) bool { return n&(p.sector-1) == 0 }

func (p *file) checkWrite(what string, off, length int64) error {
	if p.readOnly {
		return fmt.Errorf("%s: %s %d bytes at %d: opened read-only: %w", p.name, what, length, off, syscall.EROFS)
	}
	return p.check(what, off, length)
}

func (p *file) rangeError(what string, off, length int64) error {
	return fmt.Errorf("%s: %s %d bytes at %d: outside of its %d bytes: %w",
		p.name, what, length, off, p.size, syscall.EINVAL)
}

func (p *file) failed(what string, off, length int64, err error) error {
	return fmt.Errorf("%s: %s %d bytes at %d: %w", p.name, what, length, off, err)
}

// ignoringEINTR repeats do while a signal interrupts it.
func ignoringEINTR(do func() error) error {
	for {
		if err := do(); err != syscall.EINTR {
			return err
		}
	}
}

// errnoOf drops what package os says of the path: the provider says its name.
func errnoOf(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
