// Package nbdtest is a disk in memory for tests of the NBD server: thin, with
// a capacity that can run out, and with requests that complete at once or later
// and in any order.
package nbdtest

import (
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
)

// Config describes a Disk.
type Config struct {
	Size       int64 // bytes
	ChunkSize  int64 // default 1 MiB
	SectorSize int   // default 512
	ReadOnly   bool

	// Capacity is the number of chunks there is room for; 0 is no limit.
	Capacity int
	// Hold makes writes wait when there is no room, instead of failing with
	// virstor.ErrNoSpace.
	Hold bool
	// HeldLimit is the write data held from which HeldFull says so, bytes.
	HeldLimit int64

	// Workers complete requests later, each taking any of those submitted; 0
	// completes them within Submit.
	Workers int
	// Lend has reads be offered to who takes them, as far as they lie in one chunk.
	Lend bool
	// AfterTake is called with how much of a read that is carried out was taken, when
	// something was; its error is the request's unless that was all.
	AfterTake func(r *virstor.Request, taken int) error
	// Before is called before each request is carried out; its error is the
	// request's. It may block, on a worker.
	Before func(*virstor.Request) error
}

// Disk is a thin disk in memory. Close it to end its workers.
type Disk struct {
	cfg    Config
	chunks []atomic.Pointer[chunk]
	size   atomic.Int64

	mu        sync.Mutex
	allocated int
	held      []*virstor.Request
	heldBytes int64
	heldFull  chan struct{} // closed when less is held; nil when it is not full
	abandoned map[*virstor.Request]bool
	later     map[*virstor.Request][][2]int64 // what a held write is to leave alone

	queue struct {
		sync.Mutex
		sync.Cond
		requests []*virstor.Request
		gathered []*virstor.Request
		closed   bool
	}
	workers sync.WaitGroup
}

type chunk struct {
	mu   sync.RWMutex
	data []byte
}

// New makes a disk whose contents are zeros.
func New(cfg Config) *Disk {
	if cfg.ChunkSize == 0 {
		cfg.ChunkSize = 1 << 20
	}
	if cfg.SectorSize == 0 {
		cfg.SectorSize = 512
	}
	d := &Disk{cfg: cfg, chunks: make([]atomic.Pointer[chunk], (cfg.Size+cfg.ChunkSize-1)/cfg.ChunkSize)}
	d.abandoned, d.later = make(map[*virstor.Request]bool), make(map[*virstor.Request][][2]int64)
	d.size.Store(cfg.Size)
	d.queue.L = &d.queue.Mutex
	for range cfg.Workers {
		d.workers.Go(d.work)
	}
	return d
}

// Size is the size in bytes.
func (d *Disk) Size() int64 { return d.size.Load() }

// SectorSize is the size of a sector, bytes.
func (d *Disk) SectorSize() int { return d.cfg.SectorSize }

// ChunkSize is the unit of allocation, bytes.
func (d *Disk) ChunkSize() int64 { return d.cfg.ChunkSize }

// ReadOnly says that nothing may be written.
func (d *Disk) ReadOnly() bool { return d.cfg.ReadOnly }

// SetSize shrinks the disk, or grows it up to the size it was made with.
func (d *Disk) SetSize(n int64) { d.size.Store(n) }

// Allocated is the number of chunks that hold data.
func (d *Disk) Allocated() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.allocated
}

// Held is the number of writes that wait for room.
func (d *Disk) Held() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.held)
}

// AddCapacity makes room for n more chunks, and carries out what it can of the
// writes held.
func (d *Disk) AddCapacity(n int) {
	d.mu.Lock()
	d.cfg.Capacity += n
	d.mu.Unlock()
	d.RetryHeld()
}

// RetryHeld carries out what it can of the writes held.
func (d *Disk) RetryHeld() {
	d.mu.Lock()
	tried := d.takeHeldLocked()
	d.mu.Unlock()
	for _, r := range tried {
		n, ok := r.Done.(virstor.ResumeNotifier)
		if d.hasRoom(r) && (!ok || n.Resumed(r)) {
			d.finish(r)
			continue
		}
		if !d.keep(r) {
			d.give(r, virstor.ErrAbandoned)
		}
	}
}

// EndHeld ends a write that is held, now or when it is tried again.
func (d *Disk) EndHeld(r *virstor.Request) {
	d.mu.Lock()
	i := slices.Index(d.held, r)
	if i < 0 {
		d.abandoned[r] = true
		d.mu.Unlock()
		return
	}
	d.held = slices.Delete(d.held, i, i+1)
	d.countHeldLocked(-r.Length)
	d.mu.Unlock()
	d.give(r, virstor.ErrAbandoned)
}

// Supersede has r, when it goes on, leave the range alone.
func (d *Disk) Supersede(r *virstor.Request, off, n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.later[r] = append(d.later[r], [2]int64{off, off + n})
}

// Superseded reports whether one call of Supersede covered the range.
func (d *Disk) Superseded(r *virstor.Request, off, n int64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.ContainsFunc(d.later[r], func(e [2]int64) bool { return e[0] <= off && off+n <= e[1] })
}

// give completes r.
func (d *Disk) give(r *virstor.Request, err error) {
	r.Err = err
	r.Done.Complete(r)
}

// keep puts r among the writes held, unless nobody waits for it any more.
func (d *Disk) keep(r *virstor.Request) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.abandoned[r] {
		delete(d.abandoned, r)
		return false
	}
	r.Batch = nil
	d.held = append(d.held, r)
	d.countHeldLocked(r.Length)
	return true
}

// countHeldLocked keeps heldFull in step with the bytes held.
func (d *Disk) countHeldLocked(n int64) {
	d.heldBytes += n
	switch full := len(d.held) > 0 && d.heldBytes >= d.cfg.HeldLimit; {
	case full && d.heldFull == nil:
		d.heldFull = make(chan struct{})
	case !full && d.heldFull != nil:
		close(d.heldFull)
		d.heldFull = nil
	}
}

// FailHeld fails the writes held with virstor.ErrNoSpace, and lets no more wait.
func (d *Disk) FailHeld() {
	d.mu.Lock()
	d.cfg.Hold = false
	held := d.takeHeldLocked()
	d.mu.Unlock()
	for _, r := range held {
		r.Err = virstor.ErrNoSpace
		r.Done.Complete(r)
	}
}

// Close fails the writes held with virstor.ErrClosed, carries out what was
// submitted, and ends the workers.
func (d *Disk) Close() {
	d.queue.Lock()
	d.queue.closed = true
	d.queue.Broadcast()
	d.queue.Unlock()
	d.workers.Wait()
	d.mu.Lock()
	held := d.takeHeldLocked()
	d.mu.Unlock()
	for _, r := range held {
		r.Err = virstor.ErrClosed
		r.Done.Complete(r)
	}
}

func (d *Disk) takeHeldLocked() []*virstor.Request {
	held := d.held
	d.held, d.heldBytes = nil, 0
	if d.heldFull != nil {
		close(d.heldFull)
		d.heldFull = nil
	}
	return held
}

// HeldFull is closed when less than HeldLimit is held again; nil when it is.
func (d *Disk) HeldFull() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.heldFull
}

// Extents tells of the chunks of a range, one at a time.
func (d *Disk) Extents(off, n int64, emit func(int64, bool) bool) {
	for end := off + n; off < end; {
		next := min(end, (off/d.cfg.ChunkSize+1)*d.cfg.ChunkSize)
		if !emit(next-off, d.chunks[off/d.cfg.ChunkSize].Load() != nil) {
			return
		}
		off = next
	}
}

// Submit carries r out, now or later.
func (d *Disk) Submit(r *virstor.Request) {
	if d.cfg.Workers == 0 {
		d.finish(r)
		return
	}
	d.queue.Lock()
	defer d.queue.Unlock()
	if r.Flags&virstor.Gather != 0 {
		d.queue.gathered = append(d.queue.gathered, r)
		return
	}
	d.queue.requests = append(d.queue.requests, r)
	d.queue.Signal()
}

// Push has what it kept done: of who submits with virstor.Gather it keeps everything.
func (d *Disk) Push() {
	d.queue.Lock()
	defer d.queue.Unlock()
	d.queue.requests = append(d.queue.requests, d.queue.gathered...)
	d.queue.gathered = d.queue.gathered[:0]
	d.queue.Broadcast()
}

// work carries out requests in random order, some of them as one batch.
func (d *Disk) work() {
	q := &d.queue
	var some []*virstor.Request
	var batch geomlib.Batch
	for {
		q.Lock()
		for len(q.requests) == 0 && !q.closed {
			q.Wait()
		}
		n := len(q.requests)
		if n == 0 {
			q.Unlock()
			return
		}
		some = some[:0]
		most := 1 // for Before may wait until others are asked
		if d.cfg.Before == nil {
			most = min(n, 1+rand.IntN(4))
		}
		for range most {
			n := len(q.requests)
			i := rand.IntN(n)
			some = append(some, q.requests[i])
			q.requests[i], q.requests[n-1] = q.requests[n-1], nil
			q.requests = q.requests[:n-1]
		}
		q.Unlock()
		for _, r := range some {
			r.Batch = &batch
			d.finish(r)
		}
		batch.End()
	}
}

// finish carries r out and completes it, unless it has to be held.
func (d *Disk) finish(r *virstor.Request) {
	r.Err = nil
	if d.cfg.Before != nil {
		r.Err = d.cfg.Before(r)
	}
	if r.Err == nil && d.carryOut(r) {
		return
	}
	r.Done.Complete(r)
}

// carryOut sets r.Err, or reports that r is held.
func (d *Disk) carryOut(r *virstor.Request) (held bool) {
	if r.Offset < 0 || r.Length < 0 || r.Offset+r.Length > d.Size() {
		r.Err = virstor.ErrRange
		return false
	}
	if d.cfg.ReadOnly && r.Op != virstor.OpRead && r.Op != virstor.OpFlush {
		r.Err = virstor.ErrReadOnly
		return false
	}
	if r.Op == virstor.OpWrite || r.Op == virstor.OpWriteZeroes && r.Flags&virstor.NoHole != 0 {
		if !d.allocate(r) {
			if r.Err == nil && !d.hold(r) {
				r.Err = virstor.ErrAbandoned
			}
			return r.Err == nil
		}
	}
	size := d.cfg.ChunkSize
	var one [1][2]int64
	for _, e := range d.ranges(r, one[:0]) {
		for off := e[0]; off < e[1]; {
			within := off % size
			n := min(e[1]-off, size-within)
			d.piece(r, &d.chunks[off/size], within, off-r.Offset, n)
			off += n
		}
	}
	d.mu.Lock()
	delete(d.later, r)
	d.mu.Unlock()
	return false
}

// hold keeps r for later, unless nobody waits for it.
func (d *Disk) hold(r *virstor.Request) bool {
	if n, ok := r.Done.(virstor.HeldNotifier); ok && !n.Held(r) {
		return false
	}
	return d.keep(r)
}

// ranges are what r is to do, in order, appended to left.
func (d *Disk) ranges(r *virstor.Request, left [][2]int64) [][2]int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	left = append(left, [2]int64{r.Offset, r.Offset + r.Length})
	for _, e := range d.later[r] {
		var next [][2]int64
		for _, l := range left {
			for _, part := range [][2]int64{{l[0], min(l[1], e[0])}, {max(l[0], e[1]), l[1]}} {
				if part[0] < part[1] {
					next = append(next, part)
				}
			}
		}
		left = next
	}
	return left
}

// piece carries out the part of r that lies in one chunk: n bytes from within.
func (d *Disk) piece(r *virstor.Request, at *atomic.Pointer[chunk], within, done, n int64) {
	c := at.Load()
	switch r.Op {
	case virstor.OpRead:
		p := r.Data[done : done+n]
		if c == nil {
			clear(p)
			return
		}
		taken := d.lend(r, c, within, n)
		c.mu.RLock()
		defer c.mu.RUnlock()
		copy(p[taken:], c.data[within+int64(taken):])
	case virstor.OpWrite:
		c.mu.Lock()
		copy(c.data[within:], r.Data[done:done+n])
		c.mu.Unlock()
	case virstor.OpDelete, virstor.OpWriteZeroes:
		switch {
		case c == nil:
		case n == d.cfg.ChunkSize && r.Flags&virstor.NoHole == 0:
			d.free(at)
		case r.Op == virstor.OpWriteZeroes:
			c.mu.Lock()
			clear(c.data[within : within+n])
			c.mu.Unlock()
		}
	}
}

// lend offers n bytes of c to who takes them, if r reads nothing else, and returns how much was
// taken. Of that nothing is in r's memory, but in its last sector what was taken of that.
func (d *Disk) lend(r *virstor.Request, c *chunk, within, n int64) int {
	if !d.cfg.Lend || r.Taker == nil || r.Length != n {
		return 0
	}
	c.mu.RLock()
	taken := r.Taker.Take(r, c.data[within:][:n])
	c.mu.RUnlock()
	if taken == 0 {
		return 0
	}
	clear(r.Data[:max(0, taken-d.SectorSize())])
	if d.cfg.AfterTake != nil {
		if err := d.cfg.AfterTake(r, taken); int64(taken) < n {
			r.Err = err
		}
	}
	return taken
}

func (d *Disk) free(at *atomic.Pointer[chunk]) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if at.Swap(nil) != nil {
		d.allocated--
	}
}

// missing are the chunks that r needs and that are not there.
func (d *Disk) missing(r *virstor.Request) (chunks []int64) {
	var one [1][2]int64
	for _, e := range d.ranges(r, one[:0]) {
		for i := e[0] / d.cfg.ChunkSize; i <= (e[1]-1)/d.cfg.ChunkSize; i++ {
			if d.chunks[i].Load() == nil && !slices.Contains(chunks, i) {
				chunks = append(chunks, i)
			}
		}
	}
	return chunks
}

func (d *Disk) hasRoom(r *virstor.Request) bool {
	missing := d.missing(r)
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.cfg.Capacity == 0 || d.allocated+len(missing) <= d.cfg.Capacity
}

// allocate allocates what r touches, all or nothing. If there is no room it
// reports false, and sets r.Err unless r is to be held.
func (d *Disk) allocate(r *virstor.Request) bool {
	missing := d.missing(r)
	d.mu.Lock()
	defer d.mu.Unlock()
	missing = slices.DeleteFunc(missing, func(i int64) bool { return d.chunks[i].Load() != nil })
	if d.cfg.Capacity > 0 && d.allocated+len(missing) > d.cfg.Capacity {
		if !d.cfg.Hold {
			r.Err = virstor.ErrNoSpace
		}
		return false
	}
	for _, i := range missing {
		d.chunks[i].Store(&chunk{data: make([]byte, d.cfg.ChunkSize)})
		d.allocated++
	}
	return true
}
