package virstor

import (
	"fmt"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/extblock"
	"github.com/gvirstor/gvirstor/ondisk"
)

// extension is the extension block of component 0.
type extension struct {
	offset int64 // bytes from the start of component 0
	room   bool  // the label left room for it
	valid  bool  // rec was read from the disk
	rec    ondisk.Extension
}

// readExtension reads the record in force, which must fit the volume (ErrDamaged). An
// extension without one is no error where the volume was never fenced or has no room. A
// fenced component 0 with a member block had one: without it nobody knows whether there are
// snapshots and further volumes, whose chunks would be taken for free.
func readExtension(p geomlib.Provider, m ondisk.Metadata) (extension, error) {
	e := extension{rec: ondisk.Extension{VolumeID: m.ID, ChunkSize: m.ChunkSize}}
	e.offset, e.room = ondisk.ExtensionOffset(m)
	if !e.room {
		return e, nil
	}
	slots, err := extblock.SlotsAt(p, e.offset)
	if err != nil {
		return e, err
	}
	rec, ok, err := ondisk.PickExtension(slots, m)
	if err != nil {
		return e, fmt.Errorf("extension block of %s: %w; use the version that wrote it", p.Name(), err)
	}
	if ok {
		if err := rec.Validate(m, p.SectorSize()); err != nil {
			return e, fmt.Errorf("%w: %w of %s: %w; see `gvirstor check`", ErrDamaged, ErrRecord, p.Name(), err)
		}
		e.rec, e.valid = rec, true
	} else if m.Version == ondisk.VersionFenced && m.Member.Exists() {
		return e, fmt.Errorf("%w: %w of %s: neither slot of its block holds it; see `gvirstor check`", ErrDamaged, ErrRecord, p.Name())
	}
	return e, nil
}

// Record is the extension record in force on p, a component with the metadata m, as it
// lies there: it may contradict the volume. found is false where there is none, as on
// all components but 0. It fails with ondisk.ErrExtensionVersion when a later version of
// this program wrote it.
func Record(p geomlib.Provider, m ondisk.Metadata) (rec ondisk.Extension, found bool, err error) {
	if m.Version != ondisk.VersionFenced || m.No != 0 {
		return rec, false, nil
	}
	slots, room, err := extblock.Slots(p, m)
	if err != nil || !room {
		return rec, false, err
	}
	if rec, found, err = ondisk.PickExtension(slots, m); err != nil {
		return rec, false, fmt.Errorf("extension block of %s: %w", p.Name(), err)
	}
	return rec, found, nil
}

// writeExtensionLocked makes change in a new record, written and flushed. v.metaMu
// is held.
func (v *Volume) writeExtensionLocked(change func(*ondisk.Extension)) error {
	if !v.meta.ext.room {
		return fmt.Errorf("%s: %w", v.name, ErrNoExtension)
	}
	if err := v.cond.refusal(deedWriteMetadata); err != nil && v.meta.heir == nil {
		return err // another provider may be component 0, with a record of this sequence
	}
	next := v.meta.ext.rec
	change(&next)
	next.Sequence++
	zero := v.component(0)
	if v.meta.heir != nil {
		zero = v.meta.heir
	}
	if err := extblock.Store(zero.accounted(), v.meta.ext.offset, next); err != nil {
		// Either record may be in force now; the next one must beat both.
		v.meta.ext.rec.Sequence++
		return err
	}
	v.meta.ext.rec, v.meta.ext.valid = next, true
	return nil
}

// resetExtension removes whatever records there are, before the fence makes
// them valid, and leaves a first one.
func resetExtension(p geomlib.Provider, e *extension) error {
	if !e.room {
		return nil
	}
	for slot := range 2 {
		if err := extblock.Erase(p, e.offset, slot); err != nil {
			return err
		}
	}
	e.rec = ondisk.Extension{Sequence: 1, VolumeID: e.rec.VolumeID, ChunkSize: e.rec.ChunkSize}
	if err := extblock.Store(p, e.offset, e.rec); err != nil {
		return err
	}
	e.valid = true
	return nil
}
