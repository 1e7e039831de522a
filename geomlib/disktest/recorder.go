package disktest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"sync"
)

// Recorder keeps in one order what several disks did: writes, deletes and
// zeroings when reads began to see them, flushes when they ended. Position k is
// the instant before entry k. Its methods may be called by many goroutines at
// once.
type Recorder struct {
	mu    sync.Mutex
	log   []Op
	disks []*record
}

// record is what a Recorder knows of one disk.
type record struct {
	disk   *Disk
	ops    []Op // writes, deletes and zeroings, by Pos and by Seq
	points []point
}

// point is a moment from which on some requests are durable.
type point struct {
	pos     int // of the flush in the log
	covers  int // requests with a lower Seq are in durable
	durable contents
}

// Record makes a Recorder of the disks. What is in their caches is pending at
// every position until a flush.
func Record(disks ...*Disk) *Recorder {
	r := &Recorder{}
	for _, d := range disks {
		r.Attach(d)
	}
	return r
}

// Attach records d too, and returns its index. What is in d's cache is pending
// at every position until a flush, with -1 for its Pos.
func (r *Recorder) Attach(d *Disk) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.rec != nil {
		panic("disktest: " + d.name + " has a recorder already")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	d.rec, d.index = r, len(r.disks)
	cached := slices.Clone(d.pending)
	for i := range cached {
		cached[i].Seq, cached[i].Pos, cached[i].Disk = i, -1, d.index
	}
	d.pending, d.seq = slices.Clone(cached), len(cached)
	r.disks = append(r.disks, &record{disk: d, ops: cached, points: []point{{pos: -1, durable: d.durable.frozen()}}})
	return d.index
}

// Len is the number of entries, and the position of now.
func (r *Recorder) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.log)
}

// Log returns the entries so far. They must not be changed.
func (r *Recorder) Log() []Op {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log[:len(r.log):len(r.log)]
}

// Mark puts a remark into the log, such as that a request was acknowledged,
// and returns its position.
func (r *Recorder) Mark(remark any) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log = append(r.log, Op{Kind: Mark, Pos: len(r.log), Disk: -1, Remark: remark})
	return len(r.log) - 1
}

// append logs what disk did. The disk's lock is held.
func (r *Recorder) append(op Op, disk int) Op {
	r.mu.Lock()
	defer r.mu.Unlock()
	op.Pos, op.Disk = len(r.log), disk
	r.log = append(r.log, op)
	r.disks[disk].ops = append(r.disks[disk].ops, op)
	return op
}

// flushed logs a flush that left durable. The disk's lock is held.
func (r *Recorder) flushed(disk, covers int, durable contents) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := point{pos: len(r.log), covers: covers, durable: durable}
	r.log = append(r.log, Op{Kind: Flush, Pos: p.pos, Disk: disk, Covers: covers})
	r.disks[disk].points = append(r.disks[disk].points, p)
}

// at returns what is certain at position k, and what is pending.
func (rec *record) at(k int) (contents, []Op) {
	i := sort.Search(len(rec.points), func(i int) bool { return rec.points[i].pos >= k })
	p := rec.points[i-1]
	end := sort.Search(len(rec.ops), func(i int) bool { return rec.ops[i].Pos >= k })
	return p.durable, rec.ops[p.covers:end:end]
}

// Pending returns what the disk with that index had done at position k and not
// yet flushed: what a Pick chooses from.
func (r *Recorder) Pending(k, disk int) []Op {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mustHaveLocked(k)
	_, ops := r.disks[disk].at(k)
	return ops
}

// State returns disks of their own, in the order of their indexes, as they are
// after the power failed at position k: all that was flushed before, and of the
// rest what pick chooses. States share memory with each other.
func (r *Recorder) State(k int, pick Pick) []*Disk {
	views := r.views(k)
	states := make([]*Disk, len(views))
	for i, v := range views {
		states[i] = v.disk.like(lose(v.certain, v.ops, pick(i, v.ops), v.disk))
	}
	return states
}

// ProcessDeath returns disks as they are after the process died at position k:
// everything that reads had seen is there, what was in the caches still is in
// them, and a later loss of power may take it.
func (r *Recorder) ProcessDeath(k int) []*Disk {
	views := r.views(k)
	states := make([]*Disk, len(views))
	for i, v := range views {
		states[i] = v.disk.like(v.certain).withPending(v.ops)
	}
	return states
}

// ProcessDeathWithin is ProcessDeath in the midst of entry k of the log, a write, delete
// or zeroing of which part chooses what was done: bytes from its beginning, in
// whole sectors.
func (r *Recorder) ProcessDeathWithin(k int, part func(op Op) (from, to int64)) []*Disk {
	op := r.Log()[k]
	from, to := part(op)
	if from < 0 || from >= to || to > op.Len || (from|to)%op.Sector != 0 {
		panic(fmt.Sprintf("disktest: part %d to %d of %s", from, to, op))
	}
	if op.Kind == Write {
		op.Data = op.Data[from:to]
	}
	op.Off, op.Len = op.Off+from, to-from
	states := r.ProcessDeath(k)
	states[op.Disk].withPending([]Op{op})
	return states
}

// withPending does ops to d, which is new, and leaves them in its cache.
func (d *Disk) withPending(ops []Op) *Disk {
	for _, op := range ops {
		op.Seq = d.seq
		d.seq++
		d.now.apply(op, 0, op.Len)
		d.pending = append(d.pending, op)
	}
	return d
}

// view is what one disk's state is made of.
type view struct {
	disk    *Disk
	certain contents
	ops     []Op
}

func (r *Recorder) views(k int) []view {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mustHaveLocked(k)
	views := make([]view, len(r.disks))
	for i, rec := range r.disks {
		views[i].disk = rec.disk
		views[i].certain, views[i].ops = rec.at(k)
	}
	return views
}

// mustHaveLocked: r.mu is held.
func (r *Recorder) mustHaveLocked(k int) {
	if n := len(r.log); k < 0 || k > n {
		panic(fmt.Sprintf("disktest: position %d of %d", k, n))
	}
}

// Crash returns a disk of its own as d could be after a loss of power now.
func (d *Disk) Crash(rng *rand.Rand) *Disk {
	d.mu.Lock()
	certain, ops := d.durable.frozen(), slices.Clone(d.pending)
	d.mu.Unlock()
	return d.like(lose(certain, ops, Random(rng)(0, ops), d))
}

// lose returns what of certain and the chosen parts of ops is left.
func lose(certain contents, ops []Op, chosen []Part, d *Disk) contents {
	if len(chosen) == 0 {
		return certain
	}
	left := certain.fork()
	for _, c := range chosen {
		op := ops[c.Index]
		to := c.To
		if to == 0 {
			to = op.Len
		}
		d.mustFit(Op{Kind: op.Kind, Off: op.Off + c.From, Len: to - c.From})
		if to > op.Len {
			panic(fmt.Sprintf("disktest: part %d to %d of %s", c.From, to, op))
		}
		left.apply(op, c.From, to)
	}
	return left.frozen()
}
