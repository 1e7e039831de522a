package chunkmap

import (
	"sync/atomic"
)

// Frozen is a map as it was at one moment. It costs what has changed since: a page that is
// the same as that of the next newer one, or of the map itself, is not kept twice. Its
// methods may be called by many goroutines at once.
type Frozen struct {
	m     *Map
	pages []atomic.Pointer[frozenPage] // nil: that of the next newer one

	newer atomic.Pointer[Frozen] // nil: the map
	older *Frozen                // guarded by Map.grow

	// left counts the pages, from the first on, that this one has let go of.
	left atomic.Uint64
}

// frozenPage is mappings alone. It does not change.
type frozenPage [PageEntries]Word

// Freeze makes a Frozen of what the map is now. Nobody writes to a chunk by PinWrite, and
// nobody changes a mapping, meanwhile; from now on PinWrite finds every chunk shared that
// it names.
func (m *Map) Freeze() *Frozen {
	m.grow.Lock()
	defer m.grow.Unlock()
	f := &Frozen{m: m, pages: make([]atomic.Pointer[frozenPage], len(*m.dir.Load())), older: m.newest.Load()}
	if f.older != nil {
		f.older.newer.Store(f)
	}
	m.newest.Store(f)
	m.freezes.Add(1)
	return f
}

// Before makes a Frozen that is older than all there are, and the same as the oldest of
// them or the map until SetPage says otherwise. Nobody else knows the map yet.
func (m *Map) Before() *Frozen {
	m.grow.Lock()
	defer m.grow.Unlock()
	f := &Frozen{m: m, pages: make([]atomic.Pointer[frozenPage], len(*m.dir.Load()))}
	m.freezes.Add(1)
	oldest := m.newest.Load()
	if oldest == nil {
		m.newest.Store(f)
		return f
	}
	for oldest.older != nil {
		oldest = oldest.older
	}
	oldest.older = f
	f.newer.Store(oldest)
	return f
}

// SetPage makes words what the page of f is, which Before made.
func (f *Frozen) SetPage(page uint64, words *[PageEntries]Word) {
	var same [PageEntries]Word
	f.Page(page, &same)
	switch {
	case same == *words:
	case *words == [PageEntries]Word{}:
		f.pages[page].Store(&f.m.empty)
	default:
		p := frozenPage(*words)
		f.pages[page].Store(&p)
	}
}

// SetUnknown tells whether there is a map that nobody can read: any chunk may be named by
// it, as by a Frozen. Nobody writes to a chunk by PinWrite when that begins.
func (m *Map) SetUnknown(on bool) {
	if m.unknown.Swap(on) != on {
		m.freezes.Add(1)
	}
}

// SetOrigin says of what the map is a clone: a Frozen of another map, which stays as long as
// this one, and names whatever the two have in common. Nobody else knows the map yet.
func (m *Map) SetOrigin(f *Frozen) {
	m.origin.Store(f)
	m.freezes.Add(1)
}

// fromOrigin reports whether the map is a clone and what it was at first has the mapping of
// word for vc.
func (m *Map) fromOrigin(vc uint64, word Word) bool {
	f := m.origin.Load()
	return f != nil && vc>>pageShift < f.Pages() && m.same(f.Load(vc), word)
}

// IsFrozen reports whether there is a Frozen, of this map or as its origin, or a map that
// nobody can read.
func (m *Map) IsFrozen() bool {
	return m.newest.Load() != nil || m.unknown.Load() || m.origin.Load() != nil
}

// Pages is how many there are.
func (f *Frozen) Pages() uint64 { return uint64(len(f.pages)) }

// kept is the page as f, or one that is newer, has kept it. Without one it is the map's,
// and last is the newest that was looked at.
func (f *Frozen) kept(page uint64) (p *frozenPage, last *Frozen) {
	for last = f; ; {
		if p = last.pages[page].Load(); p != nil {
			return p, last
		}
		p, next := last.behind(page)
		if p != nil || next == nil {
			return p, last
		}
		last = next
	}
}

// behind is the next newer one, or nil for the map, of one that was just seen to have no
// page itself; or the page, if it has got it since: who goes gives its pages to the older
// one, and then takes itself out from behind it.
func (f *Frozen) behind(page uint64) (p *frozenPage, newer *Frozen) {
	newer = f.newer.Load()
	return f.pages[page].Load(), newer
}

// still reports whether the page was the map's until now, as f, the newest, has it.
func (f *Frozen) still(page uint64) bool {
	return f.m.newest.Load() == f && f.pages[page].Load() == nil
}

// Load is the mapping that vc had.
func (f *Frozen) Load(vc uint64) Word {
	page := vc >> pageShift
	for {
		p, last := f.kept(page)
		if p != nil {
			return p[vc%PageEntries]
		}
		// Who changes the map keeps the page first.
		if w := f.m.Load(vc).Mapping(); last.still(page) {
			return w
		}
	}
}

// Page fills words with the mappings of a page, and reports whether any is allocated.
func (f *Frozen) Page(page uint64, words *[PageEntries]Word) (any bool) {
	for {
		p, last := f.kept(page)
		if p != nil {
			*words = *p
			return p != &f.m.empty
		}
		any = f.m.Page(page, words)
		if last.still(page) {
			return any
		}
	}
}

// Page fills words with the mappings of a page of the map, and reports whether any is
// allocated.
func (m *Map) Page(page uint64, words *[PageEntries]Word) (any bool) {
	s := &(*m.dir.Load())[page]
	if s.page.Load() == nil && s.run.Load() == 0 {
		clear(words[:])
		return false
	}
	for i := range words {
		words[i] = Word(s.word(uint64(i))).Mapping()
		any = any || words[i] != 0
	}
	return any
}

// keep lets the newest Frozen have the page of vc for itself, which is about to change.
func (m *Map) keep(vc uint64) {
	f, page := m.newest.Load(), vc>>pageShift
	if f == nil || page >= uint64(len(f.pages)) || f.pages[page].Load() != nil {
		return
	}
	m.grow.Lock()
	defer m.grow.Unlock()
	m.keepLocked(f, page)
}

// keepLocked lets f, the newest, have the page for itself, if it has not. m.grow is held.
func (m *Map) keepLocked(f *Frozen, page uint64) {
	if f.pages[page].Load() != nil {
		return
	}
	p := new(frozenPage)
	if !m.Page(page, (*[PageEntries]Word)(p)) {
		p = &m.empty
	}
	f.pages[page].Store(p)
}

// mark makes the words of the page of vc shared, if that was not done since the last
// Freeze.
func (m *Map) mark(vc uint64) {
	s := m.slot(vc)
	if s.marked.Load() == m.freezes.Load() {
		return
	}
	m.grow.Lock()
	defer m.grow.Unlock()
	s = m.slot(vc)
	if s.marked.Load() == m.freezes.Load() {
		return
	}
	if s.page.Load() != nil || s.run.Load() != 0 {
		for i, p := 0, m.pageLocked(vc); i < PageEntries; i++ {
			if p[i].Load()&wordAlloc != 0 {
				p[i].Or(wordShared)
			}
		}
	}
	s.marked.Store(m.freezes.Load())
}

// IsShared reports whether a Frozen may name the physical chunk of vc. False is certain
// until the next Freeze, unless the chunk is moved.
func (m *Map) IsShared(vc uint64) bool {
	m.mark(vc)
	return m.Load(vc)&wordShared != 0
}

// Unshare notes that no Frozen names the physical chunk of vc. Who calls it knows that,
// and nobody freezes or changes a mapping meanwhile.
func (m *Map) Unshare(vc uint64) {
	m.mark(vc)
	m.page(vc)[vc%PageEntries].And(^uint64(wordShared))
}

// IsNamed reports whether a Frozen that has not let go of it, or the origin, names the
// mapping of word for vc, or may, for what is known of it. Nobody freezes or changes a mapping meanwhile.
func (m *Map) IsNamed(vc uint64, word Word) bool {
	return m.unknown.Load() || m.isNamed(vc, word, nil)
}

// isNamed is IsNamed for what can be read, and for others than except.
func (m *Map) isNamed(vc uint64, word Word, except *Frozen) bool {
	if m.fromOrigin(vc, word) {
		return true
	}
	if m.newest.Load() == nil {
		return false
	}
	m.grow.Lock()
	defer m.grow.Unlock()
	page := vc >> pageShift
	now := m.Load(vc).Mapping()
	for f := m.newest.Load(); f != nil; f = f.older {
		if page >= uint64(len(f.pages)) {
			continue
		}
		if p := f.pages[page].Load(); p != nil {
			now = p[vc%PageEntries]
		}
		if f != except && m.same(now, word) && page >= f.left.Load() {
			return true
		}
	}
	return false
}

// Names reports whether the map has the mapping of word for vc, or a Frozen that can be
// read. Nobody freezes or changes a mapping meanwhile.
func (m *Map) Names(vc uint64, word Word) bool {
	return m.same(m.Load(vc), word) || m.isNamed(vc, word, nil)
}

// AnyKept reports whether is holds for a mapping that a Frozen keeps since the map, or a
// newer one, has another; and if there is one that nobody can read.
func (m *Map) AnyKept(is func(Word) bool) bool {
	any := m.unknown.Load()
	if !any {
		m.EachKept(func(_ uint64, w Word) bool {
			any = is(w)
			return !any
		})
	}
	return any
}

// Leave lets go of the next page of f, and gives each mapping that only f named: neither
// the map nor another Frozen does, and none that nobody can read may. It reports whether
// there was one more page. Nobody freezes or changes a mapping meanwhile.
func (f *Frozen) Leave(only func(vc uint64, word Word)) (more bool) {
	page := f.left.Load()
	if page >= f.Pages() {
		return false
	}
	f.left.Store(page + 1)
	f.Only(page, only)
	return true
}

// Only gives each mapping of a page of f that Leave would. Nobody freezes or changes a
// mapping meanwhile.
func (f *Frozen) Only(page uint64, only func(vc uint64, word Word)) {
	var words [PageEntries]Word
	if f.m.unknown.Load() || !f.Page(page, &words) {
		return
	}
	for i, w := range words {
		vc := page<<pageShift + uint64(i)
		if w != 0 && !f.m.same(f.m.Load(vc), w) && !f.m.isNamed(vc, w, f) {
			only(vc, w)
		}
	}
}

// Lost counts the virtual chunks of a page that the map has other mappings of than f,
// and those of them whose chunk in the map no Frozen names. Where there is a map that
// nobody can read it may name all. Nobody freezes or changes a mapping meanwhile.
func (f *Frozen) Lost(page uint64) (differ, alone int) {
	var then, now [PageEntries]Word
	if page < f.Pages() {
		if f.samePage(nil, page) {
			return 0, 0
		}
		f.Page(page, &then)
	}
	f.m.Page(page, &now)
	for i, w := range now {
		if w == then[i] {
			continue
		}
		differ++
		if w != 0 && !f.m.IsNamed(page<<pageShift+uint64(i), w) {
			alone++
		}
	}
	return differ, alone
}

// Remove takes f, which has left all its pages, out of the map's Frozens. The older one
// keeps the pages that it had by it. Nobody freezes meanwhile.
func (f *Frozen) Remove() {
	m := f.m
	m.grow.Lock()
	defer m.grow.Unlock()
	newer := f.newer.Load()
	if f.older != nil {
		for i := range f.older.pages {
			if p := f.pages[i].Load(); p != nil && f.older.pages[i].Load() == nil {
				f.older.pages[i].Store(p)
			}
		}
		f.older.newer.Store(newer)
	}
	if newer != nil {
		newer.older = f.older
	} else {
		m.newest.Store(f.older)
	}
}

// Restore makes the mappings of the map those of f, a Frozen of it, calls changed with what
// each that is another now was, and returns how many are allocated. Nobody else uses the map
// meanwhile. PinWrite finds every chunk shared that a Frozen names.
func (m *Map) Restore(f *Frozen, changed func(vc uint64, was Word)) (allocated int) {
	pages := uint64(len(*m.dir.Load()))
	for page := range pages {
		var then, now [PageEntries]Word
		if page < f.Pages() {
			f.Page(page, &then)
		}
		m.Page(page, &now)
		for i, w := range then {
			if w != 0 {
				allocated++
			}
			if m.same(w, now[i]) {
				continue
			}
			vc := page<<pageShift + uint64(i)
			m.keep(vc)
			m.page(vc)[i].Store(uint64(w))
			changed(vc, now[i])
		}
	}
	m.freezes.Add(1)
	return allocated
}
