package virstor

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/chunkmap"
)

// commitStep is one step of a commit.
type commitStep struct {
	name string
	do   func(*committer)
}

// commitOrder is the commit order: what is done with a batch, each step after the one
// before has ended. The crash tests leave steps out, swap them and put others between
// them, and must notice each time.
func commitOrder() []commitStep {
	return []commitStep{
		// 1. A map sector that may not hold what it should is written again first. Until
		//    that succeeds no chunk may be given out.
		{"mend", (*committer).mend},
		// 2. A request gets all chunks that it needs, or none and is held or fails:
		//    requests that each have a part would wait for each other.
		{"assign", (*committer).assign},
		// 3. Data goes to the new chunks, and zeros where there is none: a chunk must not
		//    show what the disk held before. No map names them yet, so that a crash or an
		//    error leaves nothing behind.
		{"data", (*committer).writeData},
		// 4. Each component with new chunks is flushed. The map could otherwise survive a
		//    loss of power that takes the data of a chunk that it names.
		{"flush", (*committer).flushData},
		// 5. The sectors with changes are written, once each, as memory has them and with
		//    the changes of this batch whose data is flushed: never with a neighbour's that
		//    is still on its way.
		{"map", (*committer).writeMap},
		// 6. Memory follows the disk, so that who looks at the map finds nothing that a
		//    death of the process would take back. Chunks that were freed wait for the
		//    flush that makes it durable.
		{"publish", (*committer).publish},
		// 7. Whoever is told finds the batch counted.
		{"count", (*committer).count},
		// 8. What is acknowledged is found again when the process dies; that power was
		//    not lost is for a flush to promise.
		{"acknowledge", (*committer).acknowledge},
		// 9. Nobody waits for events.
		{"tell", (*committer).tell},
	}
}

// run does one batch.
func (k *committer) run() {
	k.running.Lock()
	defer k.running.Unlock()
	for _, step := range k.steps {
		step.do(k)
	}
}

// mend writes the map sectors in doubt again, if there are any.
func (k *committer) mend() {
	if k.degrade.is() {
		k.repair()
	}
}

// count adds the batch to the statistics.
func (k *committer) count() {
	v, n := k.v, uint64(len(k.batch.chunks))
	v.stats.commits.Add(1)
	v.stats.committed.Add(n)
	if n > 0 {
		v.stats.commitSizes.add(n)
	}
}

// assign gives chunks to the requests of the batch, all that a request needs or
// none, and decides which of their data is written here.
func (k *committer) assign() {
	b := &k.batch
	waiting := !k.h.held.empty()
	kept := b.reqs[:0]
	for i, r := range b.reqs {
		goesOn := false
		if goesOn, waiting = k.place(r, i < b.held, waiting); goesOn {
			kept = append(kept, r)
		}
	}
	clear(b.reqs[len(kept):])
	b.reqs = kept
}

// place gives r the chunks that it needs. If it does not go on with the batch,
// it was answered or is held. waiting, before and after: a write that came
// earlier waits for space. again: r was held.
func (k *committer) place(r *Request, again, waiting bool) (goesOn, waits bool) {
	v, b := k.v, &k.batch
	if r.Offset+r.Length > k.h.Size() {
		k.end(r, fmt.Errorf("%s at %d of %s, which has shrunk: %w", r.Op, r.Offset, k.h.Name(), ErrRange))
		return false, waiting
	}
	if again {
		k.h.held.learn(r)
	} else if r.req.noRoom != nil {
		return false, k.storageFull(r) || waiting
	}
	k.findMissing(r)
	if len(b.missing) > 0 {
		if err := k.h.refusal(deedAllocate); err != nil {
			k.end(r, fmt.Errorf("write to %s: %w", k.h.Name(), err))
			return false, waiting
		}
	}
	if k.overQuota() {
		k.end(r, fmt.Errorf("write %d bytes to %s at %d: %w", r.Length, k.h.Name(), r.Offset, ErrQuota))
		return false, waiting
	}
	if again && len(b.missing) > 0 && k.probing() {
		return false, k.storageFull(r) || waiting
	}
	room := len(b.missing) == 0 || !waiting && (!again || int64(len(b.missing)) <= v.alloc.Available())
	if room && again {
		if !mayResume(r) {
			return false, k.hold(r, r.req.held.why) && len(b.missing) > 0 || waiting
		}
		k.h.held.learn(r) // for the last time
		k.findMissing(r)
	}
	if room && !k.lockShared(r) {
		return false, waiting
	}
	if room && len(b.missing) > 0 {
		b.taken, room = v.alloc.Take(b.taken[:0], len(b.missing), false)
	}
	if !room {
		k.unlockShared()
		return false, k.noSpace(r) || waiting
	}
	if again {
		k.h.held.leave(r)
	}
	for i, vc := range b.missing {
		b.add(vc, b.taken[i])
	}
	k.copyShared()
	k.cover(r)
	return true, waiting
}

// lockShared takes those of the missing chunks that have a mapping, which a snapshot has
// too, so that they get another; they are read meanwhile. It reports false when somebody
// else has one of them, for which r then waits.
func (k *committer) lockShared(r *Request) bool {
	v, b := k.v, &k.batch
	b.shared = b.shared[:0]
	for _, vc := range b.missing {
		if !k.h.chunks.Load(vc).Allocated() {
			continue
		}
		ph, state := k.h.chunks.TryLock(vc)
		if state != chunkmap.Pinned {
			k.unlockShared()
			k.h.held.leave(r)
			if !k.h.park(vc, r) {
				v.workers.put(r)
			}
			return false
		}
		k.h.chunks.Show(vc, chunkmap.WordOf(ph))
		b.shared = append(b.shared, mapping{vc, ph})
	}
	return true
}

// unlockShared undoes lockShared.
func (k *committer) unlockShared() {
	for _, m := range k.batch.shared {
		k.h.chunks.Unlock(m.vc, chunkmap.WordOf(m.at))
	}
	k.batch.shared = k.batch.shared[:0]
}

// copyShared notes what the new chunks for those that lockShared took are copies of.
func (k *committer) copyShared() {
	for _, m := range k.batch.shared {
		c := &k.batch.chunks[k.batch.index[m.vc]]
		c.copies, c.from = true, m.at
	}
	k.batch.shared = k.batch.shared[:0]
}

// zeroesReach is for how many bytes one commit gives chunks to zeros that are to stay.
// Their range may be all of a volume: the rest follows, chunk by chunk as far as space
// goes.
const zeroesReach = 4 << 30

// findMissing fills missing with the chunks that r needs and nobody has, and those that a
// snapshot has too.
func (k *committer) findMissing(r *Request) {
	v, b := k.v, &k.batch
	b.missing, b.reach = b.missing[:0], r.Offset+r.Length
	if r.req.own {
		vc := uint64(v.chunkOf(r.Offset + r.req.progress))
		if _, ours := b.index[vc]; !ours && k.h.chunks.Load(vc).Allocated() && k.isNamed(vc) {
			b.missing = append(b.missing, vc)
		}
	}
	if r.req.discards {
		return
	}
	most := int(max(1, v.zeroesReach/v.chunk))
	next := uint64(0) // a chunk may have two ranges of r
	for from, to := r.ahead(r.Offset + r.req.progress); from < to; from, to = r.ahead(to) {
		for next = max(next, uint64(from/v.chunk)); next <= uint64((to-1)/v.chunk); next++ {
			if _, ours := b.index[next]; ours || k.h.chunks.Load(next).Allocated() && !k.isNamed(next) {
				continue
			}
			if b.missing = append(b.missing, next); len(b.missing) == most && r.Op == OpWriteZeroes {
				b.reach = min(b.reach, int64(next+1)*v.chunk)
				return
			}
		}
	}
}

// isNamed reports whether a snapshot names the physical chunk of vc, which has one. If
// none does the chunk is not shared any more.
func (k *committer) isNamed(vc uint64) bool {
	if !k.h.isShared(vc) {
		return false
	}
	if k.h.chunks.IsNamed(vc, k.h.chunks.Load(vc)) {
		return true
	}
	k.h.chunks.Unshare(vc)
	return false
}

// cover notes which new chunks r uses. Its data is written with the batch as far
// as it goes through new chunks without a break; from there on, the
// request goes on when they are allocated.
func (k *committer) cover(r *Request) {
	v, b := k.v, &k.batch
	start := r.Offset + r.req.progress
	with := v.aligned(start, r.Offset+r.Length-start)
	r.req.commit, r.req.failed, r.req.noRoom = r.req.progress, nil, nil
	if r.req.own {
		r.req.own = false
		if i, ours := b.index[uint64(v.chunkOf(start))]; ours {
			b.chunks[i].pieces = append(b.chunks[i].pieces, newPiece{req: r})
		}
	}
	if r.req.discards {
		return
	}
	for off, to := r.ahead(start); off < to && off < b.reach; {
		pc := v.pieceAt(off, to)
		i, ours := b.index[pc.vc]
		with = with && ours && v.aligned(off, pc.n)
		if ours {
			p := newPiece{req: r, in: pc.in, n: pc.n, data: with}
			if with && r.Op == OpWrite {
				p.buf = r.Data[off-r.Offset:][:pc.n]
			}
			b.chunks[i].pieces = append(b.chunks[i].pieces, p)
		}
		off += pc.n
		if with {
			r.req.commit = off - r.Offset
		}
		if off == to {
			off, to = r.ahead(off)
		}
	}
	if with && b.reach == r.Offset+r.Length {
		r.req.commit = r.Length
	}
}

// noSpace holds or fails a write that finds no chunk, and reports whether it holds.
func (k *committer) noSpace(r *Request) bool {
	v := k.v
	if k.noRoom != nil && v.holdsFor(k.noRoom) && int64(len(k.batch.missing)) <= v.alloc.Available() {
		return k.storageFull(r) // behind those that wait for room, not for chunks
	}
	soon := v.freed.comeSoon()
	if soon {
		// Freed chunks become usable when component 0 is flushed.
		v.workers.put(&v.flushSoon)
	}
	news := !soon && !k.full
	k.full = k.full || news
	holds := v.full.Load().policy != Fail || soon
	if holds {
		holds = k.hold(r, ErrNoSpace)
	} else {
		k.end(r, fmt.Errorf("write %d bytes to %s at %d: %w", r.Length, k.h.Name(), r.Offset, ErrNoSpace))
	}
	if news { // who looks then finds r counted
		v.emit(Event{Kind: EventFull})
	}
	return holds
}

// end completes r, which was held or was to be.
func (k *committer) end(r *Request, err error) {
	k.h.held.leave(r)
	k.h.finish(r, err)
}

// hold holds a write for the reason why, or fails it if that may not be, and reports whether it holds.
func (k *committer) hold(r *Request, why error) bool {
	r.req.held.why = why
	k.h.leaveWrites(r) // first: who has admitted it may end it
	if err := k.h.held.admit(r); err != nil {
		k.end(r, fmt.Errorf("hold a write of %d bytes to %s at %d: %w", r.Length, k.h.Name(), r.Offset, err))
		return false
	}
	if !k.h.ill.allows(deedHold) {
		k.h.FailHeld() // Close may have been here before r was
	}
	return true
}

// writeData writes the data and zeros of the new chunks, side by side.
func (k *committer) writeData() {
	v, b := k.v, &k.batch
	for i := range b.chunks {
		b.chunks[i].v = v
	}
	if len(b.chunks) == 1 || v.cfg.serial {
		for i := range b.chunks {
			b.chunks[i].err = b.chunks[i].write()
		}
	} else if len(b.chunks) > 1 {
		for i := range b.chunks {
			c := &b.chunks[i]
			c.wg = &b.wg
			b.wg.Add(1)
			v.writers.put(c)
		}
		b.wg.Wait()
	}
	k.failChunks()
	for _, r := range b.reqs {
		if isStorageFull(r.req.failed) { // and not the map's sector, which is another matter
			r.req.noRoom = r.req.failed
		}
	}
}

// failChunks fails the requests of failed chunks, and drops the chunks that no
// request needs any more.
func (k *committer) failChunks() {
	b := &k.batch
	for i := range b.chunks {
		if c := &b.chunks[i]; c.err != nil {
			for _, p := range c.pieces {
				if p.req.req.failed == nil {
					p.req.req.failed = c.err
				}
			}
		}
	}
	for i := range b.chunks {
		c := &b.chunks[i]
		if c.err == nil && !slices.ContainsFunc(c.pieces, func(p newPiece) bool { return p.req.req.failed == nil }) {
			c.err = errUnwanted
		}
	}
}

// flushData flushes each component that got new chunks.
func (k *committer) flushData() {
	v, b := k.v, &k.batch
	b.touched = b.touched[:0]
	for i := range b.chunks {
		c := &b.chunks[i]
		if comp := v.component(c.to.Comp); c.err == nil && !slices.Contains(b.touched, comp) {
			b.touched = append(b.touched, comp)
		}
	}
	if len(b.touched) == 0 {
		return
	}
	if v.flushComponents(b.touched) == nil {
		return
	}
	for i := range b.chunks {
		c := &b.chunks[i]
		if err := v.component(c.to.Comp).failedFlush(); err != nil && c.err == nil {
			c.err = err
			// Nothing written there can be proved to be there: use it no more.
			v.alloc.SetBar(c.to.Comp, alloc.BarFailed, true)
			v.emit(Event{Kind: EventComponentFailed, Component: int(c.to.Comp), Err: err})
		}
	}
	k.failChunks()
}

// acknowledge completes the requests that are done and sends on or holds the others.
func (k *committer) acknowledge() {
	v, b := k.v, &k.batch
	k.seeRoom()
	for i, r := range b.reqs {
		b.reqs[i] = nil
		if r.req.noRoom != nil {
			k.storageFull(r)
			continue
		}
		if err := r.req.failed; err != nil {
			k.h.finish(r, err)
			continue
		}
		r.req.progress = r.req.commit
		if r.req.progress == r.Length && r.Flags&FUA == 0 {
			k.h.finish(r, nil)
			continue
		}
		v.workers.put(r)
	}
	b.reqs = b.reqs[:0]
}

// tell emits the events of what the batch changed.
func (k *committer) tell() {
	v, b := k.v, &k.batch
	if len(b.chunks) == 0 && len(b.ops) == 0 {
		return
	}
	for i := range b.chunks {
		c := int(b.chunks[i].to.Comp)
		if v.cfg.Alloc == Fill && k.lastComp >= 0 && c > k.lastComp {
			v.emit(Event{Kind: EventComponentSwitch, Component: c})
		}
		k.lastComp = c
	}
	if k.full && k.h.held.empty() && v.alloc.Available() > 0 {
		k.full = false
		v.emit(Event{Kind: EventSpace})
	}
	v.emit(Event{Kind: EventAllocated})
}

// errUnwanted marks a new chunk whose every request failed elsewhere.
var errUnwanted = errors.New("no request needs the chunk any more")

// batch is one group commit. Its slices are kept from batch to batch.
type batch struct {
	reqs    []*Request
	held    int // of these, the first ones: they were held, and are tried again
	ops     []*opGroup
	chunks  []newChunk
	index   map[uint64]int // virtual chunk → chunks
	missing []uint64
	reach   int64 // the end of what is done of the request in this commit
	taken   []alloc.Grant
	shared  []mapping // of missing, what has a mapping; locked
	touched []*component
	changes []mapChange
	wg      sync.WaitGroup
}

// mapChange is one entry of the map to be written. err is where failure goes.
type mapChange struct {
	vc   uint64
	word chunkmap.Word
	err  *error
}

// newChunk is a chunk that the batch allocates.
type newChunk struct {
	v      *Volume
	vc     uint64
	to     alloc.Phys
	zeroed bool // it reads as zeros already
	copies bool // it takes the place of from, which is locked, and holds what that does where it is not written
	from   alloc.Phys
	pieces []newPiece
	gaps   []extent
	err    error
	wg     *sync.WaitGroup
}

// newPiece is what one request wants of a new chunk. Without data the request
// only needs the chunk to be there.
type newPiece struct {
	req   *Request
	in, n int64
	data  bool
	buf   []byte // nil: zeros
}

// extent is the range [from, to) of a chunk.
type extent struct{ from, to int64 }

func (b *batch) reset() {
	if b.index == nil {
		b.index = make(map[uint64]int)
	}
	for i := range b.chunks {
		c := &b.chunks[i]
		clear(c.pieces)
		*c = newChunk{pieces: c.pieces[:0], gaps: c.gaps[:0]}
	}
	clear(b.reqs)
	clear(b.ops)
	clear(b.index)
	b.held = 0
	b.reqs, b.ops, b.chunks = b.reqs[:0], b.ops[:0], b.chunks[:0]
}

// add appends a new chunk, reusing what an earlier batch left there.
func (b *batch) add(vc uint64, to alloc.Grant) {
	b.index[vc] = len(b.chunks)
	if len(b.chunks) < cap(b.chunks) {
		b.chunks = b.chunks[:len(b.chunks)+1]
	} else {
		b.chunks = append(b.chunks, newChunk{})
	}
	c := &b.chunks[len(b.chunks)-1]
	c.vc, c.to, c.zeroed, c.copies, c.err = vc, to.At, to.Zeroed, false, nil
}

func (c *newChunk) perform() {
	c.err = c.write()
	c.wg.Done()
}

// write puts the data of all requests into the chunk, in their order, and where there is
// none zeros, or what it copies.
func (c *newChunk) write() error {
	comp := c.v.component(c.to.Comp)
	base := comp.offset(c.to.Chunk)
	if c.copies {
		if err := c.copyGaps(); err != nil {
			return err
		}
	} else if c.v.cfg.Zero == ZeroAuto && !c.zeroed {
		c.findGaps(c.v.chunk)
		for _, g := range c.gaps {
			if err := comp.clear(base+g.from, g.to-g.from, c.v.zeros); err != nil {
				return err
			}
		}
	}
	for _, p := range c.pieces {
		if !p.data {
			continue
		}
		var err error
		if p.buf == nil {
			err = comp.writeZeros(base+p.in, p.n, c.v.zeros)
		} else {
			err = comp.writeAt(p.buf, base+p.in)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// copyGaps copies what no piece covers.
func (c *newChunk) copyGaps() error {
	buf := c.v.copies.Get().(*[]byte)
	defer c.v.copies.Put(buf)
	c.findGaps(c.v.chunk)
	for _, g := range c.gaps {
		if err := c.v.copyRange(c.from, c.to, g, *buf); err != nil {
			return err
		}
	}
	return nil
}

// findGaps fills gaps with what no piece covers.
func (c *newChunk) findGaps(size int64) {
	c.gaps = c.gaps[:0]
	for _, p := range c.pieces {
		if p.data {
			c.gaps = append(c.gaps, extent{p.in, p.in + p.n})
		}
	}
	covered := c.gaps
	slices.SortFunc(covered, func(a, b extent) int { return cmp.Compare(a.from, b.from) })
	// Gap i lies before the end of covered extent i, so the gaps can take the
	// place of the extents that were read.
	at, n := int64(0), 0
	for _, e := range covered {
		if e.from > at {
			gap := extent{at, e.from}
			at = max(at, e.to)
			covered[n] = gap
			n++
			continue
		}
		at = max(at, e.to)
	}
	c.gaps = covered[:n]
	if at < size {
		c.gaps = append(c.gaps, extent{at, size})
	}
}
