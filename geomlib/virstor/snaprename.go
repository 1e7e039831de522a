package virstor

import (
	"fmt"

	"github.com/gvirstor/gvirstor/ondisk"
)

// RenameSnapshot gives the snapshot of that name another one (ErrNoSnapshot,
// ErrSnapshotInUse, ondisk.ErrMapName, ErrSnapshotExists), which it has on stable storage
// when it returns. It needs no chunk, and a crash leaves the one name or the other.
func (v *Volume) RenameSnapshot(name, to string) error {
	v.metaMu.Lock()
	err := v.mayChangePoolLocked()
	if err == nil {
		err = v.renameSnapshotLocked(name, to)
	}
	v.metaMu.Unlock()
	v.emit(Event{Kind: EventSnapshots}) // who let go of it looks what it is called now
	if err != nil {
		return fmt.Errorf("rename %s@%s: %w", v.name, ondisk.Printable(name), err)
	}
	return nil
}

// renameSnapshotLocked is RenameSnapshot. v.metaMu is held.
func (v *Volume) renameSnapshotLocked(name, to string) error {
	if err := ondisk.CheckMapName(to); err != nil {
		return err
	}
	s, err := v.snapshotLocked(name)
	switch {
	case err != nil:
		return err
	case s.damage != nil:
		return s.damage
	case s.views > 0:
		return ErrSnapshotInUse
	}
	if _, err := v.snapshotLocked(to); err == nil {
		return ErrSnapshotExists
	}
	next := v.nextDirectory(true)
	for i := range next.Maps {
		if next.Maps[i].ID == s.ID {
			next.Maps[i].Name = to
		}
	}
	if err := v.storeNextLocked(next); err != nil {
		return err
	}
	if err := v.putInForceLocked(next.link); err != nil {
		return err
	}
	v.pool.dir, s.Name = &next.Directory, to
	v.nameSnapshots()
	return nil
}
