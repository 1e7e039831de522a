package virstor

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/gvirstor/gvirstor/ondisk"
)

// committer is the one goroutine that assigns chunks and writes map sectors.
// It takes all that waits and does it as one group: data and zeros are
// written side by side, each component is flushed once, each map sector
// is written once.
type committer struct {
	v *Volume

	mu       sync.Mutex
	queue    []*Request
	ops      []*opGroup
	retry    bool // space may have appeared, or the map may be writable again
	lost     bool // component 0 failed a flush: unflushed map sectors are in doubt
	stopping bool
	wake     chan struct{} // capacity 1
	done     chan struct{}

	// running is held while the map changes; pause takes it.
	running sync.Mutex

	// The rest belongs to the goroutine.
	batch     batch
	degrade   degraded
	mapBuf    []byte
	unflushed map[int64]struct{} // map sectors that may not be durable
	full      bool               // EventFull was the last word
	lastComp  int
	freedAt   time.Time // when a chunk was freed that nobody has been asked to flush for; zero: none

	// frozen: component 0 may not be written until the volume is reopened. It
	// is set with running and Volume.metaMu held, and read with either.
	frozen error
}

// mapOp changes the mapping of one chunk, which is locked by whoever asks.
// The committer unlocks it.
type mapOp struct {
	vc   uint64
	old  phys
	new  phys
	set  bool // map to new; otherwise unmap
	same bool // new is the same place under another component index

	begun bool  // its sector was to be written: after an error it may hold either
	err   error // of its sector alone
}

func (o *mapOp) word() uint64 {
	if o.set {
		return wordOf(o.new)
	}
	return 0
}

// opGroup is the mapOps of one caller, done in one batch. If their sectors are
// not all written, each is done that was.
type opGroup struct {
	ops  []mapOp
	err  error // the first failure
	done chan struct{}
}

func newCommitter(v *Volume) *committer {
	return &committer{
		v:         v,
		wake:      make(chan struct{}, 1),
		done:      make(chan struct{}),
		mapBuf:    make([]byte, min(1<<20, v.component(0).meta().MapBytes())),
		unflushed: make(map[int64]struct{}),
		lastComp:  -1,
	}
}

// put queues a write that needs a chunk.
func (k *committer) put(r *Request) {
	k.mu.Lock()
	k.queue = append(k.queue, r)
	k.mu.Unlock()
	k.signal()
}

// commit does ops and waits for it. After an error some may be done; in memory
// and on disk they are the same ones. It must not be called by a worker that the
// committer needs, which are those of Volume.writers.
func (k *committer) commit(ops []mapOp) error {
	g := &opGroup{ops: ops, done: make(chan struct{})}
	k.mu.Lock()
	k.ops = append(k.ops, g)
	k.mu.Unlock()
	k.signal()
	if k.v.cfg.serial {
		k.doOne()
	}
	<-g.done
	return g.err
}

// kick tells that space may have appeared.
func (k *committer) kick() {
	k.mu.Lock()
	k.retry = true
	k.mu.Unlock()
	k.signal()
}

// mapLost tells that a flush of component 0 failed. With it went the hope of
// writes that wait only for chunks which that flush was to free.
func (k *committer) mapLost() {
	k.mu.Lock()
	k.lost = true
	k.retry = k.retry || k.v.full.Load().policy == Fail
	k.mu.Unlock()
	k.signal()
}

func (k *committer) signal() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// stop ends the goroutine. Nothing may be queued any more.
func (k *committer) stop() {
	k.mu.Lock()
	k.stopping = true
	k.mu.Unlock()
	k.signal()
	<-k.done
}

const (
	degradedRetry = time.Second
	freedWait     = time.Second // until freed chunks are flushed for unasked
	batchRequests = 1024
	batchBytes    = 64 << 20
)

// loop is the committer.
func (k *committer) loop() {
	defer close(k.done)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		more, ok := k.next()
		if !ok {
			return
		}
		if !more {
			k.arm(timer)
			select {
			case <-k.wake:
			case <-timer.C:
				k.expire()
			}
			continue
		}
		k.run()
	}
}

// arm sets timer to when something has to be looked at unasked.
func (k *committer) arm(timer *time.Timer) {
	wait := time.Hour
	if k.degrade.is() {
		wait = degradedRetry
	}
	if t := k.v.full.Load().timeout; t > 0 {
		if h := k.v.held.status(); h.Count > 0 {
			wait = min(wait, max(0, t-h.Oldest))
		}
	}
	if !k.freedAt.IsZero() {
		wait = min(wait, max(0, time.Until(k.freedAt.Add(freedWait))))
	}
	timer.Reset(wait)
}

// expire fails what was held too long, lets a degraded map be tried again, and
// flushes for chunks that were freed, so that what clients who ask for no
// flush give up comes back as well.
func (k *committer) expire() {
	if !k.freedAt.IsZero() && time.Since(k.freedAt) >= freedWait {
		k.freedAt = time.Time{}
		k.v.workers.put(&k.v.flushSoon)
	}
	if t := k.v.full.Load().timeout; t > 0 {
		for _, r := range k.v.held.takeExpired(nil, time.Now().Add(-t)) {
			k.v.finish(r, fmt.Errorf("write to %s held for %s: %w", k.v.name, t, ErrNoSpace))
		}
	}
	if k.degrade.is() {
		k.running.Lock()
		defer k.running.Unlock()
		k.repair()
	}
}

// next fills the batch with what waits. more is false when nothing does, ok
// when the committer is to end.
func (k *committer) next() (more, ok bool) {
	b := &k.batch
	b.reset()
	k.mu.Lock()
	retry, lost := k.retry, k.lost
	k.retry, k.lost = false, false
	if k.stopping && len(k.queue) == 0 && len(k.ops) == 0 {
		k.mu.Unlock()
		return false, false
	}
	if retry {
		b.reqs = k.v.held.takeAll(b.reqs)
	}
	held := len(b.reqs)
	n, bytes := 0, 0
	for n < len(k.queue) && n < batchRequests && bytes < batchBytes {
		bytes += len(k.queue[n].Data)
		n++
	}
	b.reqs = append(b.reqs, k.queue[:n]...)
	k.queue = slices.Delete(k.queue, 0, n)
	b.ops = append(b.ops, k.ops...)
	clear(k.ops)
	k.ops = k.ops[:0]
	k.mu.Unlock()
	tellResumed(b.reqs[:held])
	if lost {
		k.doubtUnflushed()
	}
	return len(b.reqs)+len(b.ops) > 0, true
}

// pause keeps the map as it is, on disk and in memory, until unpause.
func (k *committer) pause()   { k.running.Lock() }
func (k *committer) unpause() { k.running.Unlock() }

// run does one batch. This is the commit order.
func (k *committer) run() {
	k.running.Lock()
	defer k.running.Unlock()
	v, b := k.v, &k.batch
	if k.degrade.is() {
		k.repair()
	}
	k.assign()
	switch {
	case v.cfg.breaks(breakMapFirst):
		k.writeMap()
		k.writeData()
		k.flushData()
	case v.cfg.breaks(breakEarlyAck):
		k.writeData()
		k.flushData()
		k.acknowledge()
		for i := range b.chunks {
			b.chunks[i].pieces = b.chunks[i].pieces[:0]
		}
		k.writeMap()
	default:
		k.writeData()
		k.flushData()
		k.writeMap()
	}
	k.publish()
	k.acknowledge()
	v.stats.commits.Add(1)
	v.stats.committed.Add(uint64(len(b.chunks)))
	if len(b.chunks) > 0 {
		v.commitSizes.add(uint64(len(b.chunks)))
	}
	k.events()
}

// assign gives chunks to the requests of the batch, all that a request needs or
// none, and decides which of their data is written here.
func (k *committer) assign() {
	v, b := k.v, &k.batch
	waiting := !v.held.empty()
	kept := b.reqs[:0]
	for _, r := range b.reqs {
		off, end := r.Offset+r.req.progress, r.Offset+r.Length
		if end > v.Size() {
			v.finish(r, fmt.Errorf("%s at %d of %s, which has shrunk: %w", r.Op, r.Offset, v.name, ErrRange))
			continue
		}
		b.missing = b.missing[:0]
		for vc := uint64(off / v.chunk); vc <= uint64((end-1)/v.chunk); vc++ {
			if _, ours := b.index[vc]; !ours && v.chunks.load(vc)&wordAlloc == 0 {
				b.missing = append(b.missing, vc)
			}
		}
		if len(b.missing) > 0 {
			if k.degrade.is() {
				v.finish(r, fmt.Errorf("write to %s: %w", v.name, ErrDegraded))
				continue
			}
			var ok bool
			if !waiting {
				b.taken, ok = v.alloc.take(b.taken[:0], len(b.missing), false)
			}
			if !ok {
				waiting = k.noSpace(r) || waiting
				continue
			}
			for i, vc := range b.missing {
				b.add(vc, b.taken[i])
			}
		}
		k.cover(r, off, end)
		kept = append(kept, r)
	}
	clear(b.reqs[len(kept):])
	b.reqs = kept
}

// cover notes which new chunks r uses. Its data is written with the batch as far
// as it goes through new chunks without a break; from there on, the
// request goes on when they are allocated.
func (k *committer) cover(r *Request, off, end int64) {
	v, b := k.v, &k.batch
	with := v.aligned(off, end-off)
	r.req.commit, r.req.failed = r.req.progress, nil
	for off < end {
		pc := v.pieceAt(off, end)
		i, ours := b.index[pc.vc]
		if !ours {
			with = false
		} else {
			p := newPiece{req: r, in: pc.in, n: pc.n, data: with}
			if with && r.Op == OpWrite {
				p.buf = r.Data[off-r.Offset:][:pc.n]
			}
			b.chunks[i].pieces = append(b.chunks[i].pieces, p)
			if with {
				r.req.commit += pc.n
			}
		}
		off += pc.n
	}
}

// noSpace holds or fails a write that finds no chunk, and reports whether it holds.
func (k *committer) noSpace(r *Request) bool {
	v := k.v
	soon := v.freed.pending() > 0 && v.component(0).failedFlush() == nil
	if soon {
		// Freed chunks become usable when component 0 is flushed.
		v.workers.put(&v.flushSoon)
	} else if !k.full {
		k.full = true
		v.emit(Event{Kind: EventFull})
	}
	if v.full.Load().policy == Fail && !soon {
		v.finish(r, fmt.Errorf("write %d bytes to %s at %d: %w", r.Length, v.name, r.Offset, ErrNoSpace))
		return false
	}
	if !v.held.admit(r) {
		v.finish(r, fmt.Errorf("write %d bytes to %s at %d, which already holds as much as it may: %w",
			r.Length, v.name, r.Offset, ErrNoSpace))
		return false
	}
	if v.closing.Load() {
		v.FailHeld() // Close may have been here before r was
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
	k.settle()
}

// settle fails the requests of failed chunks, and drops the chunks that no
// request needs any more.
func (k *committer) settle() {
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
	if v.cfg.breaks(breakDataFlush) {
		return
	}
	b.touched = b.touched[:0]
	for i := range b.chunks {
		c := &b.chunks[i]
		if comp := v.component(c.to.comp); c.err == nil && !slices.Contains(b.touched, comp) {
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
		if err := v.component(c.to.comp).failedFlush(); err != nil && c.err == nil {
			c.err = err
			// Nothing written there can be proved to be there: use it no more.
			v.alloc.setClosed(c.to.comp, true)
			v.emit(Event{Kind: EventComponentFailed, Component: int(c.to.comp), Err: err})
		}
	}
	k.settle()
}

// writeMap writes each map sector that changes.
func (k *committer) writeMap() {
	b := &k.batch
	b.changes = b.changes[:0]
	for i := range b.chunks {
		if c := &b.chunks[i]; c.err == nil {
			b.changes = append(b.changes, mapChange{vc: c.vc, word: wordOf(c.to), err: &c.err})
		}
	}
	degraded := k.degrade.is()
	for _, g := range b.ops {
		for i := range g.ops {
			o := &g.ops[i]
			if degraded {
				o.err = fmt.Errorf("change the map of %s: %w", k.v.name, ErrDegraded)
				continue
			}
			o.begun = true
			b.changes = append(b.changes, mapChange{vc: o.vc, word: o.word(), err: &o.err})
		}
	}
	slices.SortFunc(b.changes, func(x, y mapChange) int {
		switch {
		case x.vc < y.vc:
			return -1
		case x.vc > y.vc:
			return 1
		}
		return 0
	})
	per := uint64(k.v.sector / ondisk.EntrySize)
	most := uint64(len(k.mapBuf)) / uint64(k.v.sector)
	for rest := b.changes; len(rest) > 0; {
		// A run of map sectors that follow each other is one write.
		first := rest[0].vc / per
		last, n := first, 1
		for n < len(rest) && rest[n].vc/per <= last+1 && rest[n].vc/per-first < most {
			last = rest[n].vc / per
			n++
		}
		k.writeMapRun(first, last, rest[:n])
		rest = rest[n:]
	}
}

// writeMapRun writes the map sectors first to last with changes in them.
func (k *committer) writeMapRun(first, last uint64, changes []mapChange) {
	err := k.writeMapSectors(first, last, changes)
	if err == nil {
		return
	}
	for _, c := range changes {
		if *c.err == nil {
			*c.err = err
		}
	}
	for s := first; s <= last; s++ {
		k.degrade.add(int64(s))
	}
	k.v.isDegraded.Store(true)
	k.v.log.Error("allocation map not written: no chunk is allocated until it can be",
		"volume", k.v.name, "sectors", fmt.Sprintf("%d-%d", first, last), "error", err)
	k.v.emit(Event{Kind: EventDegraded, Err: err})
}

// writeMapSectors writes the sectors as published, with changes on top.
// What is assigned but not flushed is in neither.
func (k *committer) writeMapSectors(first, last uint64, changes []mapChange) error {
	v := k.v
	if k.frozen != nil {
		return k.frozen
	}
	per := uint64(v.sector / ondisk.EntrySize)
	buf := k.mapBuf[:int64(last-first+1)*v.sector]
	base := first * per
	for i := range (last - first + 1) * per {
		v.encodeEntry(buf[i*ondisk.EntrySize:], v.chunks.load(base+i))
	}
	if v.cfg.breaks(breakNeighbour) {
		for i := range k.batch.chunks {
			if c := &k.batch.chunks[i]; c.vc >= base && c.vc < base+(last-first+1)*per {
				v.encodeEntry(buf[(c.vc-base)*ondisk.EntrySize:], wordOf(c.to))
			}
		}
	}
	for _, c := range changes {
		v.encodeEntry(buf[(c.vc-base)*ondisk.EntrySize:], c.word)
	}
	if err := v.component(0).writeRaw(buf, int64(first)*v.sector); err != nil {
		return fmt.Errorf("write the allocation map: %w", err)
	}
	if written := v.mapWritten.Add(1); v.mapDurable.Load() == written-1 {
		clear(k.unflushed)
	}
	for s := first; s <= last; s++ {
		k.unflushed[int64(s)] = struct{}{}
	}
	v.stats.mapWrites.Add(1)
	return nil
}

// publish makes the new mappings visible, takes care of what failed, and
// unlocks the chunks of the map operations.
func (k *committer) publish() {
	v, b := k.v, &k.batch
	per := uint64(v.sector / ondisk.EntrySize)
	for i := range b.chunks {
		c := &b.chunks[i]
		switch {
		case c.err == nil:
			v.chunks.set(c.vc, c.to)
			v.stats.allocated.Add(1)
		case k.degrade.has(int64(c.vc / per)):
			// The sector may or may not hold it: keep off the chunk.
			k.degrade.keep(c.to)
		default:
			v.alloc.put(c.to)
		}
	}
	if len(b.chunks) > 0 {
		k.settle()
	}
	for _, g := range b.ops {
		for i := range g.ops {
			o := &g.ops[i]
			if g.err == nil {
				g.err = o.err
			}
			k.publishOp(o, o.begun && k.degrade.has(int64(o.vc/per)))
		}
		close(g.done)
	}
}

// publishOp ends one map operation, whatever became of others in its group.
// doubt: its sector was not written for sure, and may hold the old or the new
// entry.
func (k *committer) publishOp(o *mapOp, doubt bool) {
	v := k.v
	switch {
	case o.err == nil && o.set:
		v.chunks.unlock(o.vc, wordOf(o.new), v.resume)
		if !o.same {
			k.release(o.old)
		}
	case o.err == nil:
		v.partial.forget(o.vc)
		v.chunks.unlock(o.vc, 0, v.resume)
		v.stats.allocated.Add(-1)
		k.release(o.old)
	case !doubt:
		v.chunks.unlock(o.vc, wordOf(o.old), v.resume)
		if o.set && !o.same {
			v.alloc.put(o.new)
		}
	case o.set:
		// Writes acknowledged on either copy could come back as the other:
		// the chunk stays locked until its sector is known.
		if v.closing.Load() {
			k.letGo(*o)
			break
		}
		k.degrade.locked = append(k.degrade.locked, *o)
	default:
		v.partial.forget(o.vc)
		v.chunks.unlock(o.vc, 0, v.resume)
		v.stats.allocated.Add(-1)
		k.degrade.keep(o.old)
	}
}

// release lets a chunk go once its unmapping is durable.
func (k *committer) release(p phys) {
	if k.v.cfg.breaks(breakEarlyReuse) {
		k.v.alloc.put(p)
		return
	}
	k.v.freed.add(p)
	// A flush that began after the map was written but before add does not
	// know of p: let there be another.
	k.v.component(0).markDirty()
	if k.freedAt.IsZero() && !k.v.cfg.serial {
		k.freedAt = time.Now()
	}
}

// acknowledge completes the requests that are done and sends on the others.
func (k *committer) acknowledge() {
	v, b := k.v, &k.batch
	for i, r := range b.reqs {
		b.reqs[i] = nil
		if err := r.req.failed; err != nil {
			v.finish(r, err)
			continue
		}
		r.req.progress = r.req.commit
		if r.req.progress == r.Length && r.Flags&FUA == 0 {
			v.finish(r, nil)
			continue
		}
		v.workers.put(r)
	}
	b.reqs = b.reqs[:0]
}

// events tells of what the batch changed.
func (k *committer) events() {
	v, b := k.v, &k.batch
	if len(b.chunks) == 0 && len(b.ops) == 0 {
		return
	}
	for i := range b.chunks {
		c := int(b.chunks[i].to.comp)
		if v.cfg.Alloc == Fill && k.lastComp >= 0 && c > k.lastComp {
			v.emit(Event{Kind: EventComponentSwitch, Component: c})
		}
		k.lastComp = c
	}
	if k.full && v.held.empty() && v.alloc.available() > 0 {
		k.full = false
		v.emit(Event{Kind: EventSpace})
	}
	v.emit(Event{Kind: EventAllocated})
}
