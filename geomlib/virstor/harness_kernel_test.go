package virstor

import (
	"fmt"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
	"github.com/gvirstor/gvirstor/ondisk"
)

// kernelVerdict is what the kernel class would make of raw disks.
type kernelVerdict uint8

const (
	kernelRefuses    kernelVerdict = iota // no component is taken
	kernelIncomplete                      // some are, not all: no provider appears
	kernelRuns                            // and can go on until it is full
)

// kernelTakes models the kernel class: its taste, its check of the map, its
// recount, and its allocation until all is full (sys/geom/virstor/g_virstor.c:
// g_virstor_taste, virstor_check_and_run, allocate_chunk). An error is a way in which
// it would destroy data.
func kernelTakes(disks []geomlib.Provider) (kernelVerdict, error) {
	var taken []ondisk.Metadata
	var on []geomlib.Provider
	for _, d := range disks {
		m, err := geomlib.ReadMetadata(d)
		if err != nil || m.Version > ondisk.Version || m.ProviderSize != uint64(d.MediaSize()) {
			continue
		}
		taken, on = append(taken, m), append(on, d)
	}
	if len(taken) == 0 {
		return kernelRefuses, nil
	}
	verdict := kernelIncomplete
	for _, first := range taken { // whichever is tasted first makes the geom
		comps := make([]*kernelComponent, first.Count)
		have := 0
		for i, m := range taken {
			if m.Name != first.Name || m.ID != first.ID || int(m.No) >= len(comps) || comps[m.No] != nil {
				continue
			}
			comps[m.No] = &kernelComponent{meta: m, p: on[i], next: m.ChunkNext}
			have++
		}
		if have < len(comps) {
			continue
		}
		verdict = kernelRuns
		if err := kernelFill(first, comps); err != nil {
			return verdict, err
		}
	}
	return verdict, nil
}

type kernelComponent struct {
	meta ondisk.Metadata
	p    geomlib.Provider
	next uint32
}

// kernelFill lets the kernel class, which knows the volume as first describes it,
// allocate every virtual chunk that is not.
func kernelFill(first ondisk.Metadata, comps []*kernelComponent) error {
	zero := comps[0]
	current := len(comps) - 1
	for i, c := range comps {
		if c.next < c.meta.ChunkCount {
			current = i
			break
		}
	}
	raw := make([]byte, first.MapBytes())
	if _, err := zero.p.ReadAt(raw, 0); err != nil {
		return err
	}
	for _, c := range comps {
		c.next = uint32(c.meta.ChunkReserved)
	}
	used := make(map[alloc.Phys]uint64)
	free := 0
	for vc := uint64(0); vc < first.Entries(); vc++ {
		e := ondisk.DecodeEntry(raw[vc*ondisk.EntrySize:], ondisk.LittleEndian)
		if int(e.Component) >= len(comps) || e.Chunk >= comps[e.Component].meta.ChunkCount {
			return fmt.Errorf("the kernel class refuses map entry %d: %+v", vc, e)
		}
		if !e.Allocated() {
			free++
			continue
		}
		p := alloc.Phys{Comp: e.Component, Chunk: e.Chunk}
		if other, twice := used[p]; twice {
			return fmt.Errorf("chunk %v is mapped by %d and %d", p, other, vc)
		}
		used[p] = vc
		comps[e.Component].next++
	}
	for range free {
		c := comps[current]
		if c.next >= c.meta.ChunkCount {
			if current == len(comps)-1 {
				return nil // all physical space allocated
			}
			current++
			c = comps[current]
			c.next = max(c.next, uint32(c.meta.ChunkReserved))
		}
		p := alloc.Phys{Comp: uint16(current), Chunk: c.next}
		c.next++
		if vc, twice := used[p]; twice {
			return fmt.Errorf("the kernel class hands out chunk %v, which virtual chunk %d has", p, vc)
		}
		used[p] = 0
		size := int64(first.ChunkSize)
		if (int64(p.Chunk)+1)*size > c.p.MediaSize()-int64(c.p.SectorSize()) {
			return fmt.Errorf("the kernel class hands out chunk %v, which holds the metadata sector", p)
		}
	}
	return nil
}
