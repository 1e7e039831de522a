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
	words := v.chunks.page(vc).plain()[vc%pageEntries:]
	words[0] = wordOf(phys{e.Component, e.Chunk})
	if e.Chunk >= c.usable {
		// The kernel class allocated the chunk that holds the metadata sector; it
		// is served, but for that sector, and in no pool.
		return 1, nil
	}
	n := uint32(1)
	if v.order == ondisk.LittleEndian {
		n += copyRun(words[1:min(uint32(len(words)), c.usable-e.Chunk)], b)
	}
	if c.pool.claimRun(e.Chunk, n) {
		return int(n), nil
	}
	// One of them is taken. The others are looked at on their own.
	if c.pool.claim(e.Chunk) {
		return 1, nil
	}
	return 0, v.mapError(vc, "names chunk %d of %s, which another virtual chunk has", e.Chunk, v.component(e.Component).name())
}

// copyRun fills words, as far as it goes, with what follows the first
// entry in b, little-endian, while each names the chunk after the one before. It
// returns how many these are.
func copyRun(words []uint64, b []byte) uint32 {
	const nextChunk = 1 << 32 // in an entry
	entry := binary.LittleEndian.Uint64(b)
	word := wordOf(phys{uint16(entry >> 16), uint32(entry >> 32)})
	for i := range words {
		b = b[ondisk.EntrySize:]
		entry += nextChunk
		word++
		if len(b) < ondisk.EntrySize || binary.LittleEndian.Uint64(b) != entry {
			return uint32(i)
		}
		words[i] = word
	}
	return uint32(len(words))
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
