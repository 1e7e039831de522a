package control

import (
	"fmt"
	"strings"

	"github.com/gvirstor/gvirstor/geomlib/ownfile"
	"github.com/gvirstor/gvirstor/ondisk"
)

// Action is what a volume needs a hand with, and what to type for that.
type Action struct {
	Trouble  string   `json:"trouble"`
	Remedy   string   `json:"remedy,omitempty"`   // in words, where Trouble has not got it
	Commands []string `json:"commands,omitempty"` // of which one is enough; NEW and PROV stand for a provider, SIZE for a size
}

// String is a in a sentence.
func (a Action) String() string {
	s := a.Trouble
	if a.Remedy != "" {
		s += "; " + a.Remedy
	}
	if len(a.Commands) > 0 {
		s += ": `" + strings.Join(a.Commands, "`, or `") + "`"
	}
	return s
}

// Actions are what v needs a hand with, the most urgent first; none if all is well.
func (v *VolumeStatus) Actions() []Action {
	var all []Action
	is := make(map[Condition]bool)
	for _, c := range v.Conditions {
		is[c] = true
	}
	if is[Unleased] {
		all = append(all, Action{Trouble: "the lease cannot be renewed: nothing is sent to any component, and what is asked of it waits",
			Remedy: "see to what component 0 is on, and the way to it; if another host has taken the lease meanwhile, the volume is closed here"})
	}
	for _, s := range v.DamagedSnapshots {
		kind, full := "snapshot", v.shellName()+"@"+s
		if strings.HasPrefix(s, "/") { // of a further volume
			full = v.shellName() + s
			if !strings.Contains(s, "@") {
				kind = "volume"
			}
		}
		all = append(all, Action{fmt.Sprintf("%s %s is damaged: writes wait", kind, s),
			fmt.Sprintf("start again if a disk could not be read, from a copy of it if need be; else what %s alone holds is lost, and writes go on without it", s), []string{"gvirstor delete " + full}})
	}
	switch {
	case is[SnapshotDamaged]: // which room does not mend
	case is[HeldWrites]:
		all = append(all, v.room(fmt.Sprintf("%d writes wait for space, the oldest for %d s", v.Held.Count, v.Held.OldestSeconds)))
	case is[Full] && v.WhenFull == "error":
		all = append(all, v.room("full, writes that need space fail"))
	case is[Full]:
		all = append(all, v.room("full, the next write that needs space will wait"))
	case is[LowSpace]:
		all = append(all, Action{"low on space", "add a component before it is full", []string{fmt.Sprintf("gvirstor add %s PROV", v.shellName())}})
	}
	if is[Degraded] {
		all = append(all, Action{Trouble: "degraded, nothing is allocated", Remedy: "a sector of the allocation map could not be written: see the component with errors, or make room below it"})
	}
	for i := range v.Volumes {
		all = append(all, v.further(&v.Volumes[i])...)
	}
	for _, c := range v.Components {
		all = append(all, v.mend(c)...)
	}
	for _, o := range v.Outsiders {
		all = append(all, Action{Trouble: "left alone: " + ondisk.PrintableText(o.Text)})
	}
	for _, s := range v.Spares {
		if s.Failed != "" {
			all = append(all, Action{Trouble: fmt.Sprintf("the spare %s is not used: %s", ondisk.Printable(s.Name), ondisk.PrintableText(s.Failed))})
		}
	}
	return all
}

// further are what a further volume needs a hand with. One that is damaged is among the
// damaged snapshots.
func (v *VolumeStatus) further(f *PoolVolume) (all []Action) {
	name := v.shellName() + "/" + f.Name
	if f.Degraded {
		all = append(all, Action{Trouble: name + " is degraded, it gets no new chunks", Remedy: "a sector of its map could not be written: see the component with errors, or make room below it"})
	}
	if f.Quota > 0 && f.Allocated+v.ChunkSize > f.Quota {
		all = append(all, Action{name + " has all that its quota allows, writes that need more fail", "let it have more, or delete what it does not need and discard that",
			[]string{"gvirstor quota SIZE " + name}})
	}
	return all
}

// room is how to give a volume that is full space again: what is quick and sure first.
func (v *VolumeStatus) room(trouble string) Action {
	name := v.shellName()
	a := Action{trouble, "give it space", []string{fmt.Sprintf("gvirstor add %s PROV", name)}}
	if v.ReservedChunks > 0 {
		a.Commands = append(a.Commands, "gvirstor reserve --release "+name)
	}
	if v.Snapshots > 0 { // which keep chunks from being looked at
		a.Remedy += fmt.Sprintf(", of which snapshots take some (%d: `gvirstor list -t snapshot %s`)", v.Snapshots, name)
		return a
	}
	a.Remedy += ", or free chunks that hold only zeros"
	a.Commands = append(a.Commands, "gvirstor reclaim "+name)
	return a
}

// mend is what to do about a component.
func (v *VolumeStatus) mend(c ComponentStatus) (all []Action) {
	replace := []string{fmt.Sprintf("gvirstor replace %s %s NEW", v.shellName(), shellWord(c.Name))}
	for _, s := range c.State {
		trouble := fmt.Sprintf("component %s: %s", ondisk.Printable(c.Name), s)
		switch s {
		case StorageFull:
			all = append(all, Action{Trouble: trouble, Remedy: s.Remedy()})
		case Unreached:
			remedy := s.Remedy()
			if c.Gone {
				remedy = "see that its server has the right disk, stop the volume and start it again"
			}
			all = append(all, Action{Trouble: trouble, Remedy: remedy})
		case ReadErrors, WriteErrors, NoWrites:
			all = append(all, Action{trouble, s.Remedy(), replace})
		case FlushFailed:
			all = append(all, Action{trouble, "it lost data that it had accepted: replace it, then check the file systems on the volume", replace})
		}
	}
	return all
}

// shellName is the volume's name as sh(1) takes it.
func (v *VolumeStatus) shellName() string { return shellWord(v.Name) }

// shellWord is a word as sh(1) takes it, and as a terminal may be shown it.
func shellWord(s string) string { return ownfile.ShellWord(ondisk.PrintableText(s)) }
