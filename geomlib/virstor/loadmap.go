package virstor

import (
	"encoding/binary"
	"fmt"

	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/chunkmap"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/mapio"
	"github.com/gvirstor/gvirstor/ondisk"
)

// mapError is damage at one entry of the map.
func mapError(vc uint64, format string, args ...any) error {
	return fmt.Errorf("%w: map entry of virtual chunk %d %s; see `gvirstor check`", ErrDamaged, vc, fmt.Sprintf(format, args...))
}

// loadMap reads the map from component 0 and builds from it what is free. An
// entry that cannot be right fails it.
func (v *Volume) loadMap() error {
	comps := v.bounds()
	var err error
	if v.meta.ext.rec.Intent.Kind == ondisk.IntentRollback && !v.cfg.breaks(breakRollbackRead) {
		err = v.loadRolledBack(comps)
	} else {
		err = v.mapReader().Each(func(p *mapio.Piece) error { return v.loadPiece(p, comps) })
	}
	if err != nil {
		return fmt.Errorf("%s: %w", v.name, err)
	}
	if err := v.loadPool(comps); err != nil {
		return fmt.Errorf("%s: %w", v.name, err)
	}
	for i := range comps {
		v.alloc.Append(comps[i].pool)
	}
	v.alloc.Hold(v.components())
	v.barDamaged()
	if v.order == ondisk.OrderUnknown {
		v.order = ondisk.LittleEndian
	}
	return nil
}

// bounds are what a map entry may name of one component, and the pool of what none does.
type bounds struct {
	first, count, usable uint32
	pool                 *alloc.Pool
}

func (v *Volume) bounds() []bounds {
	var bs []bounds
	for _, c := range v.components() {
		bs = append(bs, bounds{c.first(), c.meta().ChunkCount, c.usable(), alloc.NewPool(c.first(), v.endOfPool(c))})
	}
	return bs
}

// mapReader reads the map of component 0.
func (v *Volume) mapReader() mapio.Reader {
	zero := v.component(0)
	return mapio.Reader{Provider: zero.prov(), Size: zero.meta().MapBytes(), Piece: v.cfg.mapPiece, Serial: v.cfg.serial}
}

// loadPiece takes in a piece of the map. Nobody else
// knows the map yet.
func (v *Volume) loadPiece(p *mapio.Piece, comps []bounds) error {
	loaded := 0
	for page := range p.Pages() {
		if page.State == mapio.Empty {
			continue
		}
		n, err := v.loadPage(page.B, page.First, comps, page.State == mapio.InOrder)
		if err != nil {
			return err
		}
		loaded += n
	}
	v.allocated.Add(int64(loaded))
	return nil
}

// endOfPool is the first chunk of c that is never given out.
func (v *Volume) endOfPool(c *component) uint32 {
	if v.cfg.breaks(breakLastChunk) {
		return c.meta().ChunkCount
	}
	return c.usable()
}

// loadPage takes in the entries in b, which are of one page, and the first of
// which is that of vc. inOrder: all of them follow each other. It returns how many
// are allocated.
func (v *Volume) loadPage(b []byte, vc uint64, comps []bounds, inOrder bool) (loaded int, err error) {
	for len(b) >= ondisk.EntrySize {
		n := 1
		if binary.NativeEndian.Uint64(b) != 0 {
			if n, err = v.loadSome(b, vc, comps, inOrder); err != nil {
				return 0, err
			}
			loaded += n
			n = max(n, 1)
			inOrder = false
		}
		b, vc = b[n*ondisk.EntrySize:], vc+uint64(n)
	}
	return loaded, nil
}

// loadSome takes in the first entry in b, which is not empty, and those that follow
// it as a volume that was filled in order has them; b is of one page, and inOrder
// tells that they are all of b. It returns how many are allocated.
func (v *Volume) loadSome(b []byte, vc uint64, comps []bounds, inOrder bool) (int, error) {
	if v.order == ondisk.OrderUnknown {
		v.order = ondisk.DetectOrder(b[:ondisk.EntrySize])
	}
	e := ondisk.DecodeEntry(b, v.order)
	if !e.Allocated() {
		if e.Flags != 0 {
			return 0, mapError(vc, "has unknown flags %#x", e.Flags)
		}
		// The kernel class looks at these too, and refuses the map.
		if int(e.Component) >= len(comps) || e.Chunk >= comps[e.Component].count {
			v.garbage = true
		}
		return 0, nil
	}
	if e.Flags != ondisk.FlagAllocated {
		return 0, mapError(vc, "has unknown flags %#x", e.Flags)
	}
	if v.renamed.from > 0 && int(e.Component) == v.renamed.from {
		e.Component = uint16(v.renamed.to)
	}
	if int(e.Component) >= len(comps) {
		return 0, mapError(vc, "names component %d of %d", e.Component, len(comps))
	}
	c := &comps[e.Component]
	if e.Chunk < c.first || e.Chunk >= c.count {
		return 0, mapError(vc, "names chunk %d of %s, which has %d to %d", e.Chunk, v.component(e.Component).name(), c.first, c.count-1)
	}
	n := uint32(1)
	if v.order == ondisk.LittleEndian && e.Chunk < c.usable {
		most := min(uint32(len(b)/ondisk.EntrySize), c.usable-e.Chunk)
		if n = most; !inOrder {
			n = runLength(b, most)
		}
	}
	word := chunkmap.WordOf(alloc.Phys{Comp: e.Component, Chunk: e.Chunk})
	switch {
	case e.Chunk >= c.usable:
		// The kernel class allocated the chunk that holds the metadata sector; it
		// is served, but for that sector, and in no pool.
	case c.pool.ClaimRun(e.Chunk, n):
	case c.pool.Claim(e.Chunk):
		n = 1 // one behind it is taken: each is looked at on its own
	default:
		return 0, mapError(vc, "names chunk %d of %s, which another virtual chunk has", e.Chunk, v.component(e.Component).name())
	}
	v.chunks.SetRun(vc, word, uint64(n))
	return int(n), nil
}

// runLength is how many entries from the first in b on, little-endian and at most
// most, which b has, name one chunk after the other.
func runLength(b []byte, most uint32) (n uint32) {
	le := binary.LittleEndian
	for want := le.Uint64(b); n < most && le.Uint64(b[n*ondisk.EntrySize:]) == want; n++ {
		want += mapio.NextEntry
	}
	return n
}
