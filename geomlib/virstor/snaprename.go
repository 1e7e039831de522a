package virstor

import (
	"fmt"

	"github.com/gvirstor/gvirstor/ondisk"
)

// RenameSnapshot gives the snapshot of that name another one (ErrNoSnapshot,
// ErrSnapshotInUse, ondisk.ErrMapName, ErrSnapshotExists), which it has on stable storage
// when it returns. It needs no chunk, and a crash leaves the one name or the other.
func (h *Head) RenameSnapshot(name, to string) error {
	h.v.metaMu.Lock()
	err := h.v.mayChangePoolLocked()
	if err == nil {
		err = h.renameSnapshotLocked(name, to)
	}
	h.v.metaMu.Unlock()
	h.v.emit(Event{Kind: EventSnapshots}) // who let go of it looks what it is called now
	if err != nil {
		return fmt.Errorf("rename %s@%s: %w", h.Name(), ondisk.Printable(name), err)
	}
	return nil
}

// MayRenameSnapshot tells why RenameSnapshot would fail, or nil. Who uses the snapshot is not
// looked at, and a volume that was opened to be read is asked as if it were not.
func (h *Head) MayRenameSnapshot(name, to string) error {
	h.v.metaMu.Lock()
	defer h.v.metaMu.Unlock()
	err := h.v.couldChangePoolLocked()
	if err == nil {
		_, err = h.toRenameLocked(name, to)
	}
	if err != nil {
		return fmt.Errorf("rename %s@%s: %w", h.Name(), ondisk.Printable(name), err)
	}
	return nil
}

// toRenameLocked is the snapshot of that name, if it can be called to. v.metaMu is held.
func (h *Head) toRenameLocked(name, to string) (*snapshot, error) {
	if err := ondisk.CheckMapName(to); err != nil {
		return nil, err
	}
	s, err := h.snapshotLocked(name)
	switch {
	case err != nil:
		return nil, err
	case s.damage != nil:
		return nil, s.damage
	}
	if _, err := h.snapshotLocked(to); err == nil {
		return nil, ErrSnapshotExists
	}
	return s, nil
}

// renameSnapshotLocked is RenameSnapshot. v.metaMu is held.
func (h *Head) renameSnapshotLocked(name, to string) error {
	s, err := h.toRenameLocked(name, to)
	if err != nil {
		return err
	}
	if s.views > 0 {
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
