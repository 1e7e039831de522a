package nbdcomp

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdclient"
)

const (
	// defaultMax is the largest payload of a server that does not say one, and the
	// most that is asked for at a time in any case, bytes.
	defaultMax = 32 << 20
	// writeMax is the most that is written at a time, bytes: what the journal takes though
	// it has no room.
	writeMax = 1 << 20
	// compactMax is how much is zeroed or trimmed at a time where lengths have 32 bits.
	compactMax = 1 << 30
	// maxSector is the largest sector, bytes.
	maxSector = 128 << 10
)

// provider is an export that is connected, or is to be again.
type provider struct {
	name     string
	uri      nbdclient.URI
	by       geomlib.Connector // or nil
	set      settings
	offer    offer
	size     int64
	sector   int64
	max      int64 // of a read, bytes; whole sectors
	maxWrite int64 // of a write, bytes; whole sectors
	maxRange int64 // of a trim or of zeros, bytes; whole sectors
	readOnly bool
	lock     *os.File
	closed   func(name string) error // or nil

	flushHasFailed bool
	flushFails     func(name string) // or nil

	link
	journal  journal // guarded by link.mu, as all that follows
	proofs   proofs
	emptying bool // a flush is under way to make room in the journal
	flushes  flushes
	guard    geomlib.Guard // or nil
	untold   error         // of a flush, or of what was to be done again: the next Flush fails with it

	doubt time.Time // until then the server may do what was sent on old connections; keep's
}

// sparse is an export whose server tells what reads as zeros.
type sparse struct{ *provider }

// describe takes what the server says of the export, and makes sure that a component can
// be on it.
func (p *provider) describe(s *session, sector int) error {
	i := s.conns[0].Info()
	p.offer, p.size, p.max, p.maxRange = offerOf(s.conns[0]), i.Size, defaultMax, compactMax
	if p.offer.extended {
		p.maxRange = 1 << 62
	}
	if i.Max > 0 {
		p.max = min(p.max, int64(i.Max))
	}
	block := int64(max(i.Min, 512))
	if sector == 0 {
		sector = max(geomlib.SectorByMetadata(blocks{s.conns[0], block}, p.size), int(block))
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
	s.max, p.maxWrite = p.max, min(p.max, writeMax)
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
func (p *provider) LiesOn() []uint32 { return p.offer.liesOn }

// Reach is geomlib.Remote's.
func (p *provider) Reach() (r geomlib.Reach) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch p.reach {
	case away, late:
		r.Away = max(time.Since(p.since), 1)
	case gone:
		r.Away, r.Gone = max(time.Since(p.since), 1), true
	}
	r.Regained, r.Unflushed = p.regained, p.journal.end-p.journal.base
	return r
}

// Watch is geomlib.Remote's.
func (p *provider) Watch(tell func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.watcher = tell
}

// ReadAt reads all of b.
func (p *provider) ReadAt(b []byte, off int64) (int, error) {
	if err := p.check("read", off, int64(len(b))); err != nil {
		return 0, err
	}
	for done := 0; done < len(b); {
		n := min(len(b)-done, int(p.max))
		if err := p.read(b[done:done+n], off+int64(done)); err != nil {
			return done, p.failed("read", off, int64(len(b)), err)
		}
		done += n
	}
	return len(b), nil
}

// read asks until there is an answer.
func (p *provider) read(b []byte, off int64) error {
	for {
		s, err := p.open()
		if err != nil {
			return err
		}
		if err = s.read(b, off); !p.left(s, err) {
			return err
		}
	}
}

// left reports whether err means that s is lost.
func (p *provider) left(s *session, err error) bool {
	if !errors.Is(err, nbdclient.ErrClosed) {
		return false
	}
	p.leave(s)
	return true
}

// WriteAt writes all of b.
func (p *provider) WriteAt(b []byte, off int64) (int, error) {
	if err := p.checkWrite("write", off, int64(len(b))); err != nil {
		return 0, err
	}
	for done := 0; done < len(b); {
		n := min(len(b)-done, int(p.maxWrite))
		if err := p.change(kindWrite, off+int64(done), int64(n), b[done:done+n]); err != nil {
			return done, p.failed("write", off, int64(len(b)), err)
		}
		done += n
	}
	return len(b), nil
}

// Delete is TRIM.
func (p *provider) Delete(off, length int64) error {
	return p.ranges("delete", kindTrim, off, length, p.offer.Trims())
}

// WriteZeroes has the server write them.
func (p *provider) WriteZeroes(off, length int64) error {
	return p.ranges("zero", kindZero, off, length, p.offer.WritesZeroes())
}

// ranges makes a change without data, by as much as goes with one request, where the
// server can.
func (p *provider) ranges(what string, k kind, off, length int64, can bool) error {
	if err := p.checkWrite(what, off, length); err != nil {
		return err
	}
	if !can {
		return geomlib.ErrNotSupported
	}
	for end := off + length; off < end; {
		n := min(end-off, p.maxRange)
		err := p.change(k, off, n, nil)
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

// change makes a change, and has it done again as long as it is not flushed.
func (p *provider) change(k kind, off, n int64, b []byte) error {
	e, err := p.begin(k, off, n)
	if err != nil {
		return err
	}
	e.fill(b, p.proofs.table)
	p.mu.Lock()
	s, err := p.allowedLocked()
	if err != nil {
		p.withdrawLocked(e)
		p.mu.Unlock()
		return err
	}
	e.sent = true
	p.mu.Unlock()
	err = s.change(k, off, n, b)
	lost := p.left(s, err)
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.finishLocked(e)
	if lost {
		return p.outcomeLocked(e)
	}
	p.answeredLocked(e, err)
	return err
}

// answeredLocked takes the answer of the server to a change. p.mu is held.
func (p *provider) answeredLocked(e *entry, err error) {
	switch {
	case err == nil:
	case p.reach == reached:
		p.journal.remove(e)
	default:
		e.void = true
	}
}

// begin notes a change. It waits while something is on its way that overlaps it, and for
// room.
func (p *provider) begin(k kind, off, n int64) (*entry, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		if _, err := p.reachLocked(); err != nil {
			return nil, err
		}
		if p.journal.busy(off, n) && p.set.breaks&breakOverlap == 0 {
			p.waitLocked()
			continue
		}
		if e := p.journal.add(k, off, n); e != nil {
			p.proofs.forget(off, n)
			return e, nil
		}
		if err := p.emptyLocked(); err != nil {
			return nil, err
		}
	}
}

// emptyLocked makes room in the journal by a flush, or waits until something has
// changed. p.mu is held, but for that time.
func (p *provider) emptyLocked() error {
	if p.emptying || p.journal.answered == 0 {
		p.waitLocked()
		return nil
	}
	p.emptying = true
	p.mu.Unlock()
	err := p.makeRoom()
	p.mu.Lock()
	return err
}

// emptyBesideLocked begins a flush beside the writes, of a journal that fills. p.mu is held,
// and p.tasks not ended: p is reached.
func (p *provider) emptyBesideLocked() {
	if p.emptying || !p.journal.filling() || !p.changesAtOnceLocked() {
		return
	}
	p.emptying = true
	p.tasks.Go(func() {
		if err := p.makeRoom(); err != nil && !errors.Is(err, errLost) {
			p.set.log.Error("component may have lost what was written: the next flush fails", "component", p.name, "error", err)
		}
	})
}

// makeRoom is the flush that p.emptying tells of.
func (p *provider) makeRoom() error {
	err := p.flush()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.emptying = false
	p.tellLocked()
	return err
}

// finishLocked is the end of a change for whoever began it. p.mu is held.
func (p *provider) finishLocked(e *entry) {
	p.journal.land(e)
	p.journal.disown(e)
	p.emptyBesideLocked()
	p.tellLocked()
}

// outcomeLocked waits until a change whose connection was lost has been done again.
// p.mu is held.
func (p *provider) outcomeLocked(e *entry) error {
	for e.answer == 0 && p.reach == away {
		p.waitLocked()
	}
	if e.answer == 0 {
		return p.why
	}
	return e.err
}

// Flush is on one connection for all of them: there are several only of a server that
// says so.
func (p *provider) Flush() error {
	if !p.offer.Flushes() { // and nothing is written
		return geomlib.ErrNotSupported
	}
	p.mu.Lock()
	err := p.untold
	p.mu.Unlock()
	if err == nil {
		err = p.flush()
	}
	if err = p.toldOf(err); err == nil {
		return nil
	}
	p.tellOfLoss()
	return fmt.Errorf("%s: flush: %w", p.name, err)
}

// flush has the server flush what it has answered, as often as it is lost meanwhile.
func (p *provider) flush() error {
	for {
		p.mu.Lock()
		s, err := p.reachLocked()
		clock := p.journal.clock
		p.journal.fresh = 0
		p.mu.Unlock()
		if err != nil {
			return err
		}
		err = p.flushOn(s)
		if err == nil && p.covered(s, clock) {
			return nil
		}
		if err != nil && !p.left(s, err) {
			return err
		}
	}
}

// covered takes note that a flush on s has succeeded that was sent when the journal's
// clock was at that. It is none of what was written on a connection that is gone.
func (p *provider) covered(s *session, clock uint64) bool {
	if s.ended() {
		p.leave(s)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reach != reached || p.session != s {
		return false
	}
	p.proven = true
	p.journal.flushed(clock, &p.proofs, p.set.breaks)
	p.tellLocked()
	return true
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
		if *list, err = p.status((*list)[:0], at, min(limit-at, p.maxRange)); err != nil {
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

// status asks until there is an answer, which has one extent at least.
func (p *provider) status(list []nbdclient.Extent, off, n int64) ([]nbdclient.Extent, error) {
	for {
		s, err := p.open()
		if err != nil {
			return list, err
		}
		list, err = s.conn().AppendStatus(list[:0], off, n, 0)
		switch {
		case p.left(s, err):
		case err == nil && len(list) == 0:
			return list, io.ErrNoProgress
		default:
			return list, err
		}
	}
}

// outwards is [start, end) in whole sectors of [off, limit).
func (p *provider) outwards(off, start, end, limit int64) (int64, int64, error) {
	return max(off, start&^(p.sector-1)), min(limit, (end+p.sector-1)&^(p.sector-1)), nil
}

// Close ends the connections, and gives the lock back.
func (p *provider) Close() error {
	p.mu.Lock()
	for p.emptying && p.reach == reached { // a goodbye is said when all is answered
		p.waitLocked()
	}
	was := p.reach
	p.endLocked(closed, errClosed)
	p.mu.Unlock()
	p.cancel()
	var err error
	if was == reached {
		ended := p.session.ended()
		err = p.session.close()
		if err == nil && !ended && !p.readOnly {
			err = markUsed(p.lock, false)
		}
	}
	p.tasks.Wait()
	p.journal.free()
	err = errors.Join(err, p.lock.Close())
	if p.closed != nil {
		err = errors.Join(err, p.closed(p.name))
	}
	return err
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
	return fmt.Errorf("%s: %s %d bytes at %d: %w", p.name, what, length, off, err)
}
