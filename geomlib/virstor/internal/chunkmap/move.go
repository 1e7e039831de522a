package chunkmap

import (
	"slices"

	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
)

// UnlockMoved ends Lock of vc, whose physical chunk is at to from now on, for the map and
// for every Frozen that names it: at once, so that to is shared as from was.
func (m *Map) UnlockMoved(vc uint64, to Word) {
	s := m.shard(vc)
	s.mu.Lock()
	m.hideLocked(s, vc)
	m.grow.Lock()
	e := &m.pageLocked(vc)[vc%PageEntries]
	m.moveKeptLocked(vc, Word(e.Load()).Mapping(), to)
	e.Store(uint64(to) | wordShared) // Frozens that follow the map follow it
	m.grow.Unlock()
	m.wakeLocked(s, vc)
}

// MoveFrozen lets every Frozen that names from for vc name to; the map keeps what it has.
// Nobody freezes or changes a mapping meanwhile.
func (m *Map) MoveFrozen(vc uint64, from, to Word) {
	m.grow.Lock()
	defer m.grow.Unlock()
	f, page := m.newest.Load(), vc>>pageShift
	if f != nil && page < uint64(len(f.pages)) && m.same(m.Load(vc), from) {
		m.keepLocked(f, page)
	}
	m.moveKeptLocked(vc, from, to)
}

// moveKeptLocked puts to in the place of from in the pages that Frozens have kept. Pages
// do not change, since they are read without a lock: another takes the place. m.grow is
// held.
func (m *Map) moveKeptLocked(vc uint64, from, to Word) {
	page := vc >> pageShift
	for f := m.newest.Load(); f != nil; f = f.older {
		if page >= uint64(len(f.pages)) {
			continue
		}
		if p := f.pages[page].Load(); p != nil && m.same(p[vc%PageEntries], from) {
			next := *p
			next[vc%PageEntries] = to
			f.pages[page].Store(&next)
		}
	}
}

// EachKept gives each mapping that a Frozen keeps since the map, or a newer one, has
// another, until each returns false; some of them more than once. each must not use the map.
func (m *Map) EachKept(each func(vc uint64, word Word) (more bool)) {
	m.grow.Lock()
	defer m.grow.Unlock()
	for f := m.newest.Load(); f != nil; f = f.older {
		for page := range f.pages {
			p := f.pages[page].Load()
			if p == nil {
				continue
			}
			for i, w := range p {
				if w != 0 && !each(uint64(page)<<pageShift+uint64(i), w) {
					return
				}
			}
		}
	}
}

const aliasOn = 1 << 32

// Alias says that component from is called to as well, until Renamed: mappings that
// differ only in that are the same, and Unlock may give a chunk the other without
// anything being moved.
func (m *Map) Alias(from, to uint16) {
	m.alias.Store(aliasOn | uint64(from)<<16 | uint64(to))
}

// Renamed ends Alias, when the map calls no component from any more: Frozens do not,
// either.
func (m *Map) Renamed() {
	m.grow.Lock()
	defer m.grow.Unlock()
	for f := m.newest.Load(); f != nil; f = f.older {
		for i := range f.pages {
			p := f.pages[i].Load()
			if p == nil || !slices.ContainsFunc(p[:], func(w Word) bool { return w != m.one(w) }) {
				continue
			}
			next := new(frozenPage)
			for k, w := range p {
				next[k] = m.one(w)
			}
			f.pages[i].Store(next)
		}
	}
	m.alias.Store(0)
}

// one is the mapping of w by the index that stays of a component that has two.
func (m *Map) one(w Word) Word {
	a, p := m.alias.Load(), w.Phys()
	if a == 0 || !w.Allocated() || p.Comp != uint16(a>>16) {
		return w.Mapping()
	}
	return WordOf(alloc.Phys{Comp: uint16(a), Chunk: p.Chunk})
}

// same reports whether two words have the same mapping.
func (m *Map) same(a, b Word) bool {
	return a.Mapping() == b.Mapping() || m.alias.Load() != 0 && m.one(a) == m.one(b)
}
