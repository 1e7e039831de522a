package virstor

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/member"
	"github.com/gvirstor/gvirstor/ondisk"
)

// Member is a provider and the metadata found on it.
type Member struct {
	Provider geomlib.Provider
	Metadata ondisk.Metadata
}

// Ignored is a provider that names the volume but takes no part in it.
type Ignored struct {
	Member
	Reason error
}

// Assembly is what belongs together, before it is opened.
type Assembly struct {
	ID      uint32
	Name    string
	Members []Member // by index; complete when Err is nil
	Ignored []Ignored
	Err     error // why the volume cannot be opened
	Missing []int // the indexes of which no member is there, where that is why

	// Settled is the highest generation that is known to have been on all members,
	// 0 when they have none: volumes at version 1, and those that the first release
	// served last. Whoever serves the volume remembers it (see
	// Config.MinGeneration).
	Settled uint64
	// Began is when the generation of component 0 began, as the clock of the host
	// said that wrote it; the zero time when there is none.
	Began time.Time
	// Marked: member blocks say who the members are, and with which index.
	Marked bool
	// Failed are the indexes of members that take no writes, as far as is known.
	Failed []int

	// Above, if not 0, is a generation that the next one is above: of a former state of
	// the volume, which was put in another's place.
	Above uint64

	unproven []string // names of members of version 1 that may be old copies (member.Verdict)

	ext     extension // component 0's, at version 2
	nonce   uint64    // of generation Settled
	highest uint64    // generation of any member
}

// IsPool reports whether the components hold more maps than the volume's: snapshots of it.
func (a *Assembly) IsPool() bool { return a.ext.rec.Directory.Exists() }

// Assemble sorts members into volumes by their id. What component 0 says decides.
// The result is ordered by name.
func Assemble(members []Member) []*Assembly {
	byID := make(map[uint32]*Assembly)
	groups := make(map[uint32][]Member)
	seen := make(map[geomlib.Identity]string) // the name by which it is a member
	for _, m := range members {
		id := m.Metadata.ID
		if byID[id] == nil {
			byID[id] = &Assembly{ID: id, Name: ondisk.Printable(m.Metadata.Name)}
		}
		a := byID[id]
		if one := geomlib.IdentityOf(m.Provider); one != (geomlib.Identity{}) {
			if name, twice := seen[one]; twice {
				a.Ignored = append(a.Ignored, Ignored{m, fmt.Errorf("%s is %s: %w", ondisk.Printable(m.Provider.Name()), ondisk.Printable(name), geomlib.ErrSame)})
				continue
			}
			seen[one] = m.Provider.Name()
		}
		if err := belongs(m); err != nil {
			a.Ignored = append(a.Ignored, Ignored{m, err})
			continue
		}
		groups[id] = append(groups[id], m)
	}
	judged := make(map[uint32]bool)
	for id, former := range formerIDs(groups) {
		groups[former], judged[id] = byID[id].adoptFormer(groups[id], groups[former])
	}
	for id, a := range byID {
		switch {
		case judged[id]:
		case len(groups[id]) == 0 && len(a.Ignored) == 0: // all of them have another id now
			delete(byID, id)
		default:
			a.judge(groups[id])
		}
	}
	return slices.SortedFunc(maps.Values(byID), func(x, y *Assembly) int {
		return cmp.Or(strings.Compare(x.Name, y.Name), cmp.Compare(x.ID, y.ID))
	})
}

// belongs tells whether the metadata was written for the provider it is on.
func belongs(m Member) error {
	if size := m.Provider.MediaSize(); m.Metadata.ProviderSize != uint64(size) {
		return fmt.Errorf("%s has %d bytes, its metadata says %d: %w",
			ondisk.Printable(m.Provider.Name()), size, m.Metadata.ProviderSize, ondisk.ErrProviderSize)
	}
	name := m.Provider.Name()
	if hard := m.Metadata.Provider; hard != "" && !strings.Contains(name, "/") && hard != name &&
		!(len(hard) == ondisk.MaxNameLen && strings.HasPrefix(name, hard)) {
		return fmt.Errorf("%s is labelled to be %s: %w", ondisk.Printable(name), ondisk.Printable(hard), ondisk.ErrProviderName)
	}
	return nil
}

// judge finds the volume's members by their member blocks, or by index and count where
// there are none.
func (a *Assembly) judge(members []Member) {
	// The order in which they were found is nobody's.
	slices.SortFunc(members, func(x, y Member) int { return strings.Compare(x.Provider.Name(), y.Provider.Name()) })
	claims, exts := make([]member.Claim, len(members)), make([]extension, len(members))
	unread := make(map[int]error) // claims whose record cannot be read
	for i, m := range members {
		claims[i].Metadata = m.Metadata
		if m.Metadata.No != 0 || !m.Metadata.Member.Exists() {
			continue
		}
		if err := a.sound(m); err != nil {
			a.Err = err // unless another claims to be component 0, and is
			claims[i].Damaged = true
			continue
		}
		e, err := readExtension(m.Provider, m.Metadata)
		if err != nil {
			unread[i] = err
			continue
		}
		if exts[i] = e; e.valid {
			claims[i].Record = &exts[i].rec
		}
	}
	v := member.Judge(claims)
	var absurd error // a record's: the members are those without it
	for _, i := range slices.Sorted(maps.Keys(unread)) {
		// Only one that is older than the whole set, and no part of it, has nothing to
		// say that could matter.
		old := v.Blocks && v.Err == nil && v.Outside[i] != 0 && claims[i].Metadata.Member.Generation <= v.Settled
		if !old {
			if a.Err = unread[i]; !errors.Is(a.Err, ErrRecord) {
				return
			}
			absurd = a.Err
		}
	}
	a.Marked = v.Blocks
	a.setAside(members, v)
	switch {
	case !v.Blocks:
		var plain []Member
		for i, m := range members {
			if v.Outside[i] == 0 {
				plain = append(plain, m)
			}
		}
		a.assemble(plain)
	case v.Err != nil:
		a.refuse(members, v)
	default:
		a.take(members, exts, v)
	}
	if absurd != nil {
		a.Err = absurd
	}
}

// sound refuses a component 0 whose metadata makes no sense.
func (a *Assembly) sound(m Member) error {
	err := m.Metadata.Validate(m.Provider.MediaSize(), m.Provider.SectorSize())
	if err == nil || errors.Is(err, ondisk.ErrLastSector) {
		return nil
	}
	return fmt.Errorf("%s: %w: metadata of %s: %w", ondisk.Printable(a.Name), ErrDamaged, ondisk.Printable(m.Provider.Name()), err)
}

// setAside notes who is no member.
func (a *Assembly) setAside(members []Member, v member.Verdict) {
	if v.Zero >= 0 {
		a.Name = ondisk.Printable(members[v.Zero].Metadata.Name)
	}
	for i, m := range members {
		if k := v.Outside[i]; k != 0 {
			a.Ignored = append(a.Ignored, Ignored{m, NewOutsider(a.Name, m, outsiderKinds[k], v.Settled)})
		}
	}
}

// take makes the members that v found the volume's.
func (a *Assembly) take(members []Member, exts []extension, v member.Verdict) {
	a.Err = nil
	a.ext = exts[v.Zero]
	a.Settled, a.nonce, a.highest = v.Settled, v.Nonce, v.Highest
	a.Began = time.Unix(members[v.Zero].Metadata.Member.Began, 0)
	for i, n := range v.Members {
		a.Members = append(a.Members, members[n])
		if slices.Contains(v.Unproven, i) {
			a.unproven = append(a.unproven, members[n].Provider.Name())
		}
		if v.Failed[i] {
			a.Failed = append(a.Failed, i)
		}
	}
}

// refuse says why what v found is no volume, and names what there is.
func (a *Assembly) refuse(members []Member, v member.Verdict) {
	name := func(i int) string { return ondisk.Printable(members[i].Provider.Name()) }
	switch {
	case errors.Is(v.Err, member.ErrTwins):
		a.Err = fmt.Errorf("%w: %s and %s are both the same component of %s, of one age", ErrDuplicate,
			name(v.Rivals[0]), name(v.Rivals[1]), ondisk.Printable(a.Name))
	case errors.Is(v.Err, member.ErrHistories):
		a.Err = fmt.Errorf("%w: %s and %s of %s were written in different ways since they parted; take away the one that is not wanted (`gvirstor dump` shows their ages)",
			ErrHistories, name(v.Rivals[0]), name(v.Rivals[1]), ondisk.Printable(a.Name))
	case a.Err == nil:
		a.Err, a.Missing = a.missing(v), v.Missing
		for _, n := range v.Members {
			var m Member // nobody
			if n >= 0 {
				m = members[n]
			}
			a.Members = append(a.Members, m)
		}
	}
}

// missing names the indexes that are missing, and what is there instead.
func (a *Assembly) missing(v member.Verdict) error {
	var indexes []string
	for _, i := range v.Missing {
		indexes = append(indexes, strconv.Itoa(i))
	}
	var instead []string
	for _, ig := range a.Ignored {
		instead = append(instead, ig.Reason.Error())
	}
	if instead != nil {
		instead = []string{": " + strings.Join(instead, "; ")}
	}
	if slices.Contains(v.Missing, 0) {
		return incomplete("component 0 of %s, which holds the allocation map, is missing%s", ondisk.Printable(a.Name), strings.Join(instead, ""))
	}
	return incomplete("component %s of %d of %s is missing%s",
		strings.Join(indexes, ", "), len(v.Members), ondisk.Printable(a.Name), strings.Join(instead, ""))
}

// assemble finds the members of a volume without member blocks.
func (a *Assembly) assemble(members []Member) {
	byIndex := make(map[uint16][]Member)
	for _, m := range members {
		byIndex[m.Metadata.No] = append(byIndex[m.Metadata.No], m)
	}
	zero, replaced, err := a.pickZero(byIndex[0])
	if err != nil {
		if a.Err = err; len(byIndex[0]) == 0 {
			a.Missing = []int{0}
		}
		return
	}
	a.Name = ondisk.Printable(zero.Metadata.Name)
	if err := a.sound(zero); err != nil {
		a.Err = err
		return
	}
	if zero.Metadata.Version == ondisk.VersionFenced {
		if a.ext, err = readExtension(zero.Provider, zero.Metadata); err != nil {
			a.Err = err
			if !errors.Is(err, ErrRecord) {
				return
			}
		}
	}
	a.applyIntent(byIndex, replaced)
	a.Members = make([]Member, a.count(zero))
	a.Members[0] = zero
	var missing []string
	for i := 1; i < len(a.Members); i++ {
		switch at := byIndex[uint16(i)]; len(at) {
		case 0:
			missing = append(missing, fmt.Sprint(i))
		case 1:
			a.Members[i] = at[0]
		default:
			a.Err = fmt.Errorf("%w: %s and %s are both component %d of %s", ErrDuplicate,
				at[0].Provider.Name(), at[1].Provider.Name(), i, a.Name)
		}
	}
	for _, i := range slices.Sorted(maps.Keys(byIndex)) { // what is cleared of them is, in this order
		if int(i) < len(a.Members) {
			continue
		}
		for _, m := range byIndex[i] {
			a.Ignored = append(a.Ignored, Ignored{m, ErrInterruptedAdd})
		}
	}
	if a.Err == nil && missing != nil {
		for i, m := range a.Members {
			if m.Provider == nil {
				a.Missing = append(a.Missing, i)
			}
		}
		a.Err = incomplete("component %s of %d of %s is missing",
			strings.Join(missing, ", "), len(a.Members), a.Name)
	}
}

// pickZero finds component 0. While it is being replaced two providers claim to be
// it; the one with the later extension record is, and the others are replaced.
func (a *Assembly) pickZero(claims []Member) (zero Member, replaced []Member, err error) {
	switch len(claims) {
	case 0:
		return zero, nil, incomplete("component 0 of %s, which holds the allocation map, is missing", a.Name)
	case 1:
		return claims[0], nil, nil
	}
	best, tie := -1, false
	var bestSeq uint64
	for i, m := range claims {
		if m.Metadata.Version != ondisk.VersionFenced {
			continue
		}
		if err := m.Metadata.Validate(m.Provider.MediaSize(), m.Provider.SectorSize()); err != nil && !errors.Is(err, ondisk.ErrLastSector) {
			continue
		}
		e, err := readExtension(m.Provider, m.Metadata)
		if err != nil || !e.valid {
			continue
		}
		if best < 0 || e.rec.Sequence > bestSeq {
			best, bestSeq, tie = i, e.rec.Sequence, false
		} else if e.rec.Sequence == bestSeq {
			tie = true
		}
	}
	if best < 0 || tie {
		return zero, nil, fmt.Errorf("%w: %s and %s are both component 0 of %s", ErrDuplicate,
			claims[0].Provider.Name(), claims[1].Provider.Name(), a.Name)
	}
	zero = claims[best]
	return zero, slices.Delete(slices.Clone(claims), best, best+1), nil
}

// applyIntent makes byIndex what it will be when the intent is finished.
func (a *Assembly) applyIntent(byIndex map[uint16][]Member, replaced []Member) {
	i := a.ext.rec.Intent
	if i.Kind == ondisk.IntentReplaceZero && len(replaced) == 1 && len(byIndex[uint16(i.Arg[0])]) == 0 {
		m := replaced[0]
		m.Metadata = asEmpty(m.Metadata, uint16(i.Arg[0]))
		byIndex[m.Metadata.No] = []Member{m}
		replaced = nil
	}
	for _, m := range replaced {
		a.Ignored = append(a.Ignored, Ignored{m, fmt.Errorf("%w: another provider replaced it as component 0", ErrDuplicate)})
	}
	if a.ext.rec.Intent.Kind != ondisk.IntentRemove {
		return
	}
	removed, last := removeArgs(a.ext.rec.Intent)
	moved := byIndex[last]
	if len(moved) == 0 {
		return // it has its new index already, or is missing
	}
	if removed != last {
		// The one that leaves is not marked yet.
		for _, m := range byIndex[removed] {
			a.Ignored = append(a.Ignored, Ignored{m, errBeingRemoved})
		}
		byIndex[removed] = moved
	} else {
		for _, m := range moved {
			a.Ignored = append(a.Ignored, Ignored{m, errBeingRemoved})
		}
	}
	delete(byIndex, last)
}

// leaving is what the metadata of a component becomes while it is removed from the
// middle: that of one which component 0 does not count. So it stays known until its
// index has been given away. Were it cleared at once, and only in its disk's cache
// when the process died, then nobody could find it to make that durable.
func leaving(m ondisk.Metadata, last uint16) ondisk.Metadata {
	m.No = last + 1
	m.Count = uint16(min(int(m.No)+1, ondisk.MaxComponents))
	return m
}

// count is the number of components when the intent is finished.
func (a *Assembly) count(zero Member) int {
	n := int(zero.Metadata.Count)
	if i := a.ext.rec.Intent; i.Kind == ondisk.IntentRemove {
		if _, last := removeArgs(i); n == int(last)+1 {
			n--
		}
	}
	return n
}

// HistoryOf parts members, all of one volume, into those that may belong to the history
// of the one on provider of, and those that were written in another.
func HistoryOf(members []Member, of geomlib.Provider) (mine, others []Member) {
	claims := make([]member.Claim, len(members))
	at := -1
	for i, m := range members {
		if claims[i].Metadata = m.Metadata; m.Provider == of {
			at = i
		}
	}
	if at < 0 {
		return members, nil
	}
	for i, in := range member.History(claims, at) {
		if in {
			mine = append(mine, members[i])
		} else {
			others = append(others, members[i])
		}
	}
	return mine, others
}
