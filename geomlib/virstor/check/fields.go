package check

import (
	"errors"
	"fmt"

	"github.com/gvirstor/gvirstor/ondisk"
)

// checkCount: component 0 decides how many components there are. It is
// overruled when it cannot be right and all others say what can.
func (v *volumeCheck) checkCount() {
	if v.zero == nil {
		return
	}
	others := v.others()
	theirs, agree := agreed(others, func(m ondisk.Metadata) uint16 { return m.Count })
	mine := v.zero.want.Count
	present := v.contiguous()
	switch {
	case mine == theirs && agree, len(others) == 0 && mine != 0:
	case agree && int(theirs) == present && (int(mine) > present || v.mapNames(int(mine), present)):
		// More than there are: nobody has those. Fewer: the map names the rest.
		if int(mine) > present && v.mapNames(present, int(mine)) {
			break
		}
		v.fixed(v.zero, MetadataCount, Error, fmt.Sprintf("metadata says %d components; all %d others say %d, and these are there", mine, len(others), theirs),
			func(w *ondisk.Metadata) { w.Count = theirs })
	case mine == 0:
		if present == 1 && len(others) == 0 && !v.mapNames(1, 65536) {
			v.fixed(v.zero, MetadataCount, Error, "metadata says 0 components; the allocation map names but this one",
				func(w *ondisk.Metadata) { w.Count = 1 })
			break
		}
		v.zero.broken = true
		v.stuck(v.zero, MetadataCount, "metadata says 0 components", remedyBackup)
	}
	count := v.zero.want.Count
	for _, m := range others {
		if m.want.Count != count && m.want.No < count {
			v.overruled(m, MetadataCount, fmt.Sprintf("metadata says %d components, component 0 says %d", m.want.Count, count),
				func(w *ondisk.Metadata) { w.Count = count })
		}
	}
}

// contiguous is how many indexes from 0 on are there, each once.
func (v *volumeCheck) contiguous() int {
	have := make(map[uint16]int)
	for _, m := range v.active() {
		have[m.want.No]++
	}
	n := 0
	for have[uint16(n)] == 1 && n < len(v.members) {
		n++
	}
	return n
}

// checkIndexes looks for indexes that two providers claim and that none does.
func (v *volumeCheck) checkIndexes() {
	if v.zero == nil || v.zero.broken {
		v.findDoubled()
		return
	}
	count := int(v.zero.want.Count)
	var free []uint16
	var bad []*member
	for i := range count {
		if !v.hasIndex(uint16(i)) {
			if free = append(free, uint16(i)); len(free) > len(v.members)+1 {
				break
			}
		}
	}
	for _, m := range v.others() {
		switch no := m.want.No; {
		case no == 0:
			bad = append(bad, m) // nothing but component 0 reserves chunks
		case int(no) < count:
		case no >= m.want.Count:
			bad = append(bad, m) // an add would have counted itself
		default:
			v.leftover(m)
		}
	}
	for _, m := range bad {
		if len(bad) == 1 && len(free) == 1 && (m.want.No != 0 || m.want.ChunkReserved == 0) {
			v.fixed(m, MetadataIndex, Error, fmt.Sprintf("metadata says component %d of %d, and only component %d is not there", m.want.No, count, free[0]),
				func(w *ondisk.Metadata) { w.No, w.Count = free[0], v.zero.want.Count })
			continue
		}
		if m.want.No == 0 {
			continue // findDoubled tells
		}
		m.leave = true
		v.stuck(m, MetadataIndex, fmt.Sprintf("metadata says component %d of %d", m.want.No, count), remedyBackup)
	}
	v.findDoubled()
}

// leftover is a component that component 0 does not count: of an add that was
// interrupted before it counted, or a removal after that.
func (v *volumeCheck) leftover(m *member) {
	m.why = append(m.why, "component 0 does not count it")
	if v.mapNames(int(m.want.No), int(m.want.No)+1) {
		m.leave = true
		v.stuck(m, AddInterrupted, fmt.Sprintf("is component %d, component 0 says there are %d, and yet the allocation map names it", m.want.No, v.zero.want.Count), remedyBackup)
		return
	}
	if v.in.opt.Live {
		m.leave = true
		v.find(Finding{Severity: Info, Code: AddInterrupted, Provider: m.name(), Text: "is no component, or not yet"})
		return
	}
	m.clear = true
	v.find(Finding{Severity: Warning, Code: AddInterrupted, Provider: m.name(), Mend: MendRepair,
		Text:   fmt.Sprintf("is component %d by its metadata, but component 0 says there are %d: left by an interrupted add or remove", m.want.No, v.zero.want.Count),
		Remedy: "`gvirstor repair` clears its metadata; it holds no data of the volume."})
}

func (v *volumeCheck) findDoubled() {
	first := make(map[uint16]*member)
	for _, m := range v.active() {
		o := first[m.want.No]
		if o == nil {
			first[m.want.No] = m
			continue
		}
		if m.former || o.former {
			continue
		}
		v.find(Finding{Severity: Error, Code: ComponentDoubled, Provider: m.name(), Mend: MendByHand, Prevents: true,
			Text:   fmt.Sprintf("it and %s are both component %d", o.name(), m.want.No),
			Remedy: "If one is a copy, name the other alone. If both hold data, `gvirstor restore` writes their metadata again from a backup."})
	}
}

// pickReplacing settles which of two providers is component 0 while it is being
// replaced: their extension blocks tell.
func (v *volumeCheck) pickReplacing(a, b *member) bool {
	if a.want.ChunkReserved == 0 || b.want.ChunkReserved == 0 {
		return false
	}
	ea, okA := readExtension(a)
	eb, okB := readExtension(b)
	if !okA && !okB || okA && okB && ea.Sequence == eb.Sequence {
		return false
	}
	v.zero, b.former = a, true
	if !okA || okB && eb.Sequence > ea.Sequence {
		v.zero, a.former, b.former = b, true, false
	}
	return true
}

// checkChunks looks at how each component is divided.
func (v *volumeCheck) checkChunks() {
	for _, m := range v.active() {
		if m.broken || m.former || v.zero == nil || v.zero.broken {
			continue
		}
		v.checkReserved(m)
		v.checkChunkCount(m)
		v.checkChunkNext(m)
		if unknown := m.want.Flags &^ (ondisk.FlagAllocated | ondisk.FlagCurrent); unknown != 0 {
			m.mend("unknown flags", func(w *ondisk.Metadata) { w.Flags &= ondisk.FlagAllocated | ondisk.FlagCurrent })
			v.find(Finding{Severity: Warning, Code: MetadataFlags, Provider: m.name(), Mend: MendRepair,
				Text: fmt.Sprintf("metadata has unknown flags %#x", unknown), Remedy: remedyRepair})
		}
		w := m.want
		if v.zero != nil {
			w.Count = max(w.Count, w.No+1, 1)
			w.VirtualSize, w.Name = v.zero.want.VirtualSize, v.zero.want.Name
		}
		if err := w.Validate(m.p.MediaSize(), m.p.SectorSize()); err != nil && !errors.Is(err, ondisk.ErrLastSector) && !v.named(m, err) {
			v.stuck(m, MetadataInvalid, err.Error(), remedyBackup)
			m.broken = true
		}
	}
}

// named reports whether another finding says already what err does.
func (v *volumeCheck) named(m *member, err error) bool {
	return errors.Is(err, ondisk.ErrName) || errors.Is(err, ondisk.ErrSectorSize)
}

func (v *volumeCheck) checkReserved(m *member) {
	r := uint32(m.want.ChunkReserved)
	if m != v.zero {
		if r != 0 {
			v.fixed(m, MetadataReserved, Error, fmt.Sprintf("metadata reserves %d chunks; only component 0 reserves any", r),
				func(w *ondisk.Metadata) { w.ChunkReserved = 0 })
		}
		return
	}
	if n, proved := v.provedReserved(m); proved {
		if n != r {
			v.fixed(m, MetadataReserved, Error, fmt.Sprintf("metadata reserves %d chunks; the extension block lies where %d are", r, n),
				func(w *ondisk.Metadata) { w.ChunkReserved = uint16(n) })
		}
		return
	}
	want := m.want.LabelReserves()
	if r == want {
		return
	}
	tooMany := r >= m.usable(m.want.ChunkSize) || v.mapNamesBelow(want, r)
	switch {
	case r < m.want.MapChunks() || tooMany:
		if v.mapNamesBelow(0, want) {
			m.broken = true
			v.stuck(m, MetadataReserved, fmt.Sprintf("metadata reserves %d chunks for a map of %d, and label's %d would cover data", r, m.want.MapChunks(), want), remedyBackup)
			return
		}
		v.fixed(m, MetadataReserved, Error, fmt.Sprintf("metadata reserves %d chunks for a map of %d; label reserves %d", r, m.want.MapChunks(), want),
			func(w *ondisk.Metadata) { w.ChunkReserved = uint16(want) })
	case m.found.Version == ondisk.Version && r != m.want.MapChunks():
		v.find(Finding{Severity: Info, Code: MetadataReserved, Provider: m.name(),
			Text: fmt.Sprintf("metadata reserves %d chunks for a map of %d; label reserves %d", r, m.want.MapChunks(), want)})
	}
}

// fewestChunks is what label and add make of a component of the least size, four
// chunks, the last of which holds the metadata.
const fewestChunks = 3

func (v *volumeCheck) checkChunkCount(m *member) {
	n, usable := m.want.ChunkCount, m.usable(m.want.ChunkSize)
	switch {
	case uint64(n)*uint64(m.want.ChunkSize) > uint64(m.p.MediaSize()):
		v.fixed(m, MetadataChunkCount, Error, fmt.Sprintf("metadata says %d chunks, %d fit", n, usable),
			func(w *ondisk.Metadata) { w.ChunkCount = usable })
	case n < usable && m.moved == 0 && (n < uint32(m.want.ChunkReserved) || n < m.want.ChunkNext || v.mapNamesFrom(m, n)):
		v.fixed(m, MetadataChunkCount, Error, fmt.Sprintf("metadata says %d chunks, but more are in use; %d fit", n, usable),
			func(w *ondisk.Metadata) { w.ChunkCount = usable })
	case n < fewestChunks && n < usable && m.moved == 0:
		// The kernel class would step to it and go on behind its end.
		v.fixed(m, MetadataChunkCount, Error, fmt.Sprintf("metadata says %d chunks, fewer than a component is ever made with; %d fit", n, usable),
			func(w *ondisk.Metadata) { w.ChunkCount = usable })
	case n < usable && m.moved == 0:
		v.find(Finding{Severity: Info, Code: MetadataChunkCount, Provider: m.name(),
			Text: fmt.Sprintf("metadata says %d chunks, %d would fit", n, usable)})
	}
}

// checkChunkNext looks at what cannot be. What is merely out of date depends on
// the map.
func (v *volumeCheck) checkChunkNext(m *member) {
	next, first, count := m.want.ChunkNext, uint32(m.want.ChunkReserved), m.want.ChunkCount
	if next >= first && next <= max(first, count) {
		return
	}
	v.fixed(m, MetadataChunkNext, Error, fmt.Sprintf("metadata says that the next chunk to allocate is %d, possible are %d to %d", next, first, count),
		func(w *ondisk.Metadata) { w.ChunkNext = min(max(next, first), max(first, count)) })
}
