package virstor

import (
	"errors"
	"fmt"
	"slices"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ondisk"
)

// MayJoin refuses providers that may not become components because of what they are: a
// component already, by whatever name; labelled as part of another volume, unless o.Force
// is set (ErrLabelled); or labelled for this one and no member of it, such as a disk that was removed or an
// older copy (OutsiderError). What this volume's own unfinished add or replace left on a
// provider is in nobody's way. Add and Replace refuse the same.
func (v *Volume) MayJoin(o AddOptions, providers ...geomlib.Provider) error {
	v.metaMu.Lock()
	defer v.metaMu.Unlock()
	return v.mayJoinLocked(providers, o.Force)
}

// mayJoinLocked is MayJoin; v.metaMu is held.
func (v *Volume) mayJoinLocked(providers []geomlib.Provider, force bool) error {
	var labelled []Member
	for i, p := range providers {
		if err := v.notHeld(p, providers[:i]); err != nil {
			return err
		}
		m, err := geomlib.ReadMetadata(p)
		switch {
		case errors.Is(err, geomlib.ErrNoMetadata):
		case err != nil && !errors.Is(err, ondisk.ErrMemberBlock):
			return err
		case m.ID != v.id && force:
		case m.ID != v.id:
			return fmt.Errorf("%s %w: component %d of %s; with -f it is taken all the same, and lost to that",
				p.Name(), ErrLabelled, m.No, ondisk.Printable(m.Name))
		case err != nil:
			return v.outsideLocked(Member{p, m}, ErrDamagedMember)
		default:
			labelled = append(labelled, Member{p, m})
		}
	}
	together := v.begunTogetherLocked(labelled)
	for _, m := range labelled {
		if together || v.begunHereLocked(m.Metadata.Member.ID) || v.neverJoinedLocked(m.Metadata) {
			continue
		}
		kind := ErrStranger
		if b := m.Metadata.Member; !b.Exists() || v.isMember(b.ID) {
			kind = ErrStale
		}
		return v.outsideLocked(m, kind)
	}
	return nil
}

// notHeld refuses a provider that is a component, or one of others, by whatever name.
func (v *Volume) notHeld(p geomlib.Provider, others []geomlib.Provider) error {
	if err := noLoop(v.id, v.name, p); err != nil {
		return err
	}
	for _, c := range v.components() {
		if p.Name() == c.name() {
			return refuse(ErrInUse, "Component %s already in %s", p.Name(), v.name)
		}
		if geomlib.Same(p, c.prov()) {
			return refuse(ErrInUse, "Component %s already in %s, as %s: %v", p.Name(), v.name, c.name(), geomlib.ErrSame)
		}
	}
	for _, q := range others {
		if geomlib.Same(p, q) || p.Name() == q.Name() {
			return refuse(ErrInUse, "%s is %s: %v", p.Name(), q.Name(), geomlib.ErrSame)
		}
	}
	return nil
}

// noLoop refuses p as a component of what it lies on: each would wait for the other.
func noLoop(id uint32, name string, p geomlib.Provider) error {
	if slices.Contains(geomlib.LiesOn(p), id) {
		return refuse(ErrLoop, "%s %v %s: it cannot be a component of that", p.Name(), ErrLoop, name)
	}
	return nil
}

// LiesOn are the ids of the volumes that whoever has this one lies on: this one, and
// those that its components lie on.
func (h *Head) LiesOn() []uint32 {
	v := h.v

	ids := []uint32{v.id}
	for _, c := range v.components() {
		ids = append(ids, geomlib.LiesOn(c.prov())...)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// outsideLocked is the refusal of a provider that names this volume. v.metaMu is held.
func (v *Volume) outsideLocked(m Member, kind error) error {
	return fmt.Errorf("%w; if nothing on it is wanted any more, `gvirstor clear %s` takes its label off",
		NewOutsider(v.name, m, kind, v.meta.gen.settled), m.Provider.Name())
}

// begunHereLocked reports whether an add of this service that failed gave that member id.
// v.metaMu is held.
func (v *Volume) begunHereLocked(id uint64) bool {
	return id != 0 && !v.isMember(id) && slices.Contains(v.meta.unfinished, id)
}

// begunTogetherLocked reports whether labels are what an add to the present members left
// that never came to its end, in this service or an earlier one: the ids of the members
// and theirs make the list that each has, and none knows that list to be on all. The id of
// a disk that was removed makes no such list, unless it was the last to join; but then it
// knows. v.metaMu is held.
func (v *Volume) begunTogetherLocked(labels []Member) bool {
	slices.SortStableFunc(labels, func(x, y Member) int { return int(x.Metadata.No) - int(y.Metadata.No) })
	var ids []uint64
	for _, c := range v.components() {
		ids = append(ids, c.member)
	}
	for _, m := range labels {
		if b := m.Metadata.Member; !b.Exists() || b.Settled >= b.Generation || v.isMember(b.ID) {
			return false
		}
		ids = append(ids, m.Metadata.Member.ID)
	}
	list := ondisk.MemberList(ids)
	return !slices.ContainsFunc(labels, func(m Member) bool { return m.Metadata.Member.List != list })
}

// expectAgain notes that the component of that name joined for something that did not
// begin: if its label stays, that may be asked for again.
func (v *Volume) expectAgain(name string) {
	v.metaMu.Lock()
	defer v.metaMu.Unlock()
	for _, c := range v.components() {
		if c.name() == name {
			v.meta.unfinished = append(v.meta.unfinished, c.member)
		}
	}
}

// neverJoinedLocked reports whether a label is of a joining that nobody knows to have
// ended: of a place behind the last component, and of a list that was not on all when it
// was written. Labels that several tries left one after the other make no list together.
// One disk more is like that: the last component, if it took no more writes between the
// two steps of a rise and was removed then. Nothing on it is the volume's any more.
// v.metaMu is held.
func (v *Volume) neverJoinedLocked(m ondisk.Metadata) bool {
	b := m.Member
	return b.Exists() && b.Settled < b.Generation &&
		int(m.No) >= len(v.components()) && !v.isMember(b.ID)
}
