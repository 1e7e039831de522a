package daemon

import (
	"context"
	"errors"
	"fmt"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/publish"
	"github.com/gvirstor/gvirstor/ondisk"
)

// Snapshots implements control.Backend.
func (d *Daemon) Snapshots(ctx context.Context, name string) (control.Snapshots, error) {
	s, err := d.findPool(name)
	if err != nil {
		return control.Snapshots{}, err
	}
	all, err := d.verbsOf(s).Snapshots(ctx, name)
	shown := s.shown()
	for i := range all.Snapshots {
		all.Snapshots[i].Published = shown[s.titleOf(name, all.Snapshots[i].Name)]
	}
	return all, err
}

// shown is where clients find snapshots and further volumes, by their titles.
func (s *served) shown() map[string][]control.Publication {
	all := make(map[string][]control.Publication)
	for _, k := range s.snapshotKeepers() {
		for title, ps := range k.Shown() {
			all[title] = append(all[title], ps...)
		}
	}
	return all
}

// Diff implements control.Backend.
func (d *Daemon) Diff(ctx context.Context, name string, r control.DiffRequest) (control.Diff, error) {
	s, err := d.findPool(name)
	if err != nil {
		return control.Diff{}, err
	}
	return d.verbsOf(s).Diff(ctx, name, r)
}

// Snapshot implements control.Backend. When it returns clients find the snapshot.
func (d *Daemon) Snapshot(ctx context.Context, name string, r control.SnapshotRequest) (res control.SnapshotResult, err error) {
	s, err := d.findActivePool(name)
	if err == nil {
		res, err = d.verbsOf(s).Snapshot(ctx, name, r)
	}
	if err != nil || r.DryRun {
		return res, err
	}
	d.log.Info("snapshot taken", "volume", control.VolumeName(name), "snapshot", r.Snapshot)
	d.show(s)
	return res, nil
}

// show has publications show what has come: it is there, whatever becomes of that.
func (d *Daemon) show(s *served) {
	for _, k := range s.snapshotKeepers() {
		if err := k.ShowSnapshots(); err != nil {
			d.log.Error("a volume or snapshot cannot be used by clients", "volume", s.vol.Name(), "error", err)
		}
	}
}

// Create implements control.Backend. When it returns clients find the volume.
func (d *Daemon) Create(ctx context.Context, name string, r control.CreateRequest) (res control.CreateResult, err error) {
	s, err := d.findActivePool(name)
	if err != nil {
		return res, err
	}
	if res, err = d.verbsOf(s).Create(ctx, name, r); err != nil || r.DryRun {
		return res, err
	}
	d.log.Info("volume made", "volume", control.VolumeName(name), "bytes", res.Size, "snapshot", r.Snapshot)
	d.show(s)
	return res, nil
}

// Quota implements control.Backend.
func (d *Daemon) Quota(ctx context.Context, name string, r control.QuotaRequest) error {
	s, err := d.findActivePool(name)
	if err == nil {
		err = d.verbsOf(s).Quota(ctx, name, r)
	}
	if err == nil && !r.DryRun {
		d.log.Info("quota changed", "volume", control.VolumeName(name), "bytes", r.Bytes)
		s.watch.Look() // what was predicted is of the old one
	}
	return err
}

// Resize implements control.Backend.
func (d *Daemon) Resize(ctx context.Context, name string, r control.ResizeRequest) (res control.ResizeResult, err error) {
	s, err := d.findActivePool(name)
	if err != nil {
		return res, err
	}
	if res, err = d.verbsOf(s).Resize(ctx, name, r); err == nil && !r.DryRun {
		d.followed(ctx, s)
		d.log.Info("volume resized", "volume", control.VolumeName(name), "bytes", res.Size)
	}
	return res, err
}

// titleOf is what publications call a snapshot, or the further volume of that name.
func (s *served) titleOf(name, snapshot string) string { return publish.Title(s.own(name), snapshot) }

// own is what follows the slash in the name of a further volume, which the volume itself may
// have, too.
func (s *served) own(name string) string {
	if control.VolumeName(name) == s.vol.Name() {
		return ""
	}
	_, own := control.SplitName(name)
	return own
}

// snapshotKeepers are the publications through which snapshots are read, too.
func (s *served) snapshotKeepers() (all []publish.SnapshotKeeper) {
	for _, p := range s.pubs {
		if k, ok := p.(publish.SnapshotKeeper); ok {
			all = append(all, k)
		}
	}
	return all
}

// PublishSnapshot implements control.Backend.
func (d *Daemon) PublishSnapshot(_ context.Context, name string, r control.PublishRequest) (control.PublishResult, error) {
	s, err := d.findActivePool(name)
	if err != nil {
		return control.PublishResult{}, err
	}
	title := s.titleOf(name, r.Snapshot)
	asked := s.snapshotPublishers()
	if len(asked) == 0 {
		return control.PublishResult{}, noDevices(name, r.Snapshot, s.shown()[title])
	}
	if r.DryRun {
		return control.PublishResult{Published: s.shown()[title]}, s.hasSnapshot(name, r.Snapshot)
	}
	for _, p := range asked {
		if err := p.ShowSnapshot(title); err != nil {
			return control.PublishResult{}, classify(err)
		}
	}
	d.log.Info("published", "what", fullName(name, r.Snapshot))
	return control.PublishResult{Published: s.shown()[title]}, nil
}

// hasSnapshot refuses what cannot be opened as a snapshot of that volume.
func (s *served) hasSnapshot(name, snapshot string) error {
	h, err := s.vol.OpenVolume(s.own(name))
	if err == nil {
		defer h.Release()
		var view *virstor.View
		if view, err = h.OpenSnapshot(snapshot); err == nil {
			view.Close()
			return nil
		}
	}
	return classify(fmt.Errorf("publish %s: %w", fullName(name, snapshot), err))
}

// UnpublishSnapshot implements control.Backend.
func (d *Daemon) UnpublishSnapshot(_ context.Context, name string, r control.UnpublishRequest) error {
	s, err := d.findActivePool(name)
	if err != nil {
		return err
	}
	asked := s.snapshotPublishers()
	if len(asked) == 0 {
		return noDevices(name, r.Snapshot, nil)
	}
	for _, p := range asked {
		err := p.HideSnapshot(s.titleOf(name, r.Snapshot), r.Force)
		if errors.Is(err, publish.ErrInUse) {
			return control.Errorf(control.Busy, "unpublish %s: %v; -f takes it away", fullName(name, r.Snapshot), err)
		}
		if err != nil {
			return classify(fmt.Errorf("unpublish %w", err))
		}
	}
	d.log.Info("unpublished", "what", fullName(name, r.Snapshot))
	return nil
}

// noDevices refuses to publish where a snapshot needs nobody to ask for it; ps is where
// clients find it.
func noDevices(name, snapshot string, ps []control.Publication) error {
	for _, p := range ps {
		if p.URI != "" {
			return control.Errorf(control.Invalid, "this daemon publishes no devices (--gate); NBD clients find %s at %s", fullName(name, snapshot), p.URI)
		}
	}
	return control.Errorf(control.Invalid, "%s: this daemon publishes no devices (--gate)", fullName(name, snapshot))
}

// snapshotPublishers are the publications that show snapshots when that is asked for.
func (s *served) snapshotPublishers() (all []publish.SnapshotPublisher) {
	for _, p := range s.pubs {
		if k, ok := p.(publish.SnapshotPublisher); ok {
			all = append(all, k)
		}
	}
	return all
}

// letGo has publications let go of a snapshot, or of a further volume, for a verb, until again
// is called; with force, whoever has it.
func (s *served) letGo(verb, name, snapshot string, force bool) (again func(), err error) {
	var all []func()
	again = func() {
		for _, f := range all {
			f()
		}
	}
	for _, k := range s.snapshotKeepers() {
		f, err := k.LetGo(s.titleOf(name, snapshot), force)
		if err == nil {
			all = append(all, f)
			continue
		}
		again()
		if errors.Is(err, publish.ErrInUse) {
			return nil, control.Errorf(control.Busy, "%s %s: %v", verb, fullName(name, snapshot), err)
		}
		return nil, classify(err)
	}
	return again, nil
}

// mayLetGo tells why letGo would fail without force, or nil.
func (s *served) mayLetGo(verb, name, snapshot string) error {
	title := s.titleOf(name, snapshot)
	for t, ps := range s.shown() {
		if users := usersAmong(ps); users != "" && publish.Belongs(t, title) {
			return control.Errorf(control.Busy, "%s %s: it is in use: %s", verb, fullName(name, snapshot), users)
		}
	}
	return nil
}

// fullName is that of a snapshot, or of the volume.
func fullName(name, snapshot string) string {
	full := ondisk.Printable(control.VolumeName(name))
	if snapshot == "" {
		return full
	}
	return full + "@" + ondisk.Printable(snapshot)
}

// RenameSnapshot implements control.Backend. When it returns clients find the snapshot by
// its new name.
func (d *Daemon) RenameSnapshot(ctx context.Context, name string, r control.RenameSnapshotRequest) error {
	s, err := d.findActivePool(name)
	if err != nil {
		return err
	}
	if r.DryRun {
		if err := d.verbsOf(s).RenameSnapshot(ctx, name, r); err != nil {
			return err
		}
		return s.mayLetGo("rename", name, r.Snapshot)
	}
	again, err := s.letGo("rename", name, r.Snapshot, false)
	if err != nil {
		return err
	}
	defer again()
	if err = d.verbsOf(s).RenameSnapshot(ctx, name, r); err == nil {
		d.log.Info("renamed", "what", fullName(name, r.Snapshot), "new", r.To)
	}
	return err
}

// Delete implements control.Backend. Publications let go of the snapshot first.
func (d *Daemon) Delete(ctx context.Context, name string, r control.DeleteRequest) (res control.DeleteResult, err error) {
	s, err := d.findActivePool(name)
	if err != nil {
		return res, err
	}
	if r.DryRun {
		return d.verbsOf(s).Delete(ctx, name, r)
	}
	again, err := s.letGo("delete", name, r.Snapshot, false)
	if err != nil {
		return res, err
	}
	defer again()
	if res, err = d.verbsOf(s).Delete(ctx, name, r); err == nil {
		d.log.Info("deleted", "what", fullName(name, r.Snapshot))
	}
	return res, err
}

// Rollback implements control.Backend. A volume that is what the snapshot holds stays in
// service.
func (d *Daemon) Rollback(ctx context.Context, name string, r control.RollbackRequest) (res control.RollbackResult, err error) {
	s, err := d.findActivePool(name)
	if err != nil {
		return res, err
	}
	if s.own(name) != "" {
		return d.rollbackFurther(s, name, r)
	}
	d.verbs.Lock()
	defer d.verbs.Unlock()
	if res, err = d.verbsOf(s).RollbackChanges("", r); err != nil {
		return res, err
	}
	_, res.Users = s.users()
	if r.DryRun || res.Nothing() {
		return res, nil
	}
	if err := s.hasAll(r.Providers); err != nil {
		return res, err
	}
	n, err := d.whileClosed(ctx, s, r.Providers, r.Force, func(a *virstor.Assembly) error {
		return virstor.Rollback(a, r.Snapshot, r.Force, d.log)
	})
	if err == nil {
		d.log.Info("volume rolled back", "volume", n.vol.Name(), "snapshot", r.Snapshot)
	}
	return res, err
}

// rollbackFurther is Rollback of a further volume: the others stay in service.
func (d *Daemon) rollbackFurther(s *served, name string, r control.RollbackRequest) (res control.RollbackResult, err error) {
	v := d.verbsOf(s)
	if res, err = v.RollbackChanges(name, r); err != nil {
		return res, err
	}
	if res.Users = s.usersOf(name); r.DryRun || res.Nothing() {
		return res, nil
	}
	again, err := s.letGo("rollback", name, "", r.Force)
	if err != nil {
		return res, err
	}
	defer again()
	if _, err = v.RollbackFurther(name, r); err == nil {
		d.log.Info("volume rolled back", "volume", control.VolumeName(name), "snapshot", r.Snapshot)
	}
	return res, err
}
