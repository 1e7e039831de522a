package check

import (
	"cmp"
	"math/bits"
	"slices"

	"github.com/gvirstor/gvirstor/ondisk"
)

// proveDamaged finds out which members those with a damaged member block are, where the
// others prove it: the ids of all by index make the list that is on every other, and a
// nonce, which is random, says that it had the generation that is settled, or a later
// one. It reports whether it did; the damaged ones have blocks then, and all that are no
// member are left alone.
func (v *volumeCheck) proveDamaged() bool {
	var damaged, intact []*member
	for _, m := range v.members {
		switch {
		case m.broken || m.leave || m.moved != 0 && m.damaged:
		case m.damaged:
			damaged = append(damaged, m)
		case m.want.Member.Exists():
			intact = append(intact, m)
		}
	}
	if damaged == nil || intact == nil {
		return false
	}
	slices.SortStableFunc(intact, func(a, b *member) int {
		return -cmp.Or(cmp.Compare(a.want.Member.Settled, b.want.Member.Settled), cmp.Compare(a.want.Member.Generation, b.want.Member.Generation))
	})
	know := intact[0].want
	list := byIndex(know, intact, damaged)
	if list == nil {
		return false
	}
	v.seat(know, list)
	return true
}

// byIndex are the members by index, nil when what know says of them is not borne out.
func byIndex(know ondisk.Metadata, intact, damaged []*member) []*member {
	list := make([]*member, know.Count)
	for _, m := range intact {
		b := m.want.Member
		if b.List != know.Member.List || !ofAge(b, know.Member) || int(m.want.No) >= len(list) {
			continue
		}
		if list[m.want.No] != nil {
			return nil // two that are the same
		}
		list[m.want.No] = m
	}
	candidates := slices.DeleteFunc(slices.Clone(damaged), func(m *member) bool { return !ofAge(m.said, know.Member) })
	if found := finishInterrupted(know.Member.List, list, candidates); found != nil {
		return found
	}
	return withLostID(know.Member.List, list, candidates)
}

// withLostID finds the id of the one member that is missing where that is damaged, too:
// the others and the list leave but one. The provider says the index, and its nonce that
// it is of this volume.
func withLostID(want uint64, list, candidates []*member) []*member {
	free := slices.Index(list, nil)
	if free < 0 || slices.Contains(list[free+1:], nil) {
		return nil
	}
	i := slices.IndexFunc(candidates, func(m *member) bool { return int(m.want.No) == free })
	if i < 0 || slices.ContainsFunc(candidates[i+1:], func(m *member) bool { return int(m.want.No) == free }) {
		return nil
	}
	m := candidates[i]
	list[free] = m
	ids := idsOf(list)
	lost, ok := lostID(want, ids, free)
	if !ok || slices.Contains(ids, lost) {
		return nil
	}
	m.said.ID = lost
	return list
}

// lostID is the id at index at that, with all others of ids, makes the list want. A CRC
// is linear over the bits of what it sums, so the bits of the id are the solution of as
// many equations.
func lostID(want uint64, ids []uint64, at int) (id uint64, ok bool) {
	ids = slices.Clone(ids)
	sum := func(id uint64) uint64 { ids[at] = id; return ondisk.MemberList(ids) }
	none := sum(0)
	var sums, of [64]uint64 // by highest bit: what the bits of an id change, and which these are
	for bit := range 64 {
		change, which := reduce(sum(1<<bit)^none, 1<<bit, &sums, &of)
		if change == 0 {
			return 0, false // never, of a CRC of this length
		}
		high := bits.Len64(change) - 1
		sums[high], of[high] = change, which
	}
	rest, id := reduce(want^none, 0, &sums, &of)
	return id, rest == 0 && id != 0
}

// reduce takes from change what is known of its highest bits, noting which bits of the id
// that is.
func reduce(change, which uint64, sums, of *[64]uint64) (uint64, uint64) {
	for change != 0 {
		high := bits.Len64(change) - 1
		if sums[high] == 0 {
			break
		}
		change ^= sums[high]
		which ^= of[high]
	}
	return change, which
}

// maxDamaged is how many members with a damaged block are tried at every index.
const maxDamaged = 7

// finishInterrupted puts the candidates at the indexes that nobody has, so that the ids of all make
// the list; nil when no order of them does. Each is tried first where it says that it
// belongs.
func finishInterrupted(want uint64, list, candidates []*member) []*member {
	free := slices.Index(list, nil)
	if free < 0 {
		if len(list) == 0 || ondisk.MemberList(idsOf(list)) != want {
			return nil
		}
		return list
	}
	if len(candidates) > maxDamaged {
		return nil
	}
	slices.SortStableFunc(candidates, func(a, b *member) int {
		return cmp.Compare(distance(a, free), distance(b, free))
	})
	for i, m := range candidates {
		next := slices.Clone(list)
		next[free] = m
		if found := finishInterrupted(want, next, slices.Delete(slices.Clone(candidates), i, i+1)); found != nil {
			return found
		}
	}
	return nil
}

// distance is 0 for a member that says it has that index.
func distance(m *member, index int) int {
	if int(m.want.No) == index {
		return 0
	}
	return 1
}

func idsOf(list []*member) []uint64 {
	ids := make([]uint64, len(list))
	for i, m := range list {
		if ids[i] = m.want.Member.ID; m.damaged {
			ids[i] = m.said.ID
		}
	}
	return ids
}

// ofAge reports whether b, of which any field may be damaged, was written when what
// know has settled was, or later.
func ofAge(b, know ondisk.MemberBlock) bool {
	if know.Settled == 0 {
		return b.Nonce == know.Nonce
	}
	return b.Nonce == know.Nonce || b.Nonce == know.SettledNonce || b.SettledNonce == know.SettledNonce
}

// seat gives the members of list their blocks and indexes, and leaves all others alone.
func (v *volumeCheck) seat(know ondisk.Metadata, list []*member) {
	for _, m := range v.members {
		if !m.leave && !slices.Contains(list, m) {
			v.findUnseated(m, know)
		}
	}
	for i, m := range list {
		m.want.No, m.want.Count = uint16(i), know.Count
		if !m.damaged {
			m.found.No, m.found.Count = m.want.No, m.want.Count
			continue
		}
		block := know.Member
		block.ID, block.LastName = m.said.ID, ondisk.MemberName(m.name())
		m.mend("its member block, or the metadata that this vouches for, is damaged", func(w *ondisk.Metadata) { w.Member = block })
		v.find(Finding{Severity: Error, Code: MemberDamaged, Mend: MendRepair, Prevents: true, Provider: m.name(), Member: memberState(m.said),
			Text:   "its member block, or the metadata that this vouches for, is damaged; the others prove which member it is, and that it missed nothing",
			Remedy: remedyRepair})
	}
}
