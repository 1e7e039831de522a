package nbdpub

import (
	"errors"
	"fmt"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd"
	"github.com/gvirstor/gvirstor/ggated-virstor/publish"
)

// exportOf is the name of the export of a snapshot.
func (e *export) exportOf(snapshot string) string { return e.vol.Name() + "@" + snapshot }

// Follow implements publish.Follower.
func (e *export) Follow(ev virstor.Event) error {
	if ev.Kind != virstor.EventSnapshots {
		return nil
	}
	return e.ShowSnapshots()
}

// ShowSnapshots implements publish.SnapshotKeeper: all but damaged ones become exports.
func (e *export) ShowSnapshots() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ended {
		return nil
	}
	var err error
	for _, s := range e.vol.Snapshots() {
		if e.snapshots[s.Name] == nil && s.Err == nil && e.leaving[s.Name] == 0 {
			err = errors.Join(err, e.addLocked(s.Name))
		}
	}
	return err
}

// addLocked makes a snapshot an export; e.mu is held.
func (e *export) addLocked(snapshot string) error {
	view, err := e.vol.OpenSnapshot(snapshot)
	if errors.Is(err, virstor.ErrNoSnapshot) { // deleted meanwhile
		return nil
	}
	if err != nil {
		return err
	}
	if err := e.pub.Server.AddSnapshot(e.exportOf(snapshot), view); err != nil {
		view.Close()
		return err
	}
	e.snapshots[snapshot] = view
	return nil
}

// LetGo implements publish.SnapshotKeeper.
func (e *export) LetGo(snapshot string) (again func(), err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.snapshots[snapshot] != nil {
		if err := e.letGoLocked(snapshot, false); err != nil {
			return nil, err
		}
	}
	e.leaving[snapshot]++
	return func() {
		e.mu.Lock()
		if e.leaving[snapshot]--; e.leaving[snapshot] == 0 {
			delete(e.leaving, snapshot)
		}
		e.mu.Unlock()
		if err := e.ShowSnapshots(); err != nil {
			e.pub.Log.Error("a snapshot is no export", "volume", e.vol.Name(), "error", err)
		}
	}, nil
}

// letGoLocked ends the export of a snapshot; e.mu is held. force: whoever is connected.
func (e *export) letGoLocked(snapshot string, force bool) error {
	err := e.pub.Server.RemoveExport(e.exportOf(snapshot), force)
	if errors.Is(err, nbd.ErrInUse) {
		return fmt.Errorf("%w: %w", publish.ErrInUse, err)
	}
	if err != nil {
		return err
	}
	e.snapshots[snapshot].Close()
	delete(e.snapshots, snapshot)
	return nil
}

// exports are the names of those of the volume and of its snapshots.
func (e *export) exports() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	names := []string{e.vol.Name()}
	for snapshot := range e.snapshots {
		names = append(names, e.exportOf(snapshot))
	}
	return names
}
