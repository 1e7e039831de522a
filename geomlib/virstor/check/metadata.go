package check

import (
	"fmt"
	"math"
	"strings"

	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/mapio"
	"github.com/gvirstor/gvirstor/ondisk"
)

// The sectors that a volume can have, bytes (ondisk.ErrSectorSize).
const (
	minSector = 512
	maxSector = 64 << 10
)

const (
	remedyRepair  = "`gvirstor repair` writes what it should be."
	remedyRestore = "`gvirstor restore` brings the map back from a backup."
	remedyBackup  = "`gvirstor restore` writes it again from a backup."
)

// fixed adds a finding that repair mends, and mends it in what is wanted.
func (v *volumeCheck) fixed(m *member, code Code, sev Severity, text string, set func(*ondisk.Metadata)) {
	m.mend(text, set)
	v.find(Finding{Severity: sev, Code: code, Provider: m.name(), Mend: MendRepair, Prevents: sev == Error, Text: text, Remedy: remedyRepair})
}

// overruled adds a finding of what the next start and repair put right by
// themselves: what component 0 overrules.
func (v *volumeCheck) overruled(m *member, code Code, text string, set func(*ondisk.Metadata)) {
	if v.in.opt.Live {
		set(&m.want)
		return
	}
	m.mend(text, set)
	v.find(Finding{Severity: Warning, Code: code, Provider: m.name(), Mend: MendRepair, Text: text,
		Remedy: "The next start mends it, and so does `gvirstor repair`."})
}

// stuck adds a finding that nobody can mend for the user.
func (v *volumeCheck) stuck(m *member, code Code, text, remedy string) {
	v.find(Finding{Severity: Error, Code: code, Provider: m.name(), Mend: MendByHand, Prevents: true, Text: text, Remedy: remedy})
}

// checkMoved looks at metadata that was found before the last sector.
func (v *volumeCheck) checkMoved() {
	for _, m := range v.members {
		if m.moved == 0 {
			continue
		}
		media := m.p.MediaSize()
		v.find(Finding{Severity: Error, Code: ProviderGrown, Provider: m.name(), Mend: MendRepair, Prevents: true,
			Text: fmt.Sprintf("has grown from %d to %d bytes: its metadata lies at byte %d, which was its last sector",
				m.found.ProviderSize, media, m.moved),
			Remedy: "`gvirstor repair` writes it to the last sector of now, which puts the new space to use."})
		m.mend(fmt.Sprintf("the provider grew to %d bytes", media), func(w *ondisk.Metadata) {
			w.ProviderSize, w.ChunkCount = uint64(media), max(w.ChunkCount, m.usable(w.ChunkSize))
		})
	}
}

func (v *volumeCheck) checkVersions() {
	for _, m := range v.members {
		if n := m.found.Version; n != ondisk.Version && n != ondisk.VersionFenced {
			m.broken = true
			v.stuck(m, MetadataVersion, fmt.Sprintf("metadata version %d, known are %d and %d", n, ondisk.Version, ondisk.VersionFenced),
				"It is damaged or a later program wrote it: use that, or "+remedyBackup)
		}
	}
}

func (v *volumeCheck) checkSectorSizes() {
	first := v.members[0]
	for _, m := range v.members {
		if s := m.p.SectorSize(); s < minSector || s > maxSector || s&(s-1) != 0 {
			m.broken = true
			v.stuck(m, SectorSize, fmt.Sprintf("sectors of %d bytes cannot be used", m.p.SectorSize()), "")
		} else if m.p.SectorSize() != first.p.SectorSize() {
			v.stuck(m, SectorSize, fmt.Sprintf("sectors of %d bytes, %s has %d", m.p.SectorSize(), first.name(), first.p.SectorSize()),
				"Attach the components with the same sector size as when they were labelled.")
		}
	}
}

// checkProviderSizes looks at the size that metadata gives its provider.
func (v *volumeCheck) checkProviderSizes() {
	for _, m := range v.members {
		size := uint64(m.p.MediaSize())
		if m.want.ProviderSize == size {
			continue
		}
		// Metadata in the last sector with the number of chunks that fit now:
		// had the provider been resized, it would not be the last sector.
		if m.fits(m.want.ChunkCount, m.want.ChunkSize) {
			v.fixed(m, MetadataProviderSize, Error,
				fmt.Sprintf("metadata says that the provider has %d bytes; it has %d, which its number of chunks agrees with", m.want.ProviderSize, size),
				func(w *ondisk.Metadata) { w.ProviderSize = size })
			continue
		}
		m.leave = true
		what := "has shrunk"
		if size > m.want.ProviderSize {
			what = "has grown"
		}
		v.stuck(m, ProviderResized, fmt.Sprintf("%s: %d bytes now, %d when component %d of %s was written", what, size, m.want.ProviderSize, m.want.No, ondisk.Printable(m.want.Name)),
			"Give the provider its old size again, or attach the right one.")
	}
}

// checkProviderNames looks at hardcoded names.
func (v *volumeCheck) checkProviderNames() {
	for _, m := range v.active() {
		name, hard := m.name(), m.want.Provider
		if hard == "" || hard == name || strings.Contains(name, "/") ||
			len(hard) == ondisk.MaxNameLen && strings.HasPrefix(name, hard) {
			continue
		}
		m.leave = true
		v.stuck(m, ProviderName, fmt.Sprintf("is labelled to be %q", hard),
			fmt.Sprintf("Attach it under that name. If its name has changed for good, `gvirstor restore` writes metadata for %s from a backup.", name))
	}
}

// checkChunkSize settles the size of a chunk, which is the same on all
// components for ever and which the number of chunks on each proves.
func (v *volumeCheck) checkChunkSize() {
	var sizes []uint32
	votes := make(map[uint32]int)
	multiple := uint32(ondisk.SmallChunkMultiple)
	for _, m := range v.active() {
		multiple = max(multiple, ondisk.ChunkMultiple(m.want.Version))
		if votes[m.want.ChunkSize]++; votes[m.want.ChunkSize] == 1 {
			sizes = append(sizes, m.want.ChunkSize)
		}
	}
	if len(sizes) == 1 && sizes[0]%multiple == 0 && sizes[0] != 0 && !v.chunkSizeIsDoubtful(sizes[0]) {
		return
	}
	var right uint32
	best, tie := 0, false
	for _, s := range sizes {
		if s == 0 || s%multiple != 0 {
			continue
		}
		proofs := 0
		for _, m := range v.active() {
			if m.fits(m.want.ChunkCount, s) {
				proofs++
			}
		}
		if proofs == best {
			tie = true
		} else if proofs > best {
			right, best, tie = s, proofs, false
		}
	}
	for _, m := range v.active() {
		s := m.want.ChunkSize
		switch {
		case best > 0 && !tie && s != right:
			v.fixed(m, MetadataChunkSize, Error, fmt.Sprintf("metadata says chunks of %d bytes; the number of chunks on each component proves %d", s, right),
				func(w *ondisk.Metadata) { w.ChunkSize = right })
		case best == 0 || tie:
			m.broken = true
			v.stuck(m, MetadataChunkSize, fmt.Sprintf("metadata says chunks of %d bytes, which cannot be, or which other components contradict", s), remedyBackup)
		}
	}
}

// chunkSizeIsDoubtful reports whether no number of chunks goes with the chunk
// size that all metadata says, but one goes with another size, which all
// else agrees with too. Either may then be damaged.
func (v *volumeCheck) chunkSizeIsDoubtful(size uint32) bool {
	for _, m := range v.active() {
		if m.fits(m.want.ChunkCount, size) {
			return false
		}
	}
	for _, m := range v.active() {
		w := m.want
		n := int64(w.ChunkCount)
		if n == 0 || n > m.p.MediaSize()/ondisk.MinChunkMultiple {
			continue
		}
		const step = ondisk.MinChunkMultiple
		for c := m.p.MediaSize() / (n + 1) / step * step; c <= m.p.MediaSize()/n && c < 1<<32; c += step {
			if c == 0 || !m.fits(w.ChunkCount, uint32(c)) || w.VirtualSize%uint64(c) != 0 {
				continue
			}
			w.ChunkSize = uint32(c)
			if w.MapBytes()%int64(m.p.SectorSize()) == 0 && (w.ChunkReserved == 0 || uint32(w.ChunkReserved) == w.LabelReserves()) {
				return true
			}
		}
	}
	return false
}

// pickZero finds component 0: the one that says so, or the only one that
// reserves chunks for the map.
func (v *volumeCheck) pickZero() {
	var claims, reserving []*member
	for _, m := range v.active() {
		if m.broken {
			continue
		}
		if m.want.No == 0 {
			claims = append(claims, m)
		}
		if m.want.ChunkReserved != 0 {
			reserving = append(reserving, m)
		}
	}
	if len(claims) == 1 {
		v.zero = claims[0]
	}
	if len(claims) == 2 && v.pickReplacing(claims[0], claims[1]) {
		return
	}
	if len(reserving) != 1 || !v.reservesForMap(reserving[0]) {
		return
	}
	r := reserving[0]
	if r.want.No == 0 {
		v.zero = r // others that claim to be are not
		return
	}
	// The kernel and the engine write reserved chunks to component 0 alone.
	was := r.want.No
	other := v.zero
	v.fixed(r, MetadataIndex, Error, fmt.Sprintf("metadata says component %d, but it is the one that reserves chunks for the allocation map: component 0", was),
		func(w *ondisk.Metadata) { w.No = 0 })
	v.zero = r
	if len(claims) == 1 {
		v.fixed(other, MetadataIndex, Error, fmt.Sprintf("metadata says component 0, which is %s, and nothing is component %d", r.name(), was),
			func(w *ondisk.Metadata) { w.No = was })
	}
}

// reservesForMap reports whether m reserves what label does for its map.
func (v *volumeCheck) reservesForMap(m *member) bool {
	n := m.want.LabelReserves()
	return n > 0 && uint32(m.want.ChunkReserved) == n
}

// others are the active members but component 0.
func (v *volumeCheck) others() []*member {
	var out []*member
	for _, m := range v.active() {
		if m != v.zero && !m.broken && !m.former {
			out = append(out, m)
		}
	}
	return out
}

// agreed is what get gives for all others, when they agree and there are any.
func agreed[T comparable](ms []*member, get func(ondisk.Metadata) T) (val T, ok bool) {
	for i, m := range ms {
		if i == 0 {
			val = get(m.want)
		} else if get(m.want) != val {
			return val, false
		}
	}
	return val, len(ms) > 0
}

// checkVirtualSize: component 0 decides. At version 1, which has no resizing,
// or when what it says cannot be, the others may overrule it.
func (v *volumeCheck) checkVirtualSize() {
	if v.zero == nil || v.zero.broken {
		return
	}
	others := v.others()
	theirs, agree := agreed(others, func(m ondisk.Metadata) uint64 { return m.VirtualSize })
	mine := v.zero.want.VirtualSize
	switch {
	case agree && v.othersKnowBetter(mine, theirs, len(others)):
		v.fixed(v.zero, MetadataVirtualSize, Error, fmt.Sprintf("metadata says a virtual size of %d bytes, all other components say %d", mine, theirs),
			func(w *ondisk.Metadata) { w.VirtualSize = theirs })
	case !v.sizeFits(mine) && v.reservedIsWrong():
		// checkChunks mends what is reserved.
	case !v.sizeFits(mine):
		v.zero.broken = true
		v.stuck(v.zero, MetadataVirtualSize, fmt.Sprintf("metadata says a virtual size of %d bytes, which cannot be with chunks of %d bytes of which %d are reserved for the map",
			mine, v.zero.want.ChunkSize, v.zero.want.ChunkReserved), remedyBackup)
	case agree && v.nothingTells(mine, theirs, len(others)):
		v.zero.broken = true
		v.stuck(v.zero, MetadataVirtualSize, fmt.Sprintf("metadata says a virtual size of %d bytes, %s says %d, and nothing tells which is right",
			mine, others[0].name(), theirs), remedyBackup)
	}
	size := v.zero.want.VirtualSize
	for _, m := range others {
		if m.want.VirtualSize != size && !v.zero.broken {
			v.overruled(m, MetadataVirtualSize, fmt.Sprintf("metadata says a virtual size of %d bytes, component 0 says %d", m.want.VirtualSize, size),
				func(w *ondisk.Metadata) { w.VirtualSize = size })
		}
	}
}

// withSize is component 0's metadata with another virtual size.
func (v *volumeCheck) withSize(size uint64) ondisk.Metadata {
	w := v.zero.want
	w.VirtualSize = size
	return w
}

// sizeFits reports whether component 0 can be that of a volume of such a virtual size.
func (v *volumeCheck) sizeFits(size uint64) bool {
	w := v.withSize(size)
	whole := size > 0 && size <= math.MaxInt64 && size%uint64(w.ChunkSize) == 0 && w.MapBytes()%int64(v.zero.p.SectorSize()) == 0
	return whole && uint32(w.ChunkReserved) >= w.MapChunks() && w.MapBytes() < v.zero.p.MediaSize()
}

// sizeIsLabels reports whether label, with what component 0 reserves for its map, gave
// the volume such a virtual size: it reserves just twice what the map takes.
func (v *volumeCheck) sizeIsLabels(size uint64) bool {
	w := v.withSize(size)
	return v.sizeFits(size) && uint32(w.ChunkReserved) == w.LabelReserves()
}

// othersKnowBetter reports whether the others, so many of them and all of one mind, are
// believed about the virtual size, and component 0 is not.
func (v *volumeCheck) othersKnowBetter(mine, theirs uint64, others int) bool {
	switch {
	case v.marked || theirs == mine || !v.sizeFits(theirs):
		return false
	case !v.sizeFits(mine):
		return true
	case theirs > mine && v.mapGoesOn(mine, theirs):
		return true
	case v.zero.found.Version != ondisk.Version:
		return false // has been resized, perhaps, and component 0 is the first to know
	}
	return others > 1 || v.sizeIsLabels(theirs) && !v.sizeIsLabels(mine)
}

// nothingTells reports whether component 0 and one other stand against each other, of a
// volume that was never resized, and either may be right.
func (v *volumeCheck) nothingTells(mine, theirs uint64, others int) bool {
	return v.zero.found.Version == ondisk.Version && theirs != mine && others == 1 && v.sizeIsLabels(theirs) == v.sizeIsLabels(mine)
}

// mapGoesOn reports whether virtual chunks are allocated beyond the size mine of
// component 0, in a map of the size theirs. Shrinking frees them first.
func (v *volumeCheck) mapGoesOn(mine, theirs uint64) bool {
	w := v.withSize(theirs)
	s := mapio.Scanner{Provider: v.zero.p, Size: w.MapBytes(), Unreadable: func(int64, error) {}}
	err := s.Each(v.in.ctx, func(vc uint64, raw []byte) error {
		if vc >= mine/uint64(w.ChunkSize) && ondisk.DetectOrder(raw) != ondisk.OrderUnknown {
			return errStop
		}
		return nil
	})
	return err == errStop
}

// reservedIsWrong: the virtual size is one that a volume can have, all
// components agree on it, and only the number of reserved chunks contradicts.
func (v *volumeCheck) reservedIsWrong() bool {
	w := v.zero.want
	if w.VirtualSize == 0 || w.VirtualSize > math.MaxInt64 || w.VirtualSize%uint64(w.ChunkSize) != 0 || w.MapBytes()%int64(v.zero.p.SectorSize()) != 0 ||
		w.LabelReserves() > ondisk.MaxReserved || w.LabelReserves() >= v.zero.usable(w.ChunkSize) {
		return false
	}
	theirs, agree := agreed(v.others(), func(m ondisk.Metadata) uint64 { return m.VirtualSize })
	// Alone, what it was labelled with is proved by the count of chunks
	// allocated next, which is never below the reserved ones.
	return agree && theirs == w.VirtualSize || len(v.others()) == 0 && w.ChunkNext >= w.LabelReserves() && w.ChunkNext <= w.ChunkCount
}

// checkName: component 0 decides, unless two others agree against it or its
// name is none.
func (v *volumeCheck) checkName() {
	if v.zero == nil {
		return
	}
	others := v.others()
	theirs, agree := agreed(others, func(m ondisk.Metadata) string { return m.Name })
	mine := v.zero.want.Name
	if !v.marked && agree && theirs != mine && nameIsGood(theirs) && (len(others) > 1 || !nameIsGood(mine)) {
		v.fixed(v.zero, MetadataName, Error, fmt.Sprintf("metadata names the volume %q, all other components name it %q", mine, theirs),
			func(w *ondisk.Metadata) { w.Name = theirs })
	} else if !nameIsGood(mine) {
		v.stuck(v.zero, MetadataName, fmt.Sprintf("metadata names the volume %q, which is no name for a device", mine), remedyBackup)
	}
	for _, m := range others {
		if name := v.zero.want.Name; m.want.Name != name {
			v.overruled(m, MetadataName, fmt.Sprintf("metadata names the volume %q, component 0 names it %q", m.want.Name, name),
				func(w *ondisk.Metadata) { w.Name = name })
		}
	}
	v.Name = ondisk.Printable(v.zero.want.Name)
}

func nameIsGood(name string) bool {
	m := ondisk.Metadata{Version: ondisk.Version, Name: name, VirtualSize: 64 * ondisk.MinChunkMultiple, ChunkSize: ondisk.MinChunkMultiple,
		Count: 2, No: 1, ProviderSize: 512}
	return m.Validate(512, 512) == nil
}
