package virstor

import (
	"fmt"
	"log/slog"

	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/extblock"
	"github.com/gvirstor/gvirstor/ondisk"
)

// Rename gives an assembled volume that nobody serves another name (ErrName as
// ondisk.CheckNewName says), after all that FinishInterrupted does; handBack is as there. The
// name that component 0 has is the volume's: writing that one sector does it. A crash
// before it changes nothing, and after it the next opening for writing gives the others
// the name.
func Rename(a *Assembly, name string, handBack bool, log *slog.Logger) error {
	if err := ondisk.CheckNewName(name); err != nil {
		return fmt.Errorf("rename %s: %w", ondisk.Printable(a.Name), err)
	}
	return finishInterrupted(a, handBack, Config{Log: log}, func(v *Volume) error {
		if err := v.riseLocked(rise{comps: v.components(), edit: func(_ *component, m *ondisk.Metadata) { m.Name = name }}); err != nil {
			return fmt.Errorf("rename %s: %w", ondisk.Printable(v.name), err)
		}
		return nil
	})
}

// NewID gives an assembled volume that nobody serves another id, after all that FinishInterrupted
// does; handBack is as there. id is not 0, not the volume's, and no other volume's,
// which the caller has seen to.
//
// The metadata sector of component 0 commits. Before it, the record that says that the
// others have the former id yet is written for the new id, where it means nothing; so a
// crash changes nothing, or the next opening for writing gives them the new id.
// ErrNoExtension: there are others, and no room for that record.
func NewID(a *Assembly, id uint32, handBack bool, log *slog.Logger) error {
	if id == 0 || id == a.ID {
		return fmt.Errorf("new id %08x for %s: %w", id, ondisk.Printable(a.Name), ErrRequest)
	}
	return finishInterrupted(a, handBack, Config{Log: log}, func(v *Volume) error {
		if err := v.newIDLocked(id); err != nil {
			return fmt.Errorf("new id for %s: %w", ondisk.Printable(v.name), err)
		}
		return nil
	})
}

// newIDLocked is NewID of an open volume. v.metaMu is held.
func (v *Volume) newIDLocked(id uint32) error {
	comps := v.components()
	if len(comps) > 1 && !v.meta.ext.room {
		return ErrNoExtension
	}
	if v.meta.ext.room {
		next := v.meta.ext.rec
		next.Sequence++
		next.VolumeID, next.Clean = id, false
		next.Intent = ondisk.Intent{Kind: ondisk.IntentNewID, Arg: [8]uint64{uint64(v.id)}}
		if err := extblock.Store(comps[0].accounted(), v.meta.ext.offset, next); err != nil {
			return err
		}
		v.meta.ext.rec = next
	}
	if err := v.riseLocked(rise{comps: comps, edit: func(_ *component, m *ondisk.Metadata) { m.ID = id }}); err != nil {
		return err
	}
	v.id = id
	if !v.meta.ext.room {
		return nil
	}
	return v.writeExtensionLocked(func(e *ondisk.Extension) { e.Intent = ondisk.Intent{} })
}

// formerIDs are the ids that volumes had whose new id is not on all members yet, each by
// the id that component 0 has now.
func formerIDs(groups map[uint32][]Member) map[uint32]uint32 {
	former := make(map[uint32]uint32)
	for id, members := range groups {
		for _, m := range members {
			if m.Metadata.No != 0 || m.Metadata.Version != ondisk.VersionFenced || len(members) >= int(m.Metadata.Count) {
				continue
			}
			if (&Assembly{}).sound(m) != nil {
				continue
			}
			e, err := readExtension(m.Provider, m.Metadata)
			if err != nil || !e.valid || e.rec.Intent.Kind != ondisk.IntentNewID {
				continue // what is wrong with it is said when it is judged
			}
			if old := e.rec.Intent.Arg[0]; old <= 1<<32-1 && uint32(old) != id && len(groups[uint32(old)]) > 0 {
				former[id] = uint32(old)
			}
		}
	}
	return former
}

// adoptFormer judges a with those, too, that have the former id of the volume yet, and
// returns who of them is left: the volume that it was cloned from may be there. It
// leaves a alone, to be judged without them, when that makes no volume.
func (a *Assembly) adoptFormer(own, others []Member) (left []Member, adopted bool) {
	trial := &Assembly{ID: a.ID, Name: a.Name}
	var all []Member
	all = append(append(all, own...), others...)
	trial.judge(all)
	if trial.Err != nil {
		return others, false
	}
	in := func(p Member, list []Member) bool {
		for _, m := range list {
			if m.Provider == p.Provider {
				return true
			}
		}
		return false
	}
	for _, m := range others {
		if !in(m, trial.Members) {
			left = append(left, m)
		}
	}
	for _, ig := range trial.Ignored {
		if !in(ig.Member, others) {
			a.Ignored = append(a.Ignored, ig)
		}
	}
	trial.Ignored = a.Ignored
	*a = *trial
	return left, true
}
