package virstor

import (
	"runtime"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
)

// A word of the chunk map describes one virtual chunk:
//
//	bits  0–31  physical chunk
//	bits 32–47  component
//	bit  48     allocated
//	bit  49     busy: one owner has the chunk to itself, new pins are refused
//	bit  50     shown: a busy chunk that may be read all the same
//	bits 52–63  pins: device I/O in flight to the chunk
//
// The first 49 bits change only while the chunk is busy, or from zero by the
// committer.
const (
	compShift = 32
	wordAlloc = 1 << 48
	wordBusy  = 1 << 49
	wordShown = 1 << 50
	pinShift  = 52
	pinOne    = 1 << pinShift
	pinLimit  = 4000 // far above the goroutines that can do I/O at once
	wordMap   = wordAlloc | (1<<48 - 1)

	pageEntries = 512
	pageShift   = 9
)

func wordOf(p alloc.Phys) uint64 { return wordAlloc | uint64(p.Comp)<<compShift | uint64(p.Chunk) }

func physOf(w uint64) alloc.Phys { return alloc.Phys{Comp: uint16(w >> compShift), Chunk: uint32(w)} }

type mapPage [pageEntries]atomic.Uint64

// plain is the page for one who has the map to himself: an atomic store takes as
// long as all else that is done for an entry that is loaded.
func (p *mapPage) plain() *[pageEntries]uint64 { return (*[pageEntries]uint64)(unsafe.Pointer(p)) }

// pageSlot is the place of one page in the directory. A page all of whose chunks
// follow each other on one component, as in a volume that was filled in order, need
// not exist before one of them is used: run says enough.
type pageSlot struct {
	page atomic.Pointer[mapPage]
	run  atomic.Uint64 // the first word of such a page, or zero; counts while page is nil
}

// word is the word of the i-th chunk of the page.
func (s *pageSlot) word(i uint64) uint64 {
	if p := s.page.Load(); p != nil {
		return p[i].Load()
	}
	if first := s.run.Load(); first != 0 {
		return first + i
	}
	return 0
}

type pageDir []pageSlot

type pinState uint8

const (
	pinned pinState = iota
	unallocated
	busy
)

// chunkMap maps virtual chunks to physical ones. Pages of which nothing was ever
// allocated do not exist.
type chunkMap struct {
	dir atomic.Pointer[pageDir]

	grow sync.Mutex // page creation, and replacing dir

	shards [64]chunkShard
}

// chunkShard is where those wait that found a chunk busy.
type chunkShard struct {
	mu     sync.Mutex
	cond   sync.Cond // waiters for busy to clear and for pins to drain
	parked []parkedRequest
}

type parkedRequest struct {
	vc uint64
	r  *Request
}

func newChunkMap(n uint64) *chunkMap {
	m := new(chunkMap)
	m.resize(n)
	for i := range m.shards {
		m.shards[i].cond.L = &m.shards[i].mu
	}
	return m
}

func (m *chunkMap) shard(vc uint64) *chunkShard { return &m.shards[vc%uint64(len(m.shards))] }

// resize makes room for n virtual chunks. It never takes room away.
func (m *chunkMap) resize(n uint64) {
	m.grow.Lock()
	defer m.grow.Unlock()
	pages := (n + pageEntries - 1) >> pageShift
	old := m.dir.Load()
	if old != nil && uint64(len(*old)) >= pages {
		return
	}
	dir := make(pageDir, pages)
	if old != nil {
		for i := range *old {
			dir[i].page.Store((*old)[i].page.Load())
			dir[i].run.Store((*old)[i].run.Load())
		}
	}
	m.dir.Store(&dir)
}

func (m *chunkMap) slot(vc uint64) *pageSlot { return &(*m.dir.Load())[vc>>pageShift] }

// existing returns the page that holds vc, or nil when nothing in it was ever
// allocated.
func (m *chunkMap) existing(vc uint64) *mapPage {
	s := m.slot(vc)
	if p := s.page.Load(); p != nil || s.run.Load() == 0 {
		return p
	}
	return m.page(vc)
}

// page returns the page that holds vc, made if need be.
func (m *chunkMap) page(vc uint64) *mapPage {
	if p := m.slot(vc).page.Load(); p != nil {
		return p
	}
	m.grow.Lock()
	defer m.grow.Unlock()
	s := m.slot(vc)
	if p := s.page.Load(); p != nil {
		return p
	}
	p := new(mapPage)
	if first := s.run.Load(); first != 0 {
		for i := range p.plain() {
			p.plain()[i] = first + uint64(i)
		}
	}
	s.page.Store(p) // run stays, for who has just seen that there is no page
	return p
}

// load returns the word of vc, zero for what was never touched.
func (m *chunkMap) load(vc uint64) uint64 { return m.slot(vc).word(vc % pageEntries) }

// set publishes the mapping of a chunk that has none and is not busy.
func (m *chunkMap) set(vc uint64, p alloc.Phys) { m.page(vc)[vc%pageEntries].Store(wordOf(p)) }

// pin keeps the mapping of vc as it is until unpin. The physical chunk is
// not reused while it is pinned.
func (m *chunkMap) pin(vc uint64) (alloc.Phys, pinState) { return m.pinUnless(vc, wordBusy) }

// pinRead is pin for one who only reads.
func (m *chunkMap) pinRead(vc uint64) (alloc.Phys, pinState) {
	return m.pinUnless(vc, wordBusy|wordShown)
}

// pinUnless is pin and pinRead: a word that has of mask no bit but wordBusy is busy.
func (m *chunkMap) pinUnless(vc, mask uint64) (alloc.Phys, pinState) {
	p := m.existing(vc)
	if p == nil {
		return alloc.Phys{}, unallocated
	}
	e := &p[vc%pageEntries]
	for {
		w := e.Load()
		switch {
		case w&mask == wordBusy:
			return alloc.Phys{}, busy
		case w&wordAlloc == 0:
			return alloc.Phys{}, unallocated
		case w>>pinShift >= pinLimit:
			runtime.Gosched()
		case e.CompareAndSwap(w, w+pinOne):
			return physOf(w), pinned
		}
	}
}

// pinWait is pin that waits while the chunk is busy. It reports whether the
// chunk is allocated and pinned.
func (m *chunkMap) pinWait(vc uint64) (alloc.Phys, bool) {
	for {
		ph, state := m.pin(vc)
		if state != busy {
			return ph, state == pinned
		}
		s := m.shard(vc)
		s.mu.Lock()
		for m.load(vc)&wordBusy != 0 {
			s.cond.Wait()
		}
		s.mu.Unlock()
	}
}

func (m *chunkMap) unpin(vc uint64) {
	e := &m.existing(vc)[vc%pageEntries]
	w := e.Add(^uint64(pinOne - 1))
	if w&wordBusy != 0 && w>>pinShift == 0 {
		s := m.shard(vc)
		s.mu.Lock()
		s.cond.Broadcast()
		s.mu.Unlock()
	}
}

// lock takes vc for its caller alone: it waits for other owners and for
// pinned I/O. It reports false, without the lock, when vc is not allocated.
func (m *chunkMap) lock(vc uint64) (alloc.Phys, bool) {
	ph, state := m.own(vc, true)
	return ph, state == pinned
}

// lockState is lock with the answer of tryLock, which is never busy.
func (m *chunkMap) lockState(vc uint64) (alloc.Phys, pinState) { return m.own(vc, true) }

// tryLock is lock that does not wait for another owner: pinned means that the
// caller has vc, busy that somebody else does. It waits for pinned I/O.
func (m *chunkMap) tryLock(vc uint64) (alloc.Phys, pinState) { return m.own(vc, false) }

// own is lock and tryLock. wait: for another owner.
func (m *chunkMap) own(vc uint64, wait bool) (alloc.Phys, pinState) {
	p := m.existing(vc)
	if p == nil {
		return alloc.Phys{}, unallocated
	}
	e := &p[vc%pageEntries]
	s := m.shard(vc)
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		w := e.Load()
		if w&wordBusy != 0 {
			if !wait {
				return alloc.Phys{}, busy
			}
			s.cond.Wait()
			continue
		}
		if w&wordAlloc == 0 {
			return alloc.Phys{}, unallocated
		}
		if e.CompareAndSwap(w, w|wordBusy) {
			break
		}
	}
	for e.Load()>>pinShift != 0 {
		s.cond.Wait()
	}
	return physOf(e.Load()), pinned
}

// unlock ends lock and gives vc the mapping word, zero for none. resume
// receives the requests that were parked meanwhile.
func (m *chunkMap) unlock(vc uint64, word uint64, resume func(*Request)) {
	s := m.shard(vc)
	s.mu.Lock()
	e := &m.page(vc)[vc%pageEntries]
	for w := e.Load(); w&wordShown != 0 && !e.CompareAndSwap(w, w&^wordShown); {
		w = e.Load()
	}
	for e.Load()>>pinShift != 0 { // of those to whom it was shown
		s.cond.Wait()
	}
	m.storeLocked(s, vc, word, resume)
}

// show lets a chunk be read that its owner keeps to himself, at the place that word
// names; until unlock nobody changes it. resume is as for unlock: who is not to read
// parks again.
func (m *chunkMap) show(vc uint64, word uint64, resume func(*Request)) {
	s := m.shard(vc)
	s.mu.Lock()
	m.storeLocked(s, vc, word|wordBusy|wordShown, resume)
}

// storeLocked stores the word of vc, which nobody has pinned, and wakes who waits. It
// unlocks s.mu.
func (m *chunkMap) storeLocked(s *chunkShard, vc, word uint64, resume func(*Request)) {
	m.page(vc)[vc%pageEntries].Store(word)
	ready := s.unparkLocked(vc)
	s.cond.Broadcast()
	s.mu.Unlock()
	for _, r := range ready {
		resume(r)
	}
}

// unparkLocked removes the requests parked on vc from the list; s.mu is held.
func (s *chunkShard) unparkLocked(vc uint64) []*Request {
	var ready []*Request
	kept := s.parked[:0]
	for _, pr := range s.parked {
		if pr.vc == vc {
			ready = append(ready, pr.r)
		} else {
			kept = append(kept, pr)
		}
	}
	clear(s.parked[len(kept):])
	s.parked = kept
	return ready
}

// park leaves r to be resumed by the owner of vc. It reports false when
// vc is not busy any more, or not for r.
func (m *chunkMap) park(vc uint64, r *Request) bool {
	s := m.shard(vc)
	s.mu.Lock()
	defer s.mu.Unlock()
	w := m.load(vc)
	if w&wordBusy == 0 || w&wordShown != 0 && r.Op == OpRead {
		return false
	}
	s.parked = append(s.parked, parkedRequest{vc, r})
	return true
}

// nextAllocated returns the first allocated chunk at or after vc and before
// limit, or limit.
func (m *chunkMap) nextAllocated(vc, limit uint64) uint64 {
	for vc < limit {
		s := m.slot(vc)
		if s.page.Load() == nil && s.run.Load() == 0 {
			vc = (vc>>pageShift + 1) << pageShift
			continue
		}
		for end := min(limit, (vc>>pageShift+1)<<pageShift); vc < end; vc++ {
			if s.word(vc%pageEntries)&wordAlloc != 0 {
				return vc
			}
		}
	}
	return limit
}
