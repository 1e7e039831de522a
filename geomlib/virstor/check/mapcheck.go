package check

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/mapio"
	"github.com/gvirstor/gvirstor/ondisk"
)

// geometryIsSound reports whether the map can be read: component 0 is known
// and says where it ends.
func (v *volumeCheck) geometryIsSound() bool {
	if v.zero == nil || v.zero.broken || v.assembly == nil || len(v.assembly.Members) == 0 {
		return false
	}
	w := v.zero.want
	w.Count = max(w.Count, 1)
	return v.mapSize() > 0
}

// mapSize is the size in bytes of the map as far as it can be read, 0 when
// it cannot.
func (v *volumeCheck) mapSize() int64 {
	if v.zero == nil || v.zero.broken {
		return 0
	}
	n := v.zero.want.MapBytes()
	sector := int64(v.zero.p.SectorSize())
	if n%sector != 0 || n > v.zero.p.MediaSize()-sector {
		return 0
	}
	return n
}

func (v *volumeCheck) scanner() mapio.Scanner {
	s := mapio.Scanner{Provider: v.zero.p, Size: v.mapSize(), Unreadable: func(int64, error) {}}
	if tell := v.in.opt.Progress; tell != nil {
		before := v.scanned
		// Twice is the rule: for the byte order, and for the entries.
		total := max(2, before/max(s.Size, 1)+1) * s.Size
		s.Progress = func(done int64) { tell(before+done, total) }
		v.scanned += s.Size
	}
	return s
}

// mapNames reports whether an allocated entry names a component from lo up to
// but not hi. The order is the one most entries have.
func (v *volumeCheck) mapNames(lo, hi int) bool {
	return v.mapHas(func(e ondisk.Entry) bool { return int(e.Component) >= lo && int(e.Component) < hi })
}

// mapNamesBelow reports whether an allocated entry names a chunk of component 0
// from lo up to but not hi.
func (v *volumeCheck) mapNamesBelow(lo, hi uint32) bool {
	return v.mapHas(func(e ondisk.Entry) bool { return e.Component == 0 && e.Chunk >= lo && e.Chunk < hi })
}

// mapNamesFrom reports whether an allocated entry names a chunk of m that fits
// on m but is not below n.
func (v *volumeCheck) mapNamesFrom(m *member, n uint32) bool {
	fit := m.usable(m.want.ChunkSize)
	return v.mapHas(func(e ondisk.Entry) bool { return e.Component == m.want.No && e.Chunk >= n && e.Chunk < fit })
}

func (v *volumeCheck) mapHas(is func(ondisk.Entry) bool) bool {
	if v.mapSize() == 0 {
		return false
	}
	order, _, _, err := v.countOrders()
	if err != nil {
		return false
	}
	err = v.scanner().Each(v.in.ctx, func(_ uint64, raw []byte) error {
		if e := ondisk.DecodeEntry(raw, order); e.Flags == ondisk.FlagAllocated && is(e) {
			return errStop
		}
		return nil
	})
	return err == errStop
}

// countOrders counts the entries that are allocated in one byte order only,
// and returns the order of most.
func (v *volumeCheck) countOrders() (most ondisk.Order, little, big uint64, err error) {
	err = v.scanner().Each(v.in.ctx, func(_ uint64, raw []byte) error {
		switch ondisk.DetectOrder(raw) {
		case ondisk.LittleEndian:
			little++
		case ondisk.BigEndian:
			big++
		}
		return nil
	})
	most = ondisk.LittleEndian
	if big > little {
		most = ondisk.BigEndian
	}
	return most, little, big, err
}

// checkMap judges every entry of the map.
func (v *volumeCheck) checkMap() error {
	order, little, big, err := v.countOrders()
	if err != nil {
		return err
	}
	v.geometry.Order, v.Order = order, order.String()
	if little > 0 && big > 0 && !v.in.opt.Live {
		v.find(Finding{Severity: Warning, Code: MapByteOrder, Provider: v.zero.name(),
			Text: fmt.Sprintf("%d entries of the allocation map are %v and %d are %v; the map is taken to be %v",
				little, ondisk.LittleEndian, big, ondisk.BigEndian, order)})
	}
	v.setRanges()
	scan := v.scanner()
	scan.Unreadable = func(off int64, err error) {
		per := uint64(v.zero.p.SectorSize() / ondisk.EntrySize)
		first := uint64(off / ondisk.EntrySize)
		v.overflow = true
		v.find(Finding{Severity: Error, Code: MapUnreadable, Provider: v.zero.name(), Mend: MendByHand, Prevents: true, Virtual: &first,
			Text:   fmt.Sprintf("the allocation map cannot be read at byte %d, where virtual chunks %d to %d are: %v", off, first, first+per-1, err),
			Remedy: "Copy component 0 to another disk, then `gvirstor restore` the map from a backup."})
	}
	twice := make(map[uint64]struct{})
	var unsure []Suspect // unallocated entries that name a chunk
	unsureMore := false
	err = scan.Each(v.in.ctx, func(vc uint64, raw []byte) error {
		verdict, e := v.judge(vc, raw)
		switch verdict {
		case EntryFree:
		case EntryGood:
			v.claim(e, twice)
		case StripFlags:
			v.cleared = true
			v.findEntry(vc, Error, EntryFlags, MendRepair, fmt.Sprintf("has unknown flags %#x", e.Flags&^ondisk.FlagAllocated))
			v.claim(e, twice)
		case ClearEntry:
			v.findGarbage(vc, e)
		case MayBeLost, OtherOrder:
			if len(unsure) == keptSuspects {
				unsureMore = true
				break
			}
			unsure = append(unsure, Suspect{Virtual: vc, Verdict: verdict, As: &e})
		default:
			v.suspect(vc, verdict, e)
		}
		return nil
	})
	if err != nil {
		return err
	}
	v.judgeUnsure(unsure, unsureMore)
	if len(twice) > 0 {
		if err := v.findOwners(twice); err != nil {
			return err
		}
	}
	slices.SortFunc(v.suspects, func(a, b Suspect) int { return int(int64(a.Virtual) - int64(b.Virtual)) })
	v.MapChecked = v.listed[MapUnreadable] == 0
	return nil
}

// judge judges an entry. Of a volume in use it is read again before it is
// believed to be wrong.
func (v *volumeCheck) judge(vc uint64, raw []byte) (Verdict, ondisk.Entry) {
	verdict, e := v.geometry.Judge(raw)
	if !v.in.opt.Live || verdict == EntryFree || verdict == EntryGood {
		return verdict, e
	}
	again, err := v.reread(vc)
	if err != nil {
		return EntryFree, e // whoever serves it reports errors of the disk
	}
	return v.geometry.Judge(again)
}

// reread reads one entry.
func (v *volumeCheck) reread(vc uint64) ([]byte, error) {
	sector := int64(v.zero.p.SectorSize())
	at := int64(vc) * ondisk.EntrySize
	b := make([]byte, sector)
	if _, err := v.zero.p.ReadAt(b, at/sector*sector); err != nil {
		return nil, err
	}
	return b[at%sector:][:ondisk.EntrySize], nil
}

// setRanges sets what entries may name.
func (v *volumeCheck) setRanges() {
	n := len(v.assembly.Members)
	v.geometry.Components = make([]Range, n)
	v.maps = make([]*bitmap, n)
	for i := range n {
		m := v.at(i)
		if m == nil || m.broken {
			continue
		}
		count := m.want.ChunkCount
		if m.want.ChunkSize != 0 {
			count = uint32(min(uint64(count), uint64(m.p.MediaSize())/uint64(m.want.ChunkSize), math.MaxUint32))
		}
		v.geometry.Components[i] = Range{Known: true, First: uint32(m.want.ChunkReserved), Count: count}
		v.maps[i] = newBitmap(count)
	}
	// While a component is being removed, entries name the last one by its old
	// index or by its new one.
	if i := v.ext.Intent; v.extOK && i.Kind == ondisk.IntentRemove && int(i.Arg[1]) == n && int(i.Arg[0]) < n {
		v.geometry.Components = append(v.geometry.Components, v.geometry.Components[i.Arg[0]])
		v.maps = append(v.maps, v.maps[i.Arg[0]])
	}
}

// claim takes the chunk of a good entry.
func (v *volumeCheck) claim(e ondisk.Entry, twice map[uint64]struct{}) {
	v.Allocated++
	b := v.maps[e.Component]
	if b == nil || b.claim(e.Chunk) {
		return
	}
	if len(twice) < keptSuspects {
		twice[chunkKey(e)] = struct{}{}
	} else {
		v.overflow = true
	}
}

func chunkKey(e ondisk.Entry) uint64 { return uint64(e.Component)<<32 | uint64(e.Chunk) }

func (v *volumeCheck) findEntry(vc uint64, sev Severity, code Code, mend Mend, what string) {
	remedy := remedyRepair
	if mend == MendChoice {
		remedy = fmt.Sprintf("`gvirstor repair --drop %d` gives up what the virtual chunk holds; %s", vc, remedyRestore)
	}
	v.find(Finding{Severity: sev, Code: code, Provider: v.zero.name(), Mend: mend, Prevents: sev == Error, Virtual: &vc,
		Text: fmt.Sprintf("map entry of virtual chunk %d %s", vc, what), Remedy: remedy})
}

func (v *volumeCheck) findGarbage(vc uint64, e ondisk.Entry) {
	v.cleared = true
	sev, why := Warning, "which means nothing"
	if e.Flags != 0 {
		sev, why = Error, "with unknown flags"
	} else if v.geometry.place(e) == BadComponent || v.geometry.place(e) == BadRange {
		why = "and the kernel class would refuse the volume for it"
	}
	v.findEntry(vc, sev, EntryGarbage, MendRepair,
		fmt.Sprintf("is unallocated, yet holds flags %#x, component %d, chunk %d, %s", e.Flags, e.Component, e.Chunk, why))
}

// suspect keeps an entry that can only be dropped.
func (v *volumeCheck) suspect(vc uint64, verdict Verdict, e ondisk.Entry) {
	v.Allocated++
	if len(v.suspects) < keptSuspects {
		v.suspects = append(v.suspects, Suspect{Virtual: vc, Verdict: verdict})
	} else {
		v.overflow = true
	}
	switch verdict {
	case BadComponent:
		v.findEntry(vc, Error, EntryComponent, MendChoice, fmt.Sprintf("names component %d of %d", e.Component, len(v.geometry.Components)))
	case BadReserved:
		v.findEntry(vc, Error, EntryReserved, MendChoice, fmt.Sprintf("names chunk %d of component %d, which is reserved for the map", e.Chunk, e.Component))
	default:
		v.findEntry(vc, Error, EntryRange, MendChoice,
			fmt.Sprintf("names chunk %d of component %d, which has %d", e.Chunk, e.Component, v.geometry.Components[e.Component].Count))
	}
}

// judgeUnsure tells garbage from entries that lost their flag: those name a
// chunk that nothing else has.
func (v *volumeCheck) judgeUnsure(unsure []Suspect, more bool) {
	for _, s := range unsure {
		b := v.maps[s.As.Component]
		if b == nil || b.has(s.As.Chunk) {
			v.findGarbage(s.Virtual, ondisk.Entry{Component: s.As.Component, Chunk: s.As.Chunk})
			continue
		}
		if len(v.suspects) == keptSuspects {
			v.overflow = true
			break
		}
		v.suspects = append(v.suspects, s)
		code, what := EntryLost, "is unallocated"
		if s.Verdict == OtherOrder {
			code, what = MapByteOrder, fmt.Sprintf("is allocated only when read as %v", otherOrder(v.geometry.Order))
		}
		vc := s.Virtual
		v.find(Finding{Severity: Error, Code: code, Provider: v.zero.name(), Mend: MendChoice, Prevents: s.Verdict == OtherOrder, Virtual: &vc,
			Text: fmt.Sprintf("map entry of virtual chunk %d %s, yet names chunk %d of component %d, which nothing else has: its data may be there",
				vc, what, s.As.Chunk, s.As.Component),
			Remedy: fmt.Sprintf("`gvirstor repair --keep %d` makes it allocated; `--drop %d` gives up what may be there.", vc, vc)})
	}
	v.overflow = v.overflow || more
}

// findOwners reads the map again for all virtual chunks of the chunks that are
// claimed twice.
func (v *volumeCheck) findOwners(twice map[uint64]struct{}) error {
	owners := make(map[uint64][]uint64)
	kept := 0
	err := v.scanner().Each(v.in.ctx, func(vc uint64, raw []byte) error {
		verdict, e := v.geometry.Judge(raw)
		if verdict != EntryGood && verdict != StripFlags {
			return nil
		}
		key := chunkKey(e)
		if _, ok := twice[key]; !ok {
			return nil
		}
		if kept++; kept > 4*keptSuspects {
			v.overflow = true
			return nil
		}
		owners[key] = append(owners[key], vc)
		return nil
	})
	if err != nil {
		return err
	}
	keys := make([]uint64, 0, len(owners))
	for k := range owners {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		vcs := owners[k]
		if len(vcs) < 2 || v.in.opt.Live && !v.stillShared(k, vcs) {
			continue
		}
		d := Doubled{Component: uint16(k >> 32), Chunk: uint32(k), Virtual: vcs}
		v.doubled = append(v.doubled, d)
		v.find(Finding{Severity: Error, Code: ChunkDoubled, Provider: v.componentName(int(d.Component)), Mend: MendChoice, Prevents: true,
			Virtual: &vcs[0], Also: vcs[1:],
			Text: fmt.Sprintf("virtual chunks %s are all on chunk %d of component %d: what is written to one appears in the other",
				list(vcs), d.Chunk, d.Component),
			Remedy: fmt.Sprintf("Find out whose data it is, then `gvirstor repair --keep %d` drops the others.", vcs[0])})
	}
	return nil
}

// stillShared reports whether two of vcs are on one chunk at the same moment: the
// first is so before and after the second is seen to be.
func (v *volumeCheck) stillShared(key uint64, vcs []uint64) bool {
	on := func(vc uint64) bool {
		raw, err := v.reread(vc)
		if err != nil {
			return false
		}
		verdict, e := v.geometry.Judge(raw)
		return verdict == EntryGood && chunkKey(e) == key
	}
	for i, a := range vcs {
		for _, b := range vcs[i+1:] {
			if on(a) && on(b) && on(a) {
				return true
			}
		}
	}
	return false
}

func (v *volumeCheck) componentName(i int) string {
	if m := v.at(i); m != nil {
		return m.name()
	}
	return ""
}

// list is numbers in words, the first few of many.
func list(ns []uint64) string {
	var s []string
	for i, n := range ns {
		if i == 8 && len(ns) > 9 {
			s = append(s, fmt.Sprintf("%d more", len(ns)-i))
			break
		}
		s = append(s, fmt.Sprint(n))
	}
	last := len(s) - 1
	return strings.Join(s[:last], ", ") + " and " + s[last]
}
