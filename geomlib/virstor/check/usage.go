package check

import (
	"errors"
	"fmt"

	"github.com/gvirstor/gvirstor/ondisk"
)

var errStop = errors.New("found")

// checkUsage looks at how the components are filled. What the kernel class
// would do with the volume is an error where it has it (version 1), and else
// what keeps it from being handed back.
func (v *volumeCheck) checkUsage() {
	unfenced := v.Fence == FenceNone
	if unfenced && !v.in.opt.Live {
		v.checkExchanged()
	}
	room := -1 // the first component that is not full
	for i := range v.maps {
		m, b := v.at(i), v.maps[i]
		if m == nil || b == nil {
			continue
		}
		first := uint32(m.want.ChunkReserved)
		v.Components[i].Used, v.Components[i].Holes = b.used, b.holes(first)
		v.checkLastSector(m, i, b)
		if holes := b.holes(first); holes > 0 {
			v.findPlacement(unfenced, Holes, m, fmt.Sprintf("%d free chunks lie below used ones, the first is chunk %d", holes, b.firstHole(first)),
				"and the kernel class, which counts instead of looking, would hand out chunks that are in use")
		}
		full := first+b.used >= m.dataEnd()
		if full && room >= 0 {
			v.findPlacement(unfenced, FillOrder, m, fmt.Sprintf("is full while %s before it is not", v.componentName(room)),
				"and the kernel class would go on behind its end")
		}
		if !full && room < 0 {
			room = i
		}
		if unfenced && !v.in.opt.Live {
			v.checkStale(m, b)
		}
	}
}

func (v *volumeCheck) findPlacement(unfenced bool, code Code, m *member, what, danger string) {
	if unfenced {
		v.find(Finding{Severity: Error, Code: code, Provider: m.name(), Mend: MendByHand, Text: what + ", " + danger,
			Remedy: "Keep the kernel class off it. Start the volume, which fences it, and run `gvirstor pack`."})
		return
	}
	v.find(Finding{Severity: Info, Code: code, Provider: m.name(), Text: what,
		Remedy: "That is normal, but before the volume can be handed to the kernel class `gvirstor pack` must have run."})
}

// checkLastSector looks at a chunk that reaches into the metadata sector.
func (v *volumeCheck) checkLastSector(m *member, i int, b *bitmap) {
	usable := m.usable(m.want.ChunkSize)
	if m.want.ChunkCount <= usable {
		return
	}
	if r := v.geometry.Components[i]; r.Count > usable && b.has(usable) {
		vc, ok := v.ownerOf(i, usable)
		f := Finding{Severity: Error, Code: LastSectorUsed, Provider: m.name(), Mend: MendByHand,
			Text: fmt.Sprintf("chunk %d, which ends in the metadata sector, is allocated to virtual chunk %d: its last %d bytes cannot be used",
				usable, vc, m.p.SectorSize()),
			Remedy: "Never hand it to the kernel class. Start the volume and move its chunks to another component (`gvirstor evacuate`)."}
		if ok {
			f.Virtual = &vc
		}
		v.find(f)
		return
	}
	if v.in.opt.Live {
		return
	}
	m.mend(fmt.Sprintf("chunk %d would reach into the metadata sector", usable), func(w *ondisk.Metadata) {
		w.ChunkCount = usable
		w.ChunkNext = min(w.ChunkNext, max(usable, uint32(w.ChunkReserved)))
	})
	v.find(Finding{Severity: Warning, Code: LastSectorReach, Provider: m.name(), Mend: MendRepair,
		Text: fmt.Sprintf("metadata says %d chunks, of which the last reaches into the metadata sector: the kernel class would write over it; it is not allocated",
			usable+1),
		Remedy: "The next start lowers the number to what fits, and so does `gvirstor repair`."})
}

// ownerOf is the virtual chunk on a chunk.
func (v *volumeCheck) ownerOf(component int, chunk uint32) (owner uint64, ok bool) {
	err := v.scanner().Each(v.in.ctx, func(vc uint64, raw []byte) error {
		verdict, e := v.geometry.Judge(raw)
		if (verdict == EntryGood || verdict == StripFlags) && int(e.Component) == component && e.Chunk == chunk {
			owner = vc
			return errStop
		}
		return nil
	})
	return owner, err == errStop
}

// checkStale compares metadata that the kernel class goes by with the map. It
// writes it only when it closes the volume.
func (v *volumeCheck) checkStale(m *member, b *bitmap) {
	next := uint32(m.want.ChunkReserved) + b.used
	if !v.MapChecked || v.overflow || len(v.doubled)+len(v.suspects) > 0 {
		return
	}
	if m.want.ChunkNext != next {
		v.overruled(m, MetadataChunkNext, fmt.Sprintf("metadata says that the next chunk to allocate is %d; by the allocation map it is %d", m.want.ChunkNext, next),
			func(w *ondisk.Metadata) { w.ChunkNext = min(next, w.ChunkCount) })
	}
	if has, should := m.want.Flags&ondisk.FlagAllocated != 0, next > 0; has != should {
		text := "is not flagged as allocated, though it holds data: the kernel class would remove it"
		if has {
			text = "is flagged as allocated, though nothing on it is"
		}
		v.overruled(m, MetadataFlags, text, func(w *ondisk.Metadata) { w.Flags ^= ondisk.FlagAllocated })
	}
}

// checkExchanged finds two components whose numbers of chunks in use by the map
// are each other's by the metadata: their indexes may have been exchanged.
func (v *volumeCheck) checkExchanged() {
	var off []int
	for i := range v.maps {
		m, b := v.at(i), v.maps[i]
		if m != nil && b != nil && m.want.ChunkNext != uint32(m.want.ChunkReserved)+b.used {
			off = append(off, i)
		}
	}
	if len(off) != 2 || off[0] == 0 {
		return
	}
	a, b := v.at(off[0]), v.at(off[1])
	usedA, usedB := v.maps[off[0]].used, v.maps[off[1]].used
	if usedA == usedB || a.want.ChunkNext != usedB || b.want.ChunkNext != usedA {
		return
	}
	v.find(Finding{Severity: Error, Code: ComponentSwapped, Provider: a.name(), Mend: MendByHand,
		Text: fmt.Sprintf("it and %s seem to have exchanged their indexes %d and %d: by the allocation map each has as many chunks in use as the metadata of the other says",
			b.name(), off[0], off[1]),
		Remedy: "Start it read-only and look at the data. `gvirstor restore` writes the metadata again from a backup."})
}
