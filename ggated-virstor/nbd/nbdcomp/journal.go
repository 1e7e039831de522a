package nbdcomp

import "hash/crc32"

// kind is what a change does.
type kind uint8

const (
	kindWrite kind = iota
	kindZero
	kindTrim
)

// entry is a change that was sent, or is about to be, and that the server may still lose.
// It is on its way until it has an answer.
type entry struct {
	kind   kind
	sent   bool
	owned  bool // whoever began it looks at it still
	out    bool // of the journal
	void   bool // the server refused it: it is not done again, and goes when all have been
	off, n int64
	data   [2][]byte // of a write, in the slabs
	sum    uint32    // checksum of data
	answer uint64    // when its answer came, by journal.clock; 0: not yet
	err    error     // what the server said when it was done again
	flight int       // its place in journal.flying, or -1

	at         int64 // where its data begins in the journal's bytes
	prev, next *entry
}

// overlaps reports whether e changes anything of [off, off+n).
func (e *entry) overlaps(off, n int64) bool { return e.off < off+n && off < e.off+e.n }

// fill takes b as the data of a write.
func (e *entry) fill(b []byte, table *crc32.Table) {
	for _, part := range e.data {
		n := copy(part, b)
		e.sum, b = crc32.Update(e.sum, table, part), b[n:]
	}
}

// journal is what was sent since the last flush, in the order of sending, with the data:
// a server that comes back may have lost it. What overlaps is never on its way at the same
// time, so that this is the order on the disk, too. A change goes when a flush that was
// sent after its answer has succeeded.
//
//	first ──► entry ──► entry ──► … ──► last       flying: those without an answer
//	slabs     [base ……………………………………… end)         their data, one after the other
//
// It is guarded by provider.mu, but for the data of an entry.
type journal struct {
	memory *Memory
	limit  int64 // bytes of data

	first, last *entry
	unused      *entry
	count       int // entries
	answered    int // of them
	flying      []*entry
	slabs       [][]byte
	base, end   int64
	fresh       int64  // bytes of data that came since the last flush was begun
	clock       uint64 // of answers
}

// filling reports whether it is time for a flush beside the writes, so that none of them
// has to wait for one, and few pages of memory are used again and again.
func (j *journal) filling() bool { return j.fresh >= j.limit/4 && j.answered > 0 }

const (
	// slabSize is how much memory is taken at a time, bytes. A write lies in two slabs at
	// most.
	slabSize = writeMax
	// maxEntries bounds changes that have no data, too. So many are made at a time:
	maxEntries, someEntries = 64 << 10, 64
)

// add begins a change, or returns nil where there is no room for it. An empty journal has
// room for any.
func (j *journal) add(k kind, off, n int64) *entry {
	var data int64
	if k == kindWrite {
		data = n
	}
	if j.first != nil && (j.count >= maxEntries || j.end+data-j.base > j.limit) {
		return nil
	}
	for j.base+int64(len(j.slabs))*slabSize < j.end+data {
		slab := j.memory.take(j.first == nil)
		if slab == nil {
			return nil
		}
		j.slabs = append(j.slabs, slab)
	}
	j.fresh += data
	e := j.entry()
	*e = entry{kind: k, off: off, n: n, owned: true, at: j.end, flight: len(j.flying), prev: j.last}
	for i := range e.data {
		if data == 0 {
			break
		}
		at := j.end - j.base
		e.data[i] = j.slabs[at/slabSize][at%slabSize:]
		e.data[i] = e.data[i][:min(int64(len(e.data[i])), data)]
		data, j.end = data-int64(len(e.data[i])), j.end+int64(len(e.data[i]))
	}
	j.flying = append(j.flying, e)
	if j.last == nil {
		j.first = e
	} else {
		j.last.next = e
	}
	j.last = e
	j.count++
	return e
}

// entry is one that nobody uses.
func (j *journal) entry() *entry {
	if j.unused == nil {
		some := make([]entry, someEntries)
		for i := range some {
			some[i].next, j.unused = j.unused, &some[i]
		}
	}
	e := j.unused
	j.unused = e.next
	return e
}

// busy reports whether something is on its way that overlaps [off, off+n).
func (j *journal) busy(off, n int64) bool {
	for _, e := range j.flying {
		if e.overlaps(off, n) {
			return true
		}
	}
	return false
}

// land notes that e has its answer, or that nobody waits for that any more.
func (j *journal) land(e *entry) {
	if e.flight < 0 {
		return
	}
	last := len(j.flying) - 1
	j.flying[e.flight] = j.flying[last]
	j.flying[e.flight].flight = e.flight
	j.flying[last] = nil
	j.flying = j.flying[:last]
	j.clock++
	j.answered++
	e.flight, e.answer = -1, j.clock
}

// remove takes e out.
func (j *journal) remove(e *entry) {
	j.land(e)
	if e.prev == nil {
		j.first = e.next
	} else {
		e.prev.next = e.next
	}
	if e.next == nil {
		j.last = e.prev
	} else {
		e.next.prev = e.prev
	}
	e.out = true
	j.count--
	j.answered--
	j.reuse(e)
	j.release()
}

// disown: whoever began e does not look at it any more.
func (j *journal) disown(e *entry) {
	e.owned = false
	j.reuse(e)
}

// reuse keeps e for another change when nobody needs it.
func (j *journal) reuse(e *entry) {
	if e.out && !e.owned {
		e.next, j.unused = j.unused, e
	}
}

// release gives back what memory no entry needs.
func (j *journal) release() {
	if j.first == nil {
		j.free()
		return
	}
	for j.first.at >= j.base+slabSize {
		j.memory.give(j.slabs[0])
		n := copy(j.slabs, j.slabs[1:])
		j.slabs[n] = nil
		j.slabs, j.base = j.slabs[:n], j.base+slabSize
	}
}

// free gives all memory back.
func (j *journal) free() {
	for i, slab := range j.slabs {
		j.memory.give(slab)
		j.slabs[i] = nil
	}
	j.slabs, j.base, j.end = j.slabs[:0], 0, 0
}

// flushed takes out what a flush has covered that was sent when the clock was at that,
// and has p keep the proofs of it. All of that goes at once: an older change that was done again
// by itself would undo a newer one, which is stable.
func (j *journal) flushed(clock uint64, p *proofs, breaks rule) {
	for e := j.first; e != nil; {
		next := e.next
		p.forget(e.off, e.n) // it lies over what came before it
		if e.answer != 0 && e.answer <= clock && (next == nil || breaks&breakOlder == 0) {
			p.keep(e)
			j.remove(e)
		}
		e = next
	}
}

// sweep takes out what the server refused.
func (j *journal) sweep() {
	for e := j.first; e != nil; {
		next := e.next
		if e.void {
			j.remove(e)
		}
		e = next
	}
}
