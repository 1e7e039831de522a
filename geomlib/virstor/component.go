package virstor

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ondisk"
)

// component is one provider of a volume, with what is known of its cache.
type component struct {
	number    atomic.Uint32 // changed under Volume.metaMu
	chunkSize int64
	sector    int64
	guard     int64 // offset of the metadata sector, never written as data

	provider atomic.Pointer[geomlib.Provider]
	// before is what the volume was opened with when Activate replaced it, or nil. A read
	// that began earlier may use it, so it is closed with the component.
	before   geomlib.Provider
	cached   geomlib.CachedReader // nil: every read may wait
	lender   geomlib.Lender       // nil: everything is copied
	buffered bool                 // writes are copies into a cache
	starter  geomlib.Starter      // nil: a request needs somebody who waits
	gathers  gathering

	metadata atomic.Pointer[ondisk.Metadata] // as on disk; changed under Volume.metaMu
	member   uint64                          // ondisk.MemberBlock.ID, 0 before it has one; guarded by Volume.metaMu

	// refused: it took no write of its metadata, and gets none of data.
	refused atomic.Bool

	// unwritten: it failed a write, for another reason than that there is no room
	// below it, or a flush.
	unwritten atomic.Bool

	// dirty: something was written since the last flush began. It is set
	// before the write is acknowledged. A write that finds it set leaves it so: it
	// looks when it is done, and a flush clears it before it begins, so a flush that
	// cleared it later began later, and covers the write.
	dirty atomic.Bool
	sync  flushGroup
	quiet sync.Once // "no volatile cache" is said once
	log   *slog.Logger

	ledger atomic.Pointer[mapLedger] // of one that maps may lie on: its flushes make them durable; or nil
	breaks rule

	stats    componentStats
	troubled troubled
	emit     func(Event)           // or nil; it does not block
	lease    atomic.Pointer[Lease] // or nil; asked before each request
}

// flushGroup lets concurrent flushes of one component share device flushes.
type flushGroup struct {
	mu      sync.Mutex
	cond    sync.Cond
	running bool
	started uint64 // rounds begun
	done    uint64 // rounds ended
	failed  error  // sticky: what the device lost cannot be proved to be there
}

// newComponent makes the component that m describes.
func newComponent(p geomlib.Provider, m ondisk.Metadata, log *slog.Logger, breaks rule) *component {
	c := &component{
		chunkSize: int64(m.ChunkSize),
		log:       log,
		breaks:    breaks,
		member:    m.Member.ID,
	}
	c.setMeta(m)
	c.setIndex(m.No)
	c.sync.cond.L = &c.sync.mu
	c.use(p)
	return c
}

// use makes p the component's provider. No I/O may be in flight.
func (c *component) use(p geomlib.Provider) {
	c.sector = int64(p.SectorSize())
	c.guard = p.MediaSize() - c.sector
	c.provider.Store(&p)
	c.cached, _ = p.(geomlib.CachedReader)
	c.lender, _ = p.(geomlib.Lender)
	c.starter, _ = p.(geomlib.Starter)
	if b, ok := p.(geomlib.BufferedWriter); ok {
		c.buffered = b.WritesAreBuffered()
	}
	if h, ok := p.(geomlib.FlushHistory); ok && h.FlushFailed() {
		c.fail(errFailedBefore)
	}
}

// errFailedBefore: the process that served the volume before had a flush fail.
var errFailedBefore = errors.New("a flush failed before this process had the component")

// maySend waits until requests may be sent, or fails.
func (c *component) maySend() error {
	l := c.lease.Load()
	if l == nil || l.MaySend() {
		return nil
	}
	return l.Wait()
}

func (c *component) prov() geomlib.Provider { return *c.provider.Load() }

// close lets go of what the component is on. No request may be under way.
func (c *component) close() error {
	err := c.prov().Close()
	if c.before != nil {
		err = errors.Join(err, c.before.Close())
	}
	return err
}

// accounted is p for those who write metadata and flush it: a failure of their
// flush is the component's.
func (c *component) accounted() geomlib.Provider { return accounted{c.prov(), c} }

type accounted struct {
	geomlib.Provider
	c *component
}

func (a accounted) Flush() error { return a.c.flushNow() }

func (a accounted) WriteAt(b []byte, off int64) (int, error) {
	if err := a.c.maySend(); err != nil {
		return 0, err
	}
	n, err := a.Provider.WriteAt(b, off)
	if err != nil {
		a.c.noteUnwritten(err)
	}
	return n, err
}

func (c *component) noteUnwritten(err error) {
	if !isStorageFull(err) {
		c.unwritten.Store(true)
	}
}

// index is the component's index.
func (c *component) index() uint16 { return uint16(c.number.Load()) }

func (c *component) setIndex(i uint16) { c.number.Store(uint32(i)) }

// meta is the component's metadata. It is a copy.
func (c *component) meta() ondisk.Metadata { return *c.metadata.Load() }

// setMeta remembers what was written. Volume.metaMu is held, or nobody else
// knows the component.
func (c *component) setMeta(m ondisk.Metadata) { c.metadata.Store(&m) }

func (c *component) name() string { return c.prov().Name() }

// first is the first chunk that data may use.
func (c *component) first() uint32 { return uint32(c.meta().ChunkReserved) }

// usable is the first chunk that data may not use: the end of the component,
// or the chunk that reaches into the metadata sector.
func (c *component) usable() uint32 {
	return min(c.meta().ChunkCount, ondisk.UsableChunks(c.prov().MediaSize(), int(c.sector), c.chunkSize))
}

func (c *component) offset(chunk uint32) int64 { return int64(chunk) * c.chunkSize }

func (c *component) readAt(b []byte, off int64) error {
	if off+int64(len(b)) > c.guard {
		return fmt.Errorf("read %s at %d: %w", c.name(), off, ErrLastSector)
	}
	err := c.maySend()
	if err == nil {
		_, err = c.prov().ReadAt(b, off)
	}
	if err != nil {
		c.readFailed(err)
		return fmt.Errorf("read %d bytes of %s at %d: %w", len(b), c.name(), off, err)
	}
	return nil
}

// readCached reads what needs no wait for a device.
func (c *component) readCached(b []byte, off int64) bool {
	return c.cached != nil && off+int64(len(b)) <= c.guard && c.cached.ReadCached(b, off)
}

// lend offers the taker of r what r reads, which lies at off, and returns how much it took.
// Unless wait is set, nothing is offered that a device has to be waited for.
func (c *component) lend(r *Request, off int64, wait bool) int64 {
	if c.lender == nil || off+r.Length > c.guard || c.lease.Load() != nil {
		return 0
	}
	l, ok := c.lender.Lend(off, r.Length, wait)
	if !ok {
		return 0
	}
	defer l.End()
	return int64(r.Taker.Take(r, l.Memory))
}

// writeAt writes and remembers that the component is dirty.
func (c *component) writeAt(b []byte, off int64) error {
	if off+int64(len(b)) > c.guard {
		return fmt.Errorf("write %s at %d: %w", c.name(), off, ErrLastSector)
	}
	if c.refused.Load() {
		return fmt.Errorf("write %s at %d: %w", c.name(), off, ErrTakesNoWrites)
	}
	return c.writeRaw(b, off)
}

// writeRaw is writeAt without the guard of the metadata sector.
func (c *component) writeRaw(b []byte, off int64) error {
	err := c.maySend()
	if err == nil {
		_, err = c.prov().WriteAt(b, off)
		c.markDirty()
	}
	if err != nil {
		c.writeFailed(err)
		return fmt.Errorf("write %d bytes of %s at %d: %w", len(b), c.name(), off, err)
	}
	return nil
}

func (c *component) markDirty() {
	if !c.dirty.Load() {
		c.dirty.Store(true)
	}
}

// clear makes [off, off+n) read as zeros, by the cheapest way that can be
// relied on. It is durable after flush.
func (c *component) clear(off, n int64, zeros []byte) error {
	if off+n > c.guard {
		return fmt.Errorf("zero %s at %d: %w", c.name(), off, ErrLastSector)
	}
	if c.refused.Load() {
		return fmt.Errorf("zero %s at %d: %w", c.name(), off, ErrTakesNoWrites)
	}
	p := c.prov()
	end := off + n
	holes, trusted := p.(geomlib.HoleFinder)
	for off < end {
		stop := end
		if trusted {
			start, dataEnd, err := holes.NextData(off, end)
			if err != nil {
				trusted = false // fall back to writing
			} else {
				if start >= end {
					return nil
				}
				// Whole sectors: the borders of data are the file system's.
				off = start - start%c.sector
				stop = min(end, (dataEnd+c.sector-1)/c.sector*c.sector)
			}
		}
		if err := c.zeroRange(p, off, stop-off, zeros); err != nil {
			return err
		}
		off = stop
	}
	return nil
}

// share makes [off, off+n) what [from, from+n) of src is, with the same blocks of the
// medium, and reports whether it did: what it cannot do, or fails at, is copied.
func (c *component) share(off int64, src *component, from, n int64) bool {
	to, can := c.prov().(geomlib.BlockSharer)
	if !can || off+n > c.guard || from+n > src.guard || c.refused.Load() || c.maySend() != nil {
		return false
	}
	err := to.ShareBlocks(off, src.prov(), from, n)
	if err == nil || !errors.Is(err, geomlib.ErrNotSupported) {
		c.markDirty()
	}
	return err == nil
}

func (c *component) zeroRange(p geomlib.Provider, off, n int64, zeros []byte) error {
	if err := c.maySend(); err != nil {
		return err
	}
	c.stats.zeroed.Add(uint64(n))
	if z, ok := p.(geomlib.Zeroer); ok {
		err := z.WriteZeroes(off, n)
		if err == nil {
			c.markDirty()
			return nil
		}
		if !errors.Is(err, geomlib.ErrNotSupported) {
			c.writeFailed(err)
			return fmt.Errorf("zero %d bytes of %s at %d: %w", n, c.name(), off, err)
		}
	}
	return c.writeZeros(off, n, zeros)
}

// flush returns when everything that was written before the call is on stable
// storage. Once a flush has failed, all fail.
func (c *component) flush() error {
	g := &c.sync
	g.mu.Lock()
	defer g.mu.Unlock()
	// The round that covers the caller is the next one to begin, or, when
	// nothing is dirty, the one that took the dirt and may still run.
	target := g.started
	if c.dirty.Load() && !(g.running && c.breaks&breakFlushJoins != 0) {
		target++
	}
	for g.done < target && g.failed == nil {
		if g.running {
			g.cond.Wait()
			continue
		}
		_ = c.roundLocked() // is g.failed then
	}
	return g.failed
}

// flushNow flushes the device whatever failed before, and returns how that went.
// It is for what is written again when a flush failed, and for metadata, whose
// writers look at nothing else.
func (c *component) flushNow() error {
	g := &c.sync
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.running {
		g.cond.Wait()
	}
	return c.roundLocked()
}

// roundLocked is one flush of the device. The system reports a lost write to one
// fsync(2) alone, so there is one at a time and every failure is remembered,
// whoever met it. c.sync.mu is held, but released while the device works.
func (c *component) roundLocked() error {
	g := &c.sync
	g.running = true
	g.started++
	round := g.started
	// What a failed flush lost is not made durable by one that succeeds later.
	ledger := c.ledger.Load()
	if g.failed != nil {
		ledger = nil
	}
	g.mu.Unlock()
	if ledger != nil {
		ledger.flushBegins()
	}
	if c.breaks&breakLateClean == 0 {
		c.dirty.Store(false)
	}
	err := c.flushDevice()
	if c.breaks&breakLateClean != 0 {
		c.dirty.Store(false)
	}
	if err != nil {
		c.fail(err)
	}
	if ledger != nil {
		ledger.flushEnded(err)
	}
	g.mu.Lock()
	g.running, g.done = false, round
	g.cond.Broadcast()
	return err
}

// fail makes err the failure of every flush from now on.
func (c *component) fail(err error) {
	c.unwritten.Store(true)
	c.sync.mu.Lock()
	defer c.sync.mu.Unlock()
	if c.sync.failed != nil {
		return
	}
	c.sync.failed = fmt.Errorf("%w: %s: %w", ErrFlushFailed, c.name(), err)
	c.log.Error("flush failed: flushes of the component fail until the volume is reopened",
		"component", c.name(), "error", err)
}

func (c *component) flushDevice() error {
	if err := c.maySend(); err != nil {
		return err
	}
	c.stats.flushes.Add(1)
	err := c.prov().Flush()
	if errors.Is(err, geomlib.ErrNotSupported) {
		c.quiet.Do(func() {
			c.log.Info("device has no volatile cache to flush", "component", c.name())
		})
		return nil
	}
	return err
}

// forgive forgets that a flush failed, of which nobody was told that it succeeded: who
// opens a volume that was closed in order has written nothing but metadata. What an
// earlier process lost is not forgiven.
func (c *component) forgive() {
	c.sync.mu.Lock()
	defer c.sync.mu.Unlock()
	if errors.Is(c.sync.failed, errFailedBefore) {
		return
	}
	c.dirty.Store(false)
	c.sync.failed = nil
}

// failedFlush returns the sticky failure.
func (c *component) failedFlush() error {
	c.sync.mu.Lock()
	defer c.sync.mu.Unlock()
	return c.sync.failed
}

// clean reports whether a flush would have nothing to do.
func (c *component) clean() bool {
	if c.dirty.Load() {
		return false
	}
	c.sync.mu.Lock()
	defer c.sync.mu.Unlock()
	return !c.sync.running && c.sync.failed == nil && !c.dirty.Load()
}

// componentStats count what a component was asked to do.
type componentStats struct {
	readErrors, writeErrors atomic.Uint64
	flushes, zeroed         atomic.Uint64
}
