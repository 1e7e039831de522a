package virstor

import (
	"encoding/binary"
	"fmt"

	"github.com/gvirstor/gvirstor/ondisk"
)

// mapError is damage at one entry of the map.
func (v *Volume) mapError(vc uint64, format string, args ...any) error {
	return fmt.Errorf("%s: %w: map entry of virtual chunk %d %s; see `gvirstor check`", v.name, ErrDamaged,
		vc, fmt.Sprintf(format, args...))
}

// loadMap reads the map from component 0 and builds from it what is free. An
// entry that cannot be right fails it.
func (v *Volume) loadMap() error {
	for _, c := range v.components() {
		v.alloc.addPool(newChunkPool(c.first(), c.usable()))
	}
	comps := v.bounds()
	pieces, stop := v.readMap()
	defer stop()
	for m := range pieces {
		if m.err != nil {
			return fmt.Errorf("%s: read the allocation map from %s: %w", v.name, v.component(0).name(), m.err)
		}
		if err := v.loadEntries(m.b, uint64(m.off/ondisk.EntrySize), comps); err != nil {
			return err
		}
		m.free <- m.b[:cap(m.b)]
	}
	v.alloc.recount()
	if v.order == ondisk.OrderUnknown {
		v.order = ondisk.LittleEndian
	}
	return nil
}

// bounds are what a map entry may name of one component.
type bounds struct {
	first, count, usable uint32
	pool                 *chunkPool
}

func (v *Volume) bounds() []bounds {
	var bs []bounds
	for i, c := range v.components() {
		bs = append(bs, bounds{c.first(), c.meta().ChunkCount, c.usable(), v.alloc.pools[i]})
	}
	return bs
}

// loadEntries takes in the entries in b, the first of which is that of vc. Nobody
// else knows the map yet.
func (v *Volume) loadEntries(b []byte, vc uint64, comps []bounds) error {
	loaded := int64(0)
	for len(b) >= ondisk.EntrySize {
		n := 1
		if binary.NativeEndian.Uint64(b) != 0 {
			var err error
			if n, err = v.loadSome(b, vc, comps); err != nil {
				return err
			}
			loaded += int64(n)
			n = max(n, 1)
		}
		b, vc = b[n*ondisk.EntrySize:], vc+uint64(n)
	}
	v.stats.allocated.Add(loaded)
	return nil
}

// loadSome takes in the first entry in b, which is not empty, and those of its page
// that follow it as a volume that was filled in order has them. It returns how
// many are allocated.
func (v *Volume) loadSome(b []byte, vc uint64, comps []bounds) (int, error) {
	if v.order == ondisk.OrderUnknown {
		v.order = ondisk.DetectOrder(b[:ondisk.EntrySize])
	}
	e := ondisk.DecodeEntry(b, v.order)
	if !e.Allocated() {
		if e.Flags != 0 {
			return 0, v.mapError(vc, "has unknown flags %#x", e.Flags)
		}
		// The kernel class looks at these too, and refuses the map.
		if int(e.Component) >= len(comps) || e.Chunk >= comps[e.Component].count {
			v.litter = true
		}
		return 0, nil
	}
	if e.Flags != ondisk.FlagAllocated {
		return 0, v.mapError(vc, "has unknown flags %#x", e.Flags)
	}
	if int(e.Component) >= len(comps) {
		return 0, v.mapError(vc, "names component %d of %d", e.Component, len(comps))
	}
	c := &comps[e.Component]
	if e.Chunk < c.first || e.Chunk >= c.count {
		return 0, v.mapError(vc, "names chunk %d of %s, which has %d to %d", e.Chunk, v.component(e.Component).name(), c.first, c.count-1)
	}
	n := uint32(1)
	if v.order == ondisk.LittleEndian && e.Chunk < c.usable {
		n = runLength(b, min(pageEntries-uint32(vc%pageEntries), c.usable-e.Chunk))
	}
	word := wordOf(phys{e.Component, e.Chunk})
	switch {
	case e.Chunk >= c.usable:
		// The kernel class allocated the chunk that holds the metadata sector; it
		// is served, but for that sector, and in no pool.
	case c.pool.claimRun(e.Chunk, n):
	case c.pool.claim(e.Chunk):
		n = 1 // one behind it is taken: each is looked at on its own
	default:
		return 0, v.mapError(vc, "names chunk %d of %s, which another virtual chunk has", e.Chunk, v.component(e.Component).name())
	}
	v.chunks.setRun(vc, word, uint64(n))
	return int(n), nil
}

// runLength is how many entries from the first in b on, little-endian and at most
// most, name one chunk after the other. Most of the time that it takes to open a
// large volume is spent here: four at a time take half as long.
func runLength(b []byte, most uint32) uint32 {
	const next = 1 << 32 // the next chunk, in an entry
	le := binary.LittleEndian
	b = b[:min(len(b)/ondisk.EntrySize, int(most))*ondisk.EntrySize]
	want, n := le.Uint64(b), uint32(0)
	for len(b) >= 4*ondisk.EntrySize {
		four := b[: 4*ondisk.EntrySize : 4*ondisk.EntrySize]
		if (le.Uint64(four)^want)|(le.Uint64(four[8:])^(want+next))|
			(le.Uint64(four[16:])^(want+2*next))|(le.Uint64(four[24:])^(want+3*next)) != 0 {
			break
		}
		b, want, n = b[len(four):], want+4*next, n+4
	}
	for ; len(b) > 0 && le.Uint64(b) == want; b, want, n = b[ondisk.EntrySize:], want+next, n+1 {
	}
	return n
}

// setRun gives n virtual chunks from vc on, of one page, the words from word on.
// Nobody else knows the map yet.
func (m *chunkMap) setRun(vc, word, n uint64) {
	if n == pageEntries {
		m.slot(vc).run.Store(word)
		return
	}
	words := m.page(vc).plain()[vc%pageEntries:]
	for i := range words[:n] {
		words[i] = word + uint64(i)
	}
}

// recount makes free agree with the pools after claims.
func (a *allocator) recount() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.free = 0
	for _, p := range a.pools {
		if !p.closed {
			a.free += int64(p.free)
		}
	}
}
