package virstor

import (
	"fmt"

	"github.com/gvirstor/gvirstor/ondisk"
)

// RenameSnapshot gives the snapshot of that name another one (ErrNoSnapshot,
// ErrSnapshotInUse, ondisk.ErrMapName, ErrSnapshotExists), which it has on stable storage
// when it returns. It needs no chunk, and a crash leaves the one name or the other. With dry it
// only tells whether that can be: who uses the snapshot is not looked at, and a volume that was
// opened to be read is asked as if it were not.
func (h *Head) RenameSnapshot(name, to string, dry bool) error {
	h.v.metaMu.Lock()
	err := h.v.couldChangePoolLocked(dry)
	if err == nil {
		err = h.renameSnapshotLocked(name, to, dry)
	}
	h.v.metaMu.Unlock()
	if !dry {
		h.v.emit(Event{Kind: EventSnapshots}) // who let go of it looks what it is called now
	}
	if err != nil {
		return fmt.Errorf("rename %s@%s: %w", h.Name(), ondisk.Printable(name), err)
	}
	return nil
}

// renameSnapshotLocked is RenameSnapshot. v.metaMu is held.
func (h *Head) renameSnapshotLocked(name, to string, dry bool) error {
	if err := ondisk.CheckMapName(to); err != nil {
		return err
	}
	s, err := h.snapshotLocked(name)
	switch {
	case err != nil:
		return err
	case s.damage != nil:
		return s.damage
	}
	if _, err := h.snapshotLocked(to); err == nil {
		return ErrSnapshotExists
	}
	switch {
	case dry:
		return nil
	case s.views > 0:
		return ErrSnapshotInUse
	}
	next := h.v.nextDirectory(true)
	next.edit(s.ID, func(m *ondisk.PoolMap) { m.Name = to })
	if err := h.v.replaceDirectoryLocked(next); err != nil {
		return err
	}
	s.Name = to
	h.v.nameSnapshots()
	h.v.freeSoon()
	return nil
}
