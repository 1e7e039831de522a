package verbs

import (
	"context"
	"fmt"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ondisk"
)

// own is what follows the slash in the name of a further volume. A volume that the kernel class
// made may have one in its own.
func (e Engine) own(name string) string {
	if control.VolumeName(name) == e.Vol.Name() {
		return ""
	}
	_, own := control.SplitName(name)
	return own
}

// head is the volume of the pool that a name means: who found the pool by it left what
// follows the slash. Whoever asks lets it go.
func (e Engine) head(name string) (*virstor.Head, error) {
	own := e.own(name)
	h, err := e.Vol.OpenVolume(own)
	return h, Classify(err)
}

// Create makes a further volume, or only tells what that takes.
func (e Engine) Create(_ context.Context, name string, r control.CreateRequest) (control.CreateResult, error) {
	own := e.own(name)
	plan, err := e.create(own, r)
	return control.CreateResult{Size: plan.Size, MapChunks: plan.MapChunks, MapBytes: plan.MapChunks * e.Vol.ChunkSize()}, Classify(err)
}

func (e Engine) create(own string, r control.CreateRequest) (virstor.VolumePlan, error) {
	if r.Snapshot == "" {
		return e.Vol.CreateLimited(own, r.Size, r.Quota, r.DryRun)
	}
	if r.Size != 0 || r.Quota != 0 {
		return virstor.VolumePlan{}, control.Errorf(control.Invalid, "create: a size or a quota, and a snapshot")
	}
	from, err := e.Vol.OpenVolume(r.Origin)
	if err != nil {
		return virstor.VolumePlan{}, fmt.Errorf("clone: %w", err)
	}
	defer from.Release()
	return from.CloneSnapshot(r.Snapshot, own, r.DryRun)
}

// Quota changes how much a further volume may have, or only tells whether it can.
func (e Engine) Quota(_ context.Context, name string, r control.QuotaRequest) error {
	own := e.own(name)
	return Classify(e.Vol.SetQuota(own, r.Bytes, r.DryRun))
}

// Resize makes a further volume larger or smaller.
func (e Engine) Resize(_ context.Context, name string, r control.ResizeRequest) (control.ResizeResult, error) {
	own := e.own(name)
	size, lost, err := e.Vol.ResizeVolume(own, r.Size, r.Force, r.DryRun)
	return control.ResizeResult{Size: size, LostChunks: lost, LostBytes: lost * e.Vol.ChunkSize()}, Classify(err)
}

// Snapshots are those of the volume, the oldest first.
func (e Engine) Snapshots(_ context.Context, name string) (control.Snapshots, error) {
	all := control.Snapshots{Snapshots: []control.Snapshot{}}
	h, err := e.head(name)
	if err != nil {
		return all, err
	}
	defer h.Release()
	sizes := h.SnapshotSizes()
	for _, s := range h.Snapshots() {
		n := sizes[s.ID]
		out := control.Snapshot{Name: s.Name, ID: s.ID, Created: time.Unix(s.Time, 0).UTC(), Size: s.Size, GUID: s.GUID,
			Refers: n.Refers, Unique: n.Unique, Written: n.Written}
		if s.Err != nil {
			out.Problem = s.Err.Error()
		}
		all.Snapshots = append(all.Snapshots, out)
	}
	return all, nil
}

// Snapshot takes a snapshot, or only tells what that would take.
func (e Engine) Snapshot(_ context.Context, name string, r control.SnapshotRequest) (res control.SnapshotResult, err error) {
	h, err := e.head(name)
	if err != nil {
		return res, err
	}
	defer h.Release()
	if own := e.own(name); r.Recursive && own != "" {
		return res, control.Errorf(control.Invalid, "snapshot all volumes of %s: name the pool", h.Name())
	}
	cost, may, take := h.SnapshotCost, h.MaySnapshot, h.Snapshot
	if r.Recursive {
		cost, may, take = e.Vol.SnapshotAllCost, e.Vol.MaySnapshotAll, e.Vol.SnapshotAll
	}
	res.Chunks, res.FreeChunks = cost()
	size := e.Vol.ChunkSize()
	res.Bytes = res.Chunks * size
	switch {
	case r.Claim != 0:
		return res, Classify(h.SnapshotReceived(r.Snapshot, r.GUID, r.Claim))
	case !r.Force && res.FreeChunks < 2*res.Chunks:
		return res, control.Errorf(control.Invalid, "snapshot %s@%s: it takes up to %d chunks, %d bytes, for its map, of %d chunks, %d bytes, that are free: little would be left for what is written then; give the volume space with `gvirstor add`, or force it",
			h.Name(), ondisk.Printable(r.Snapshot), res.Chunks, res.Bytes, res.FreeChunks, res.FreeChunks*size)
	case r.DryRun:
		return res, Classify(may(r.Snapshot))
	}
	return res, Classify(take(r.Snapshot))
}

// RenameSnapshot gives a snapshot, or a further volume, another name, or only tells whether it
// can have that.
func (e Engine) RenameSnapshot(_ context.Context, name string, r control.RenameSnapshotRequest) error {
	if own := e.own(name); r.Snapshot == "" {
		return Classify(e.Vol.RenameVolume(own, r.To, r.DryRun))
	}
	h, err := e.head(name)
	if err != nil {
		return err
	}
	defer h.Release()
	return Classify(h.RenameSnapshot(r.Snapshot, r.To, r.DryRun))
}

// Delete deletes a snapshot or a further volume, or only tells what that would free.
func (e Engine) Delete(_ context.Context, name string, r control.DeleteRequest) (res control.DeleteResult, err error) {
	own := e.own(name)
	if r.Snapshot == "" {
		res.Chunks, err = e.deleteVolume(own, r.DryRun)
	} else {
		res.Chunks, err = e.deleteSnapshot(own, r)
	}
	res.Bytes = res.Chunks * e.Vol.ChunkSize()
	return res, Classify(err)
}

func (e Engine) deleteVolume(own string, dry bool) (alone int64, err error) {
	if alone, err = e.Vol.MayDeleteVolume(own); err != nil || dry {
		return alone, err
	}
	return alone, e.Vol.DeleteVolume(own)
}

func (e Engine) deleteSnapshot(own string, r control.DeleteRequest) (alone int64, err error) {
	h, err := e.Vol.OpenVolume(own)
	if err != nil {
		return 0, fmt.Errorf("delete %s/%s@%s: %w", e.Vol.Name(), ondisk.Printable(own), ondisk.Printable(r.Snapshot), err)
	}
	defer h.Release()
	if alone, err = h.MayDeleteSnapshot(r.Snapshot); err != nil {
		return 0, fmt.Errorf("delete %w", err)
	}
	if r.DryRun {
		return alone, nil
	}
	return alone, h.DeleteSnapshot(r.Snapshot)
}

// RollbackChanges tells what a rollback would take back, or why it cannot be done.
func (e Engine) RollbackChanges(name string, r control.RollbackRequest) (control.RollbackResult, error) {
	may := e.Vol.MayRollback
	if own := e.own(name); own != "" {
		may = func(snapshot string) (virstor.Loss, error) { return e.Vol.MayRollbackVolume(own, snapshot) }
	}
	c, err := may(r.Snapshot)
	return control.RollbackResult{
		Chunks: c.Chunks, Bytes: c.Chunks * e.Vol.ChunkSize(),
		LostChunks: c.Alone, LostBytes: c.Alone * e.Vol.ChunkSize(), Smaller: c.Grown,
	}, Classify(err)
}

// RollbackFurther rolls a further volume back, which nobody uses, or only tells what that would
// take back.
func (e Engine) RollbackFurther(name string, r control.RollbackRequest) (control.RollbackResult, error) {
	res, err := e.RollbackChanges(name, r)
	if err != nil || r.DryRun || res.Nothing() {
		return res, err
	}
	own := e.own(name)
	return res, Classify(e.Vol.RollbackVolume(own, r.Snapshot, r.Force))
}
