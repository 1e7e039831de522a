// Package chunkmap is a volume's allocation map in memory: it says which physical chunk
// each virtual one has, and who is using it just now.
//
// It consists of pages, of which those do not exist in which nothing was ever allocated:
// untouched parts of a huge volume cost next to nothing. The I/O path looks a chunk up,
// pins and unpins it with atomic operations on its word alone; a lock is taken only by
// those who find a chunk busy, who want one for themselves, and once for each page.
//
// # Memory order
//
// Go's atomic operations take place in one order on every processor, and what comes
// before one of them in its goroutine is seen by whoever sees what it did. (The Go Memory
// Model, "Atomic Values"; arm64, ppc64 and riscv64 pay with fences.) The rest is:
//
//   - Pins and busy are bits of one word, so either a pin is in it when its owner sets
//     busy, and the owner waits, or it finds busy, and is refused. What the last Unpin
//     sees of busy is what it took its pin off from: it cannot overlook an owner.
//   - That owner holds the lock of the shard from before it looks at the pins until it
//     sleeps, and Unpin takes that lock before it wakes sleepers: no wake is lost.
//   - Data that was read or written under a pin is so before the Unpin, and what an owner
//     moves is so before the word that names the new place is stored. Who pins that word
//     finds the data there.
//   - A page is filled before its address is stored, and its words are plain memory until
//     then (SetRun: until anybody knows the map). A directory is copied under the lock
//     under which pages are made, so none is missing in the copy; who still has the old
//     one may miss a page that was made since, and finds what was so when he looked: a
//     chunk that was not allocated yet, or a run, for whose page he looks again.
package chunkmap

import (
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
)

// PageEntries is the number of virtual chunks of a page.
const PageEntries = 1 << pageShift

const pageShift = 9

// page holds the words of virtual chunks that follow each other.
type page [PageEntries]atomic.Uint64

// plain is the page for one who has the map to himself: an atomic store takes as
// long as all else that is done for an entry that is loaded.
func (p *page) plain() *[PageEntries]uint64 { return (*[PageEntries]uint64)(unsafe.Pointer(p)) }

// pageSlot is the place of one page in the directory. A page all of whose chunks
// follow each other on one component, as in a volume that was filled in order, need
// not exist before one of them is used: run says enough.
type pageSlot struct {
	page atomic.Pointer[page]
	run  atomic.Uint64 // the first word of such a page, or zero; counts while page is nil

	marked atomic.Uint64 // the number of freezes (Map.freezes) that its words are marked shared for
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

// Map maps virtual chunks to physical ones. Its methods may be called by many goroutines
// at once, but for SetRun.
type Map struct {
	dir atomic.Pointer[[]pageSlot]

	grow sync.Mutex // held to make a page, to mark or keep one, to freeze, and to replace dir

	newest  atomic.Pointer[Frozen] // the others hang on it; changed with grow held
	freezes atomic.Uint64          // how many Frozens there ever were, and times that unknown changed
	unknown atomic.Bool            // there is a map that nobody can read
	empty   frozenPage             // of Frozens, where nothing is allocated
	alias   atomic.Uint64          // a component that has two indices just now (Alias); 0: none
	origin  atomic.Pointer[Frozen] // of another map, whose mappings this one may have; or nil

	shards [64]shard
}

// New makes a map of n virtual chunks, none of them allocated.
func New(n uint64) *Map {
	m := new(Map)
	m.Resize(n)
	for i := range m.shards {
		m.shards[i].cond.L = &m.shards[i].mu
	}
	return m
}

// Resize makes room for n virtual chunks. It never takes room away.
func (m *Map) Resize(n uint64) {
	m.grow.Lock()
	defer m.grow.Unlock()
	pages := (n + PageEntries - 1) >> pageShift
	old := m.dir.Load()
	if old != nil && uint64(len(*old)) >= pages {
		return
	}
	dir := make([]pageSlot, pages)
	if old != nil {
		for i := range *old {
			dir[i].page.Store((*old)[i].page.Load())
			dir[i].run.Store((*old)[i].run.Load())
			dir[i].marked.Store((*old)[i].marked.Load())
		}
	}
	m.dir.Store(&dir)
}

func (m *Map) slot(vc uint64) *pageSlot { return &(*m.dir.Load())[vc>>pageShift] }

// existing returns the page that holds vc, or nil when nothing in it was ever
// allocated.
func (m *Map) existing(vc uint64) *page {
	s := m.slot(vc)
	if p := s.page.Load(); p != nil || s.run.Load() == 0 {
		return p
	}
	return m.page(vc)
}

// page returns the page that holds vc, made if need be.
func (m *Map) page(vc uint64) *page {
	if p := m.slot(vc).page.Load(); p != nil {
		return p
	}
	m.grow.Lock()
	defer m.grow.Unlock()
	return m.pageLocked(vc)
}

// pageLocked is page; m.grow is held.
func (m *Map) pageLocked(vc uint64) *page {
	s := m.slot(vc)
	if p := s.page.Load(); p != nil {
		return p
	}
	p := new(page)
	if first := s.run.Load(); first != 0 {
		for i := range p.plain() {
			p.plain()[i] = first + uint64(i)
		}
	}
	s.page.Store(p) // run stays, for who has just seen that there is no page
	return p
}

// Load returns the word of vc, zero for what was never touched.
func (m *Map) Load(vc uint64) Word { return Word(m.slot(vc).word(vc % PageEntries)) }

// Run returns the first word of the page of vc, if the words of all its chunks follow each
// other and none was used since they were loaded.
func (m *Map) Run(vc uint64) (first Word, ok bool) {
	s := m.slot(vc)
	first = Word(s.run.Load())
	return first, first != 0 && s.page.Load() == nil
}

// Set maps a virtual chunk to p that has no physical one and is not busy. There is one
// caller at a time.
func (m *Map) Set(vc uint64, p alloc.Phys) {
	m.keep(vc)
	m.page(vc)[vc%PageEntries].Store(uint64(WordOf(p)))
}

// SetRun gives n virtual chunks from vc on, of one page, the words from first on.
// Nobody else knows the map yet.
func (m *Map) SetRun(vc uint64, first Word, n uint64) {
	if n == PageEntries {
		m.slot(vc).run.Store(uint64(first))
		return
	}
	words := m.page(vc).plain()[vc%PageEntries:]
	for i := range words[:n] {
		words[i] = uint64(first) + uint64(i)
	}
}

// NextAllocated returns the first allocated chunk at or after vc and before
// limit, or limit.
func (m *Map) NextAllocated(vc, limit uint64) uint64 {
	for vc < limit {
		s := m.slot(vc)
		if s.page.Load() == nil && s.run.Load() == 0 {
			vc = (vc>>pageShift + 1) << pageShift
			continue
		}
		for end := min(limit, (vc>>pageShift+1)<<pageShift); vc < end; vc++ {
			if s.word(vc%PageEntries)&wordAlloc != 0 {
				return vc
			}
		}
	}
	return limit
}
