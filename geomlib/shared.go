package geomlib

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
)

// ErrNotShared means that a provider cannot be read and written past every cache of this
// host, as one must be that other hosts write to, too.
var ErrNotShared = errors.New("it cannot be read and written past the caches of this host")

// Shared is the Opener of devices that other hosts reach, too: a SAN's, of iSCSI, of rbd.
// Nothing of them stays in a cache of this host, so that nothing is read that another has
// written over, and nothing is sent that was acknowledged and is late. They are Guarded.
// Open and Adopt fail with ErrNotShared for what has no such way.
type Shared struct{}

// Open implements Opener.
func (Shared) Open(name string, o OpenOptions) (Provider, error) {
	p, err := Open(name, o)
	if err != nil {
		return nil, err
	}
	s, err := Share(p)
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return s, nil
}

// Adopt implements Opener.
func (Shared) Adopt(f *os.File, name string, _ []byte, o OpenOptions) (Provider, error) {
	p, err := FromFile(f, name, o)
	if err != nil {
		return nil, err
	}
	return Share(p)
}

// Share makes of p, which Open or FromFile made and nothing was read through, one as
// Shared's. It owns p from then on; after an error p is the caller's still.
func Share(p Provider) (Provider, error) {
	var f *file
	switch q := p.(type) {
	case *file:
		f = q
	case sparseFile:
		f = q.file
	default:
		return nil, fmt.Errorf("%s: %w", p.Name(), ErrNotShared)
	}
	if err := pastCaches(f.fd, f.kind); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", f.name, ErrNotShared, err)
	}
	f.direct = isDirect(f.fd)
	s := &shared{file: f}
	if err := s.begin(); err != nil {
		f.direct = false
		return nil, errors.Join(err, checkMode(f)) // p goes by the caches again
	}
	return s, nil
}

// begin has nothing left in the caches, and makes sure that it can be read past them.
func (p *shared) begin() error {
	if err := p.DropCache(); err != nil && !errors.Is(err, ErrNotSupported) {
		return err
	}
	if _, err := p.ReadAt(make([]byte, p.sector), p.size-p.sector); err != nil {
		return fmt.Errorf("%w: %w", ErrNotShared, err)
	}
	return nil
}

// shared is a file that is read and written past the caches.
type shared struct {
	*file
	guard     atomic.Pointer[Guard]
	abandoned atomic.Pointer[error]

	// flushing: the system tells one fsync(2) alone of what was lost, so there is one at a
	// time, and whatever one fails with is told by a Flush.
	flushing sync.Mutex
	untold   error // of WriteOnce's
}

// ReadAt implements Provider.
func (p *shared) ReadAt(b []byte, off int64) (int, error) {
	if why := p.abandoned.Load(); why != nil {
		return 0, p.failed("read", off, int64(len(b)), *why)
	}
	return len(b), p.ReadOnce(b, off)
}

// ReadOnce implements Once.
func (p *shared) ReadOnce(b []byte, off int64) error {
	_, err := p.file.ReadAt(b, off)
	return err
}

// WriteAt implements Provider.
func (p *shared) WriteAt(b []byte, off int64) (int, error) {
	for n := 0; ; {
		part := b[n:min(len(b), n+bounceSize)]
		if err := p.allowed("write", off+int64(n), int64(len(part))); err != nil {
			return n, err
		}
		if _, err := p.file.WriteAt(part, off+int64(n)); err != nil {
			return n, err
		}
		if n += len(part); n == len(b) {
			return n, nil
		}
	}
}

// WriteOnce implements Once.
func (p *shared) WriteOnce(b []byte, off int64) error {
	if _, err := p.file.WriteAt(b, off); err != nil {
		return err
	}
	p.flushing.Lock()
	defer p.flushing.Unlock()
	if err := p.file.Flush(); err != nil && !errors.Is(err, ErrNotSupported) {
		p.untold = err
		return err
	}
	return nil
}

// Flush implements Provider.
func (p *shared) Flush() error {
	if why := p.abandoned.Load(); why != nil {
		return fmt.Errorf("%s: flush: %w", p.name, *why)
	}
	p.flushing.Lock()
	defer p.flushing.Unlock()
	if err := p.untold; err != nil {
		p.untold = nil
		return err
	}
	return p.file.Flush()
}

// Delete implements Provider.
func (p *shared) Delete(off, length int64) error {
	if err := p.allowed("delete", off, length); err != nil {
		return err
	}
	return p.file.Delete(off, length)
}

// WriteZeroes implements Zeroer.
func (p *shared) WriteZeroes(off, length int64) error {
	if err := p.allowed("zero", off, length); err != nil {
		return err
	}
	return p.file.WriteZeroes(off, length)
}

// ShareBlocks implements BlockSharer.
func (p *shared) ShareBlocks(off int64, src Provider, from, n int64) error {
	if err := p.allowed("share", off, n); err != nil {
		return err
	}
	return p.file.ShareBlocks(off, src, from, n)
}

// Guard implements Guarded.
func (p *shared) Guard(g Guard) {
	if g == nil {
		p.guard.Store(nil)
		return
	}
	p.guard.Store(&g)
}

// Abandon implements Guarded.
func (p *shared) Abandon(why error) { p.abandoned.Store(&why) }

// allowed waits until something may be changed.
func (p *shared) allowed(what string, off, length int64) error {
	for {
		if why := p.abandoned.Load(); why != nil {
			return p.failed(what, off, length, *why)
		}
		g := p.guard.Load()
		if g == nil || (*g).MaySend() {
			return nil
		}
		if err := (*g).Wait(); err != nil {
			return p.failed(what, off, length, err)
		}
	}
}
