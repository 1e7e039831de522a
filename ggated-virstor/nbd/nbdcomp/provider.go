package nbdcomp

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdclient"
)

const (
	// defaultMax is the largest payload of a server that does not say one, and the
	// most that is asked for at a time in any case, bytes.
	defaultMax = 32 << 20
	// compactMax is how much is zeroed or trimmed at a time where lengths have 32 bits.
	compactMax = 1 << 30
	// maxSector is the largest sector, bytes.
	maxSector = 128 << 10
)

// provider is an export that is connected.
type provider struct {
	name     string
	size     int64
	sector   int64
	max      int64 // of a read or a write, bytes; whole sectors
	maxRange int64 // of a trim or of zeros, bytes; whole sectors
	info     nbdclient.Info
	readOnly bool
	lock     *os.File
	closed   func(name string) error // or nil

	flushHasFailed bool
	flushFails     func(name string) // or nil

	conns []*nbdclient.Conn
	turns atomic.Uint32
	lost  atomic.Bool // a connection was lost: nothing is done any more
}

// sparse is an export whose server tells what reads as zeros.
type sparse struct{ *provider }

// describe takes what the server says of the export, and makes sure that a component can
// be on it.
func (p *provider) describe(i nbdclient.Info, sector int) error {
	p.info, p.size, p.max, p.maxRange = i, i.Size, defaultMax, compactMax
	if p.conns[0].Extended() {
		p.maxRange = 1 << 62
	}
	if i.Max > 0 {
		p.max = min(p.max, int64(i.Max))
	}
	block := int64(max(i.Min, 512))
	if sector == 0 {
		sector = max(geomlib.SectorByMetadata(blocks{p.conns[0], block}, p.size), int(block))
	}
	p.sector = int64(sector)
	switch {
	case !p.readOnly && i.ReadOnly():
		return fmt.Errorf("%s: the server does not let this client write: %w", p.name, syscall.EROFS)
	case !p.readOnly && !i.Flushes():
		return fmt.Errorf("%s: the server knows no flush (NBD_FLAG_SEND_FLUSH): what is written may be lost without a word; export it otherwise", p.name)
	case p.sector < block || p.sector > maxSector || p.sector&(p.sector-1) != 0:
		return fmt.Errorf("%s: sectors of %d bytes where the server takes blocks of %d: must be a power of two from that to %d",
			p.name, sector, block, maxSector)
	case p.size < p.sector || p.size%p.sector != 0:
		return fmt.Errorf("%s: an export of %d bytes, in sectors of %d: no component is like that (is it the right export?)",
			p.name, p.size, p.sector)
	}
	p.max &^= p.sector - 1
	if p.max == 0 {
		return fmt.Errorf("%s: the server takes %d bytes at a time, less than a sector of %d", p.name, i.Max, p.sector)
	}
	return nil
}

// blocks reads any bytes of an export that is read by whole blocks.
type blocks struct {
	c    *nbdclient.Conn
	size int64
}

func (b blocks) ReadAt(p []byte, off int64) (int, error) {
	start, end := off/b.size*b.size, (off+int64(len(p))+b.size-1)/b.size*b.size
	buf := make([]byte, end-start)
	if _, err := b.c.ReadAt(buf, start); err != nil {
		return 0, err
	}
	return copy(p, buf[off-start:]), nil
}

func (p *provider) Name() string     { return p.name }
func (p *provider) MediaSize() int64 { return p.size }
func (p *provider) SectorSize() int  { return int(p.sector) }

// FlushFailed is geomlib.FlushHistory's.
func (p *provider) FlushFailed() bool { return p.flushHasFailed }

// LiesOn is geomlib.Layered's.
func (p *provider) LiesOn() []uint32 { return p.conns[0].LiesOn() }

// conn is the connection whose turn it is.
func (p *provider) conn() *nbdclient.Conn {
	return p.conns[p.turns.Add(1)%uint32(len(p.conns))]
}

// ReadAt reads all of b.
func (p *provider) ReadAt(b []byte, off int64) (int, error) {
	if err := p.check("read", off, int64(len(b))); err != nil {
		return 0, err
	}
	return p.transfer("read", b, off, (*nbdclient.Conn).ReadAt)
}

// WriteAt writes all of b.
func (p *provider) WriteAt(b []byte, off int64) (int, error) {
	if err := p.checkWrite("write", off, int64(len(b))); err != nil {
		return 0, err
	}
	return p.transfer("write", b, off, (*nbdclient.Conn).WriteAt)
}

// transfer does do, by as much as goes with one request.
func (p *provider) transfer(what string, b []byte, off int64, do func(c *nbdclient.Conn, b []byte, off int64) (int, error)) (int, error) {
	for done := 0; done < len(b); {
		n := min(len(b)-done, int(p.max))
		err := p.usable()
		if err == nil {
			_, err = do(p.conn(), b[done:done+n], off+int64(done))
		}
		if err != nil {
			return done, p.failed(what, off, int64(len(b)), err)
		}
		done += n
	}
	return len(b), nil
}

// Flush is on one connection for all of them: there are several only of a server that
// says so.
func (p *provider) Flush() error {
	if !p.info.Flushes() { // and nothing is written
		return geomlib.ErrNotSupported
	}
	err := p.usable()
	if err == nil {
		err = p.conn().Flush()
	}
	if err == nil {
		err = p.usable() // what was written on a connection that is gone is not covered
	}
	if err == nil {
		return nil
	}
	if p.flushFails != nil {
		p.flushFails(p.name)
	}
	return fmt.Errorf("%s: flush: %w", p.name, p.cause(err))
}

// Delete is TRIM.
func (p *provider) Delete(off, length int64) error {
	return p.ranges("delete", off, length, p.info.Trims(), func(c *nbdclient.Conn, off, n int64) error { return c.Trim(off, n, 0) })
}

// WriteZeroes has the server write them.
func (p *provider) WriteZeroes(off, length int64) error {
	return p.ranges("zero", off, length, p.info.WritesZeroes(), func(c *nbdclient.Conn, off, n int64) error { return c.WriteZeroes(off, n, 0) })
}

// ranges does do, by as much as goes with one request, where the server can.
func (p *provider) ranges(what string, off, length int64, can bool, do func(c *nbdclient.Conn, off, n int64) error) error {
	if err := p.checkWrite(what, off, length); err != nil {
		return err
	}
	if !can {
		return geomlib.ErrNotSupported
	}
	for end := off + length; off < end; {
		n := min(end-off, p.maxRange)
		err := p.usable()
		if err == nil {
			err = do(p.conn(), off, n)
		}
		if errors.Is(err, syscall.ENOTSUP) {
			return geomlib.ErrNotSupported
		}
		if err != nil {
			return p.failed(what, off, n, err)
		}
		off += n
	}
	return nil
}

// extentLists are lists of extents that nobody uses.
var extentLists = sync.Pool{New: func() any { return new([]nbdclient.Extent) }}

// NextData asks the server, and rounds what it says outwards to whole sectors.
func (p sparse) NextData(off, limit int64) (start, end int64, err error) {
	if off < 0 || off > limit || limit > p.size {
		return 0, 0, p.rangeError("look for data in", off, limit-off)
	}
	list := extentLists.Get().(*[]nbdclient.Extent)
	defer extentLists.Put(list)
	start = -1
	for at := off; at < limit; {
		if err := p.usable(); err != nil {
			return 0, 0, p.failed("look for data in", at, limit-at, err)
		}
		*list, err = p.conn().AppendStatus((*list)[:0], at, min(limit-at, p.maxRange), 0)
		if err == nil && len(*list) == 0 {
			err = io.ErrNoProgress
		}
		if err != nil {
			return 0, 0, p.failed("look for data in", at, limit-at, err)
		}
		for _, e := range *list {
			switch {
			case !e.Zero && start < 0:
				start = at
			case e.Zero && start >= 0:
				return p.outwards(off, start, at, limit)
			}
			if at += min(e.Length, limit-at); at == limit {
				break
			}
		}
	}
	if start < 0 {
		return limit, limit, nil
	}
	return p.outwards(off, start, limit, limit)
}

// outwards is [start, end) in whole sectors of [off, limit).
func (p *provider) outwards(off, start, end, limit int64) (int64, int64, error) {
	return max(off, start&^(p.sector-1)), min(limit, (end+p.sector-1)&^(p.sector-1)), nil
}

// usable fails once a connection is lost: what the others do may be undone by what the
// server still has of that one.
func (p *provider) usable() error {
	if p.lost.Load() {
		return errLost
	}
	for _, c := range p.conns {
		select {
		case <-c.Done():
			p.lost.Store(true)
			return errLost
		default:
		}
	}
	return nil
}

var errLost = fmt.Errorf("the connection to the server was lost: %w", syscall.EIO)

// cause is what err of a connection means to whoever asked.
func (p *provider) cause(err error) error {
	if errors.Is(err, nbdclient.ErrClosed) {
		return fmt.Errorf("%w (%w)", errLost, err)
	}
	return err
}

// Close ends the connections, and gives the lock back.
func (p *provider) Close() error {
	err := p.disconnect()
	if err == nil && !p.lost.Load() && !p.readOnly {
		err = markUsed(p.lock, false)
	}
	err = errors.Join(err, p.lock.Close())
	if p.closed != nil {
		err = errors.Join(err, p.closed(p.name))
	}
	return err
}

// disconnect says goodbye on all connections that there are.
func (p *provider) disconnect() error {
	var all sync.WaitGroup
	errs := make([]error, len(p.conns))
	for i, c := range p.conns {
		select {
		case <-c.Done(): // nobody is there to hear it
			p.lost.Store(true)
		default:
			all.Go(func() { errs[i] = c.Close() })
		}
	}
	all.Wait()
	return errors.Join(errs...)
}

func (p *provider) check(what string, off, length int64) error {
	if off < 0 || length < 0 || off > p.size-length {
		return p.rangeError(what, off, length)
	}
	if (off|length)&(p.sector-1) != 0 {
		return fmt.Errorf("%s: %s %d bytes at %d: not whole sectors of %d bytes: %w",
			p.name, what, length, off, p.sector, syscall.EINVAL)
	}
	return nil
}

func (p *provider) checkWrite(what string, off, length int64) error {
	if p.readOnly {
		return fmt.Errorf("%s: %s %d bytes at %d: opened read-only: %w", p.name, what, length, off, syscall.EROFS)
	}
	return p.check(what, off, length)
}

func (p *provider) rangeError(what string, off, length int64) error {
	return fmt.Errorf("%s: %s %d bytes at %d: outside of its %d bytes: %w", p.name, what, length, off, p.size, syscall.EINVAL)
}

func (p *provider) failed(what string, off, length int64, err error) error {
	return fmt.Errorf("%s: %s %d bytes at %d: %w", p.name, what, length, off, p.cause(err))
}
