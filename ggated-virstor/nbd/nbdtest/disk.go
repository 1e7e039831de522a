// Package nbdtest is a disk in memory for tests of the NBD server: thin, with
// a capacity that can run out, and with requests that complete at once or later
// and in any order.
package nbdtest

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"

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

	queue struct {
		sync.Mutex
		sync.Cond
		requests []*virstor.Request
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
	held := d.takeHeldLocked()
	d.mu.Unlock()
	for _, r := range held {
		if n, ok := r.Done.(virstor.ResumeNotifier); ok {
			n.Resumed(r)
		}
		d.finish(r)
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
	d.queue.requests = append(d.queue.requests, r)
	d.queue.Signal()
	d.queue.Unlock()
}

// work carries out requests in random order.
func (d *Disk) work() {
	q := &d.queue
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
		i := rand.IntN(n)
		r := q.requests[i]
		q.requests[i], q.requests[n-1] = q.requests[n-1], nil
		q.requests = q.requests[:n-1]
		q.Unlock()
		d.finish(r)
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
			return r.Err == nil
		}
	}
	size := d.cfg.ChunkSize
	for done := int64(0); done < r.Length; {
		off := r.Offset + done
		within := off % size
		n := min(r.Length-done, size-within)
		d.piece(r, &d.chunks[off/size], within, done, n)
		done += n
	}
	return false
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
		c.mu.RLock()
		copy(p, c.data[within:])
		c.mu.RUnlock()
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

func (d *Disk) free(at *atomic.Pointer[chunk]) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if at.Swap(nil) != nil {
		d.allocated--
	}
}

// allocate allocates what r touches, all or nothing. If there is no room it
// holds r, or sets r.Err.
func (d *Disk) allocate(r *virstor.Request) bool {
	first, last := r.Offset/d.cfg.ChunkSize, (r.Offset+r.Length-1)/d.cfg.ChunkSize
	missing := 0
	for i := first; i <= last; i++ {
		if d.chunks[i].Load() == nil {
			missing++
		}
	}
	if missing == 0 {
		return true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	missing = 0
	for i := first; i <= last; i++ {
		if d.chunks[i].Load() == nil {
			missing++
		}
	}
	if d.cfg.Capacity > 0 && d.allocated+missing > d.cfg.Capacity {
		if !d.cfg.Hold {
			r.Err = virstor.ErrNoSpace
			return false
		}
		if n, ok := r.Done.(virstor.HeldNotifier); ok {
			n.Held(r)
		}
		d.held = append(d.held, r)
		d.heldBytes += r.Length
		if d.heldFull == nil && d.heldBytes >= d.cfg.HeldLimit {
			d.heldFull = make(chan struct{})
		}
		return false
	}
	for i := first; i <= last; i++ {
		if d.chunks[i].Load() == nil {
			d.chunks[i].Store(&chunk{data: make([]byte, d.cfg.ChunkSize)})
			d.allocated++
		}
	}
	return true
}
