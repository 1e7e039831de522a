package check

import (
	"errors"
	"fmt"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ondisk"
)

// checkMembers looks at the member blocks, if there are any: they decide who belongs to
// the volume and with which index, whatever else the metadata says. Who does not belong
// is told of and left as it is. It returns false when they contradict each other, so that
// nothing can be said of the volume.
func (v *volumeCheck) checkMembers() bool {
	var found []virstor.Member
	blocks := false
	for _, m := range v.members {
		if !m.damaged && !m.broken {
			blocks = blocks || m.want.Member.Exists()
			found = append(found, virstor.Member{Provider: m.p, Metadata: m.want})
		}
	}
	if blocks && v.in.opt.History != nil {
		found = v.chosen(found)
	}
	if v.proveDamaged() {
		return true
	}
	for _, m := range v.members {
		if m.damaged {
			v.findDamaged(m)
		}
	}
	if !blocks {
		return true
	}
	a := v.assembled(found)
	if a == nil || unjudged(a) {
		return true // what is wrong with component 0 is found where it is looked for
	}
	for _, ig := range a.Ignored {
		if m := v.memberOn(ig.Member); m != nil && outsider(ig) && !v.joining(a, m) {
			v.findOutsider(m, ig.Reason)
		}
	}
	switch {
	case !a.Marked:
		return true
	case errors.Is(a.Err, virstor.ErrHistories):
		v.find(Finding{Severity: Error, Code: TwoHistories, Mend: MendChoice, Prevents: true, Text: a.Err.Error(),
			Remedy: "`gvirstor dump` shows the ages. `gvirstor repair --history prov` takes the history that the provider belongs to, and gives up what was written in the other."})
		return false
	case errors.Is(a.Err, virstor.ErrDuplicate):
		v.find(Finding{Severity: Error, Code: ComponentDoubled, Mend: MendByHand, Prevents: true, Text: a.Err.Error(),
			Remedy: "One is a copy of the other: take one of them away."})
		return false
	}
	v.assembly, v.marked = a, true
	for i := range a.Members {
		if m := v.at(i); m != nil {
			// An operation that is to be finished may have changed them: that is the
			// engine's to do.
			m.found.No, m.found.Count = uint16(i), uint16(len(a.Members))
			m.want.No, m.want.Count = m.found.No, m.found.Count
		}
	}
	return true
}

// joining tells of a provider of an add that was interrupted before component 0 counted
// it: its list is that of the members and of who joined with it, and it begins where the
// members are. Nothing was ever written to it but its metadata.
func (v *volumeCheck) joining(a *virstor.Assembly, m *member) bool {
	if !a.Marked || a.Err != nil || v.in.opt.Live {
		return false
	}
	zero, b := a.Members[0].Metadata.Member, m.want.Member
	if b.Generation <= a.Settled || b.Settled != a.Settled || zero.Settled != a.Settled || b.SettledNonce != zero.SettledNonce {
		return false
	}
	ids := make([]uint64, int(m.want.Count))
	for _, o := range v.members {
		if no := int(o.want.No); !o.damaged && no >= len(a.Members) && no < len(ids) && o.want.Member.Nonce == b.Nonce {
			ids[no] = o.want.Member.ID
		}
	}
	if len(ids) <= len(a.Members) {
		return false
	}
	for i, o := range a.Members {
		ids[i] = o.Metadata.Member.ID
	}
	if ondisk.MemberList(ids) != b.List {
		return false
	}
	v.leftOver(m)
	return true
}

// leftOver tells of a provider that an interrupted add left, which holds no data.
func (v *volumeCheck) leftOver(m *member) {
	m.clear = true
	m.why = append(m.why, "an interrupted add left it")
	v.find(Finding{Severity: Warning, Code: AddInterrupted, Provider: m.name(), Mend: MendRepair, Member: memberState(m.want.Member),
		Text:   "was about to join the volume, which was interrupted before component 0 counted it",
		Remedy: "`gvirstor repair` clears its metadata; it holds no data of the volume."})
}

// outsider reports whether a provider is ignored for what its member block says.
func outsider(ig virstor.Ignored) bool {
	var o *virstor.OutsiderError
	return errors.As(ig.Reason, &o)
}

// chosen are those of found that are of the history that was asked for. The others are
// told of and left alone.
func (v *volumeCheck) chosen(found []virstor.Member) []virstor.Member {
	mine, others := virstor.HistoryOf(found, v.in.opt.History)
	for _, o := range others {
		m := v.memberOn(o)
		m.leave, m.other = true, true
		text := "is of another history than that of " + v.in.opt.History.Name()
		if b := m.want.Member; b.Exists() {
			text += fmt.Sprintf(": of generation %d, begun %s", b.Generation, began(b))
		}
		v.find(Finding{Severity: Info, Code: OtherHistory, Provider: m.name(), Text: text, Member: memberState(m.want.Member)})
	}
	return mine
}

// began is when the generation of a member began, by the clock of the host that wrote it.
func began(b ondisk.MemberBlock) string {
	return time.Unix(b.Began, 0).UTC().Format(time.DateTime + " MST")
}

// unjudged reports whether there are member blocks and no component 0 that could say who
// is true.
func unjudged(a *virstor.Assembly) bool {
	return a.Marked && a.Members == nil && !errors.Is(a.Err, virstor.ErrHistories) && !errors.Is(a.Err, virstor.ErrDuplicate)
}

// memberOn is the member of v on the provider of a.
func (v *volumeCheck) memberOn(a virstor.Member) *member {
	for _, m := range v.members {
		if m.p == a.Provider {
			return m
		}
	}
	return nil
}

// findOutsider tells of a provider that names the volume and is no member of it, and
// leaves it alone.
func (v *volumeCheck) findOutsider(m *member, why error) {
	m.leave = true
	f := Finding{Severity: Warning, Mend: MendByHand, Provider: m.name(), Text: why.Error(), Member: memberState(m.want.Member)}
	switch {
	case errors.Is(why, virstor.ErrLeaving):
		f.Severity, f.Mend, f.Code = Info, MendNothing, ComponentIgnored // finishing the removal clears it
	case errors.Is(why, virstor.ErrStale):
		f.Code = MemberStale
		f.Remedy = "It is left alone. Take it away; if it is the right one and the others are not, `gvirstor repair --history` takes the state that it belongs to, and gives up what was written to the others since."
	case errors.Is(why, virstor.ErrStranger):
		f.Code = MemberStranger
		f.Remedy = "It is left alone. Take it away, or `gvirstor clear` it when nothing on it is wanted."
	default:
		f.Code = MemberDamaged
		f.Remedy = remedyBackup
	}
	v.find(f)
}

// findDamaged tells of a provider whose member block says nothing that could be
// believed, and leaves it alone.
func (v *volumeCheck) findDamaged(m *member) {
	m.leave = true
	v.find(Finding{Severity: Warning, Code: MemberDamaged, Mend: MendByHand, Provider: m.name(), Member: memberState(m.said),
		Text:   "its member block, or the metadata that this vouches for, is damaged: nothing proves which member it is, and of which moment",
		Remedy: remedyBackup})
}

// findUnseated tells of a provider beside members that know each other.
func (v *volumeCheck) findUnseated(m *member, know ondisk.Metadata) {
	kind := virstor.ErrStranger
	switch b := m.want.Member; {
	case m.damaged:
		v.findDamaged(m)
		return
	case m.broken:
		return
	case !b.Exists() || b.List == know.Member.List:
		kind = virstor.ErrStale
	}
	v.findOutsider(m, virstor.NewOutsider(v.Name, virstor.Member{Provider: m.p, Metadata: m.want}, kind, know.Member.Settled))
}

// checkGenerations looks at how far the members are, and at who of them takes no writes.
func (v *volumeCheck) checkGenerations() {
	if !v.marked {
		return
	}
	v.Generation = v.assembly.Settled
	for _, i := range v.assembly.Failed {
		if m := v.at(i); m != nil {
			v.findFailed(m)
		}
	}
	if v.in.opt.Live {
		return
	}
	var highest uint64
	for i := range v.assembly.Members {
		if m := v.at(i); m != nil {
			highest = max(highest, m.want.Member.Generation)
		}
	}
	have := 0
	for i := range v.assembly.Members {
		if m := v.at(i); m != nil && m.want.Member.Generation == highest {
			have++
		}
	}
	if highest > v.Generation {
		v.find(Finding{Severity: Info, Code: Unsettled,
			Text:   fmt.Sprintf("the members were on their way from generation %d to %d, which %d of %d have", v.Generation, highest, have, len(v.assembly.Members)),
			Remedy: "The next start goes on above it."})
	}
	if v.extOK && v.ext.HandBack {
		v.find(Finding{Severity: Warning, Code: HandBackBegun, Mend: MendRepair, Provider: v.zero.name(),
			Text:   "it was being handed back to the kernel class, which was interrupted",
			Remedy: "The next start takes it back, and so does `gvirstor repair`; then stop it again. Do not load the kernel class before."})
	}
}

func (v *volumeCheck) findFailed(m *member) {
	b := m.want.Member
	f := Finding{Severity: Warning, Code: MemberFailed, Mend: MendByHand, Provider: m.name(), Member: memberState(b),
		Text:   "took no writes, as component 0's record says: it is only read",
		Remedy: "The next start tries it again. If it fails again, `gvirstor evacuate` or `gvirstor replace` it."}
	if b.Generation < v.assembly.Settled {
		f.Text += fmt.Sprintf(", and stayed at generation %d, begun %s, the volume is at %d", b.Generation, began(b), v.assembly.Settled)
	}
	v.find(f)
}
