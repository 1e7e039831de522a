package disktest

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
)

// Disk is a disk in memory. It is a geomlib.Provider, HoleFinder,
// CachedReader, BufferedWriter, Zeroer, CacheDropper and BlockSharer; Plain hides all but the first. Its
// methods may be called by many goroutines at once. Close does not end it.
type Disk struct {
	name   string
	size   int64
	sector int

	faults   faults
	counts   [kinds]atomic.Int64
	cached   atomic.Bool
	buffered atomic.Bool
	zeroes   atomic.Bool
	deletes  atomic.Bool
	noCache  atomic.Bool
	forgets  atomic.Bool  // a failed flush drops what it should have covered
	shares   atomic.Bool  // blocks with other disks
	shared   atomic.Int64 // bytes, of ShareBlocks
	keeps    atomic.Bool  // the cache cannot be dropped
	lies     atomic.Bool  // a flush says that it is done and does nothing
	delay    atomic.Int64 // of a flush, in nanoseconds
	starts   atomic.Bool  // transfers

	mu      sync.RWMutex
	now     contents // what reads see
	durable contents // what a loss of power leaves for certain
	pending []Op     // what is in now and not in durable, by Seq
	seq     int      // Seq of the next request
	rec     *Recorder
	index   int // in rec

	started struct { // transfers, which wait for Push
		sync.Mutex
		waiting []func()
	}
}

var (
	_ geomlib.Provider       = (*Disk)(nil)
	_ geomlib.HoleFinder     = (*Disk)(nil)
	_ geomlib.CachedReader   = (*Disk)(nil)
	_ geomlib.BufferedWriter = (*Disk)(nil)
	_ geomlib.Zeroer         = (*Disk)(nil)
	_ geomlib.CacheDropper   = (*Disk)(nil)
	_ geomlib.BlockSharer    = (*Disk)(nil)
	_ geomlib.Starter        = (*Disk)(nil)
)

// New makes a disk of size bytes, of which none was ever written. It takes
// memory only for what is. sector is a power of two, at least 8.
func New(name string, size int64, sector int) *Disk {
	if sector < 8 || sector&(sector-1) != 0 || size <= 0 || size%int64(sector) != 0 {
		panic(fmt.Sprintf("disktest: disk %s of %d bytes in sectors of %d", name, size, sector))
	}
	c := newContents(size, sector)
	return newDisk(name, size, sector, c.frozen())
}

// newDisk makes a disk of what is frozen.
func newDisk(name string, size int64, sector int, c contents) *Disk {
	d := &Disk{name: name, size: size, sector: sector, now: c.fork(), durable: c.fork()}
	d.cached.Store(true)
	d.deletes.Store(true)
	return d
}

// FillJunk makes what was never written read as pseudo-random bytes of which
// none is zero, and what is deleted too. There are no holes then. It must be
// called before the first write.
func (d *Disk) FillJunk(seed uint64) *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.now.root != nil || d.rec != nil {
		panic("disktest: FillJunk of a disk in use")
	}
	d.now.junk, d.now.seed = true, seed
	d.durable.junk, d.durable.seed = true, seed
	return d
}

// SetCached says whether ReadCached succeeds. It does in a new disk.
func (d *Disk) SetCached(on bool) *Disk { d.cached.Store(on); return d }

// SetBuffered is what WritesAreBuffered says: false in a new disk.
func (d *Disk) SetBuffered(on bool) *Disk { d.buffered.Store(on); return d }

// SetShares says whether ShareBlocks is supported. It is not in a new disk.
func (d *Disk) SetShares(on bool) *Disk { d.shares.Store(on); return d }

// Shared is how many bytes ShareBlocks has shared.
func (d *Disk) Shared() int64 { return d.shared.Load() }

// ShareBlocks is a write of what src has, which need not be a Disk.
func (d *Disk) ShareBlocks(off int64, src geomlib.Provider, from, n int64) error {
	if !d.shares.Load() {
		return geomlib.ErrNotSupported
	}
	b := make([]byte, n)
	if _, err := src.ReadAt(b, from); err != nil {
		return err
	}
	d.shared.Add(n)
	_, err := d.WriteAt(b, off)
	return err
}

// SetZeroes says whether WriteZeroes is supported. It is not in a new disk.
func (d *Disk) SetZeroes(on bool) *Disk { d.zeroes.Store(on); return d }

// SetDeletes says whether Delete is supported. It is in a new disk.
func (d *Disk) SetDeletes(on bool) *Disk { d.deletes.Store(on); return d }

// SetNoVolatileCache makes writes durable at once. Flush then answers
// ErrNotSupported.
func (d *Disk) SetNoVolatileCache(on bool) *Disk { d.noCache.Store(on); return d }

// SetForgetful makes a flush that fails drop from the cache what it should have
// covered: reads still see it, and no later flush makes it durable. fsync(2) of
// Linux does so. In a new disk it stays in the cache.
func (d *Disk) SetForgetful(on bool) *Disk { d.forgets.Store(on); return d }

// SetKeepsCache makes DropCache answer ErrNotSupported, as on a file system with a
// cache of its own. In a new disk it works.
func (d *Disk) SetKeepsCache(on bool) *Disk { d.keeps.Store(on); return d }

// SetLying makes flushes succeed without doing anything, as disks do whose cache
// is said to be protected and is not. Nothing can be promised on such a disk.
func (d *Disk) SetLying(on bool) *Disk { d.lies.Store(on); return d }

// SetFlushDelay is how long a flush takes.
func (d *Disk) SetFlushDelay(t time.Duration) *Disk { d.delay.Store(int64(t)); return d }

// Count returns how many requests of the kind were made, failed ones too.
func (d *Disk) Count(k Kind) int64 { return d.counts[k].Load() }

// ResetCounts sets all counters to zero.
func (d *Disk) ResetCounts() {
	for i := range d.counts {
		d.counts[i].Store(0)
	}
}

func (d *Disk) Name() string            { return d.name }
func (d *Disk) MediaSize() int64        { return d.size }
func (d *Disk) SectorSize() int         { return d.sector }
func (d *Disk) WritesAreBuffered() bool { return d.buffered.Load() }

func (d *Disk) ReadAt(p []byte, off int64) (int, error) {
	op := Op{Kind: Read, Off: off, Len: int64(len(p))}
	n, err := d.begin(op)
	if n > 0 {
		d.mu.RLock()
		d.now.read(p[:n], off)
		d.mu.RUnlock()
	}
	return int(n), err
}

func (d *Disk) ReadCached(p []byte, off int64) bool {
	d.mustFit(Op{Kind: CachedRead, Off: off, Len: int64(len(p))})
	d.counts[CachedRead].Add(1)
	if !d.cached.Load() || d.faults.gone.Load() {
		return false
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	d.now.read(p, off)
	return true
}

func (d *Disk) WriteAt(p []byte, off int64) (int, error) {
	n, err := d.change(Op{Kind: Write, Off: off, Len: int64(len(p)), Data: p})
	return int(n), err
}

// Delete makes the range what was never written.
func (d *Disk) Delete(off, length int64) error {
	if !d.deletes.Load() {
		return geomlib.ErrNotSupported
	}
	_, err := d.change(Op{Kind: Delete, Off: off, Len: length})
	return err
}

func (d *Disk) WriteZeroes(off, length int64) error {
	if !d.zeroes.Load() {
		return geomlib.ErrNotSupported
	}
	_, err := d.change(Op{Kind: Zero, Off: off, Len: length})
	return err
}

// change does op, or the part of it that a fault lets through.
func (d *Disk) change(op Op) (int64, error) {
	n, err := d.begin(op)
	if n == 0 {
		return 0, err
	}
	op.Len = n
	if op.Kind == Write {
		op.Data = append([]byte(nil), op.Data[:n]...)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	op.Seq, op.Sector = d.seq, int64(d.sector)
	d.seq++
	d.now.apply(op, 0, n)
	if d.rec != nil {
		op = d.rec.append(op, d.index)
	}
	d.pending = append(d.pending, op)
	if d.noCache.Load() {
		d.makeDurableLocked(d.seq)
	}
	return n, err
}

func (d *Disk) Flush() error {
	d.mu.RLock()
	covers := d.seq
	d.mu.RUnlock()
	_, err := d.begin(Op{Kind: Flush})
	if err != nil && !isCompleted(err) {
		if d.forgets.Load() {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.takeLocked(covers, func(Op) {})
		}
		return err
	}
	if t := d.delay.Load(); t > 0 {
		time.Sleep(time.Duration(t))
	}
	if d.noCache.Load() {
		return geomlib.ErrNotSupported
	}
	if d.lies.Load() {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.makeDurableLocked(covers)
	return err
}

// DropCache makes reads see what the medium holds and what is not flushed yet: what
// a forgetful disk dropped is seen no more.
func (d *Disk) DropCache() error {
	d.counts[DropCache].Add(1)
	if d.faults.gone.Load() {
		return d.goneError()
	}
	if d.keeps.Load() {
		return geomlib.ErrNotSupported
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	certain := d.durable.frozen()
	d.durable, d.now = certain.fork(), certain.fork()
	for _, op := range d.pending {
		d.now.apply(op, 0, op.Len)
	}
	return nil
}

// makeDurableLocked makes durable what is pending below Seq covers. d.mu is held.
func (d *Disk) makeDurableLocked(covers int) {
	d.takeLocked(covers, func(op Op) { d.durable.apply(op, 0, op.Len) })
}

// takeLocked gives what is pending below Seq covers to each. d.mu is held.
func (d *Disk) takeLocked(covers int, each func(Op)) {
	n := max(0, covers-(d.seq-len(d.pending)))
	for _, op := range d.pending[:n] {
		each(op)
	}
	clear(d.pending[:n])
	d.pending = d.pending[n:]
	if d.rec != nil {
		d.rec.flushed(d.index, max(covers, d.seq-len(d.pending)), d.durable.frozen())
	}
}

// NextData reports pages of 4096 bytes, or of a sector if that is larger.
func (d *Disk) NextData(off, limit int64) (start, end int64, err error) {
	d.mustFit(Op{Kind: Read, Off: off, Len: limit - off})
	if d.faults.gone.Load() {
		return 0, 0, d.goneError()
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	start, end = d.now.nextData(off, limit)
	return start, end, nil
}

// SetStarts makes d begin transfers, and keep them until Push; else it begins none.
func (d *Disk) SetStarts(on bool) *Disk { d.starts.Store(on); return d }

// StartRead begins ReadAt.
func (d *Disk) StartRead(t *geomlib.Transfer) bool { return d.start(t, d.ReadAt) }

// StartWrite begins WriteAt.
func (d *Disk) StartWrite(t *geomlib.Transfer) bool { return d.start(t, d.WriteAt) }

func (d *Disk) start(t *geomlib.Transfer, do func([]byte, int64) (int, error)) bool {
	if !d.starts.Load() {
		return false
	}
	d.started.Lock()
	defer d.started.Unlock()
	d.started.waiting = append(d.started.waiting, func() {
		_, t.Err = do(t.Data, t.Offset)
		t.End.Ended(t)
	})
	return true
}

// Push does what began, side by side.
func (d *Disk) Push() {
	d.started.Lock()
	defer d.started.Unlock()
	for _, do := range d.started.waiting {
		go do() // whoever has begun it waits for its end
	}
	d.started.waiting = nil
}

func (d *Disk) Close() error {
	d.counts[Close].Add(1)
	return nil
}

// Plain returns d without the optional interfaces.
func (d *Disk) Plain() geomlib.Provider { return struct{ geomlib.Provider }{d} }

// Clone returns a disk of its own that holds what d holds, all of it durable.
func (d *Disk) Clone() *Disk {
	d.mu.Lock()
	c := d.now.frozen()
	d.mu.Unlock()
	return d.like(c)
}

// Renamed is Clone under another name.
func (d *Disk) Renamed(name string) *Disk {
	n := d.Clone()
	n.name = name
	return n
}

// Survivor returns a disk of its own that holds what d holds, and of that in its
// cache what d has in its cache: what the next process finds.
func (d *Disk) Survivor() *Disk {
	d.mu.Lock()
	certain, ops := d.durable.frozen(), slices.Clone(d.pending)
	d.mu.Unlock()
	return d.like(certain).withPending(ops)
}

// like makes a disk of the same make with the frozen contents c.
func (d *Disk) like(c contents) *Disk {
	n := newDisk(d.name, d.size, d.sector, c)
	n.cached.Store(d.cached.Load())
	n.buffered.Store(d.buffered.Load())
	n.zeroes.Store(d.zeroes.Load())
	n.deletes.Store(d.deletes.Load())
	n.noCache.Store(d.noCache.Load())
	n.forgets.Store(d.forgets.Load())
	n.keeps.Store(d.keeps.Load())
	n.lies.Store(d.lies.Load())
	return n
}

func (d *Disk) mustFit(op Op) {
	if op.Off < 0 || op.Len < 0 || op.Off > d.size-op.Len {
		panic(fmt.Sprintf("disktest: %s: %s is outside of its %d bytes", d.name, op, d.size))
	}
	if (op.Off|op.Len)&int64(d.sector-1) != 0 {
		panic(fmt.Sprintf("disktest: %s: %s is not in whole sectors of %d", d.name, op, d.sector))
	}
}

func (d *Disk) goneError() error { return fmt.Errorf("%s: %w", d.name, syscall.ENXIO) }
