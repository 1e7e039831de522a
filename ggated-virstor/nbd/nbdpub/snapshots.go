package nbdpub

import (
	"errors"
	"fmt"
	"strings"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd"
	"github.com/gvirstor/gvirstor/ggated-virstor/publish"
)

// releaser is a snapshot or a further volume that is an export.
type releaser interface{ release() }

type view struct{ *virstor.View }

func (v view) release() { v.Close() }

type further struct{ *virstor.Head }

func (f further) release() { f.Release() }

// exportOf is the name of the export of what is called title.
func (e *export) exportOf(title string) string {
	if strings.HasPrefix(title, "/") {
		return e.vol.Name() + title
	}
	return e.vol.Name() + "@" + title
}

// Follow implements publish.Follower.
func (e *export) Follow(ev virstor.Event) error {
	if ev.Kind != virstor.EventSnapshots {
		return nil
	}
	return e.ShowSnapshots()
}

// ShowSnapshots implements publish.SnapshotKeeper: all snapshots and further volumes but
// damaged ones become exports.
func (e *export) ShowSnapshots() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ended {
		return nil
	}
	volumes := []string{""}
	for _, i := range e.vol.Volumes() {
		if i.Err == nil {
			volumes = append(volumes, i.Name)
		}
	}
	var err error
	for _, volume := range volumes {
		err = errors.Join(err, e.showLocked(volume))
	}
	return err
}

// showLocked makes a volume, unless it is the first one, and its snapshots exports. e.mu is
// held.
func (e *export) showLocked(volume string) error {
	if e.leaving[publish.Title(volume, "")] > 0 {
		return nil
	}
	h, err := e.vol.OpenVolume(volume)
	if errors.Is(err, virstor.ErrNoVolume) { // deleted meanwhile
		return nil
	}
	if err != nil {
		return err
	}
	defer h.Release()
	for _, s := range h.Snapshots() {
		if t := publish.Title(volume, s.Name); e.shown[t] == nil && s.Err == nil && e.leaving[t] == 0 {
			err = errors.Join(err, e.addSnapshotLocked(h, t, s.Name))
		}
	}
	if t := publish.Title(volume, ""); volume != "" && e.shown[t] == nil {
		err = errors.Join(err, e.addVolumeLocked(t, volume))
	}
	return err
}

// addSnapshotLocked makes a snapshot of h an export; e.mu is held.
func (e *export) addSnapshotLocked(h *virstor.Head, title, snapshot string) error {
	v, err := h.OpenSnapshot(snapshot)
	if errors.Is(err, virstor.ErrNoSnapshot) { // deleted meanwhile
		return nil
	}
	if err != nil {
		return err
	}
	if err := e.pub.Server.AddSnapshot(e.exportOf(title), v); err != nil {
		v.Close()
		return err
	}
	e.shown[title] = view{v}
	return nil
}

// addVolumeLocked makes a further volume an export; e.mu is held.
func (e *export) addVolumeLocked(title, volume string) error {
	h, err := e.vol.OpenVolume(volume)
	if errors.Is(err, virstor.ErrNoVolume) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := e.pub.Server.AddVolume(e.exportOf(title), h); err != nil {
		h.Release()
		return err
	}
	e.shown[title] = further{h}
	return nil
}

// LetGo implements publish.SnapshotKeeper.
func (e *export) LetGo(title string, force bool) (again func(), err error) {
	if err := e.letGoAll(title, force); err != nil {
		return nil, errors.Join(err, e.ShowSnapshots())
	}
	return func() {
		e.mu.Lock()
		if e.leaving[title]--; e.leaving[title] == 0 {
			delete(e.leaving, title)
		}
		e.mu.Unlock()
		if err := e.ShowSnapshots(); err != nil {
			e.pub.Log.Error("a snapshot is no export", "volume", e.vol.Name(), "error", err)
		}
	}, nil
}

// letGoAll ends the export of title, and with a further volume of its snapshots; after an
// error some may have ended.
func (e *export) letGoAll(title string, force bool) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, t := range e.belongingLocked(title) {
		if err := e.letGoLocked(t, force); err != nil {
			return err
		}
	}
	e.leaving[title]++
	return nil
}

// belongingLocked is what is shown of title, and with a further volume of its snapshots. e.mu
// is held.
func (e *export) belongingLocked(title string) (all []string) {
	for t := range e.shown {
		if publish.Belongs(t, title) {
			all = append(all, t)
		}
	}
	return all
}

// letGoLocked ends an export; e.mu is held. force: whoever is connected.
func (e *export) letGoLocked(title string, force bool) error {
	err := e.pub.Server.RemoveExport(e.exportOf(title), force)
	if errors.Is(err, nbd.ErrInUse) {
		return fmt.Errorf("%w: %w", publish.ErrInUse, err)
	}
	if err != nil {
		return err
	}
	e.shown[title].release()
	delete(e.shown, title)
	return nil
}

// exports are the names of those of the volume, of its snapshots and of what else its pool
// has.
func (e *export) exports() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	names := []string{e.vol.Name()}
	for title := range e.shown {
		names = append(names, e.exportOf(title))
	}
	return names
}

// Shown implements publish.SnapshotKeeper.
func (e *export) Shown() map[string][]control.Publication {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := make(map[string][]control.Publication)
	for title := range e.shown {
		all[title] = e.describe(e.exportOf(title))
	}
	return all
}
