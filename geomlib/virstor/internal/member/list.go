package member

import (
	"slices"

	"github.com/gvirstor/gvirstor/ondisk"
)

// searchBytes bounds what is gone through to find out whose ids make a list: 64 MiB of
// ids, well below a second.
const searchBytes = 64 << 20

// finder looks for the ids that make component 0's list. Mostly each provider has the
// index that it says it has.
type finder struct {
	want   uint64
	ids    []uint64
	hints  [][]uint64 // by index, the likeliest first
	others []uint64   // ids that no index has for its first hint
	budget int
}

// findList finds the member ids by index of the list that component 0 has. known is
// false when it could not be found: somebody is missing, or has no block. Then the
// result is what is likely, with 0 where nothing is.
func findList(t *trial) (list []uint64, known bool) {
	n := int(t.zero.Count)
	f := &finder{want: t.zero.Member.List, ids: make([]uint64, n), hints: hintsOf(t, n), budget: searchBytes / (8*n + 64)}
	f.hints[0] = []uint64{t.zero.Member.ID}
	for i, h := range f.hints {
		if len(h) > 0 {
			f.ids[i] = h[0]
		}
	}
	first := setOf(f.ids)
	for _, id := range everyID(t) {
		if !first[id] {
			f.others = append(f.others, id)
		}
	}
	if f.search() {
		return f.ids, true
	}
	return likely(t, n), false
}

// hintsOf are the member ids that could have each index.
func hintsOf(t *trial, n int) [][]uint64 {
	hints := make([][]uint64, n)
	add := func(i int, id uint64) {
		if i > 0 && i < n && id != 0 && !slices.Contains(hints[i], id) {
			hints[i] = append(hints[i], id)
		}
	}
	in := t.record.Intent
	if removed, last, underWay := t.removal(); underWay {
		add(removed, in.Leaves)
		add(last, in.Moves)
	} else if in.Kind == ondisk.IntentRemove && in.Arg[0] < uint64(n) {
		add(int(in.Arg[0]), in.Moves)
	}
	for _, likely := range []bool{true, false} {
		for _, c := range t.claims {
			b := c.Metadata.Member
			if !c.Damaged && b.Exists() && likely == (b.Nonce == t.zero.Member.Nonce || b.SettledNonce == t.zero.Member.SettledNonce) {
				add(int(c.Metadata.No), b.ID)
			}
		}
	}
	return hints
}

// everyID are all member ids that are told of, each once.
func everyID(t *trial) []uint64 {
	var ids []uint64
	seen := map[uint64]bool{0: true}
	add := func(id uint64) {
		if !seen[id] {
			seen[id] = true
			ids = append(ids, id)
		}
	}
	for _, c := range t.claims {
		if !c.Damaged {
			add(c.Metadata.Member.ID)
		}
	}
	add(t.record.Intent.Leaves)
	add(t.record.Intent.Moves)
	for _, f := range t.record.Failed {
		add(f.ID)
	}
	return ids
}

// likely is what component 0's list is as far as can be told without finding it.
func likely(t *trial, n int) []uint64 {
	list := make([]uint64, n)
	list[0] = t.zero.Member.ID
	for _, c := range t.claims {
		m := c.Metadata
		if i := int(m.No); !c.Damaged && m.Member.Exists() && i > 0 && i < n && t.agrees(m.Member) {
			list[i] = m.Member.ID
		}
	}
	return list
}

// search tries the first hints, then other hints, then other ids in place of one or two
// of them.
func (f *finder) search() bool {
	if f.matches() || f.searchHints(0) {
		return true
	}
	for i, h := range f.hints {
		if len(h) > 0 {
			f.ids[i] = h[0]
		}
	}
	empty := 0
	for _, id := range f.ids {
		if id == 0 {
			empty++
		}
	}
	if empty > 2 {
		// Failed members keep the index that they had when they last took a write.
		return empty <= ondisk.MaxFailedMembers && f.fillEmpty(0)
	}
	for deviations := max(1, empty); deviations <= 2; deviations++ {
		if f.deviate(0, deviations) {
			return true
		}
	}
	return false
}

// fillEmpty tries other ids at all indexes from i on that have no hint.
func (f *finder) fillEmpty(i int) bool {
	for i < len(f.ids) && f.ids[i] != 0 {
		i++
	}
	if i == len(f.ids) {
		return f.matches()
	}
	for _, id := range f.others {
		if f.budget <= 0 || slices.Contains(f.ids, id) {
			continue
		}
		f.ids[i] = id
		if f.fillEmpty(i + 1) {
			return true
		}
		f.ids[i] = 0
	}
	return false
}

func (f *finder) matches() bool {
	f.budget--
	if slices.Contains(f.ids, 0) {
		return false
	}
	return ondisk.MemberList(f.ids) == f.want
}

// searchHints tries all hints of the indexes from i on.
func (f *finder) searchHints(i int) bool {
	for i < len(f.hints) && len(f.hints[i]) < 2 {
		i++
	}
	if i == len(f.hints) {
		return f.matches()
	}
	for _, id := range f.hints[i] {
		f.ids[i] = id
		if f.budget <= 0 {
			return false
		}
		if f.searchHints(i + 1) {
			return true
		}
	}
	return false
}

// deviate tries other ids in place of n hints from index i on, first where there is no
// hint.
func (f *finder) deviate(i, n int) bool {
	if n == 0 {
		return f.matches()
	}
	for _, empty := range []bool{true, false} {
		for at := max(i, 1); at < len(f.ids); at++ {
			if (len(f.hints[at]) == 0) != empty {
				continue
			}
			was := f.ids[at]
			for _, id := range f.others {
				if f.budget <= 0 {
					break
				}
				f.ids[at] = id
				if f.deviate(at+1, n-1) {
					return true
				}
			}
			f.ids[at] = was
		}
	}
	return false
}
