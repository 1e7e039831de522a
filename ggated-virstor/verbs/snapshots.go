package verbs

import (
	"context"
	"fmt"
	"time"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ondisk"
)

// Snapshots are those of the volume, the oldest first.
func (e Engine) Snapshots(context.Context, string) (control.Snapshots, error) {
	all := control.Snapshots{Snapshots: []control.Snapshot{}}
	sizes := e.Vol.SnapshotSizes()
	for _, s := range e.Vol.Snapshots() {
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

// Snapshot takes a snapshot.
func (e Engine) Snapshot(_ context.Context, _ string, r control.SnapshotRequest) error {
	if r.Claim != 0 {
		return Classify(e.Vol.SnapshotReceived(r.Snapshot, r.GUID, r.Claim))
	}
	if chunks, free := e.Vol.SnapshotCost(); !r.Force && free < 2*chunks {
		size := e.Vol.ChunkSize()
		return control.Errorf(control.Invalid, "snapshot %s@%s: it takes up to %d chunks, %d bytes, for its map, of %d chunks, %d bytes, that are free: little would be left for what is written then; give the volume space with `gvirstor add`, or force it",
			e.Vol.Name(), ondisk.Printable(r.Snapshot), chunks, chunks*size, free, free*size)
	}
	return Classify(e.Vol.Snapshot(r.Snapshot))
}

// RenameSnapshot gives a snapshot another name.
func (e Engine) RenameSnapshot(_ context.Context, _ string, r control.RenameSnapshotRequest) error {
	return Classify(e.Vol.RenameSnapshot(r.Snapshot, r.To))
}

// Delete deletes a snapshot, or only tells what that would free.
func (e Engine) Delete(_ context.Context, _ string, r control.DeleteRequest) (res control.DeleteResult, err error) {
	if res.Chunks, err = e.Vol.SnapshotAlone(r.Snapshot); err != nil {
		err = fmt.Errorf("delete %w", err)
	} else if !r.DryRun {
		err = e.Vol.DeleteSnapshot(r.Snapshot)
	}
	res.Bytes = res.Chunks * e.Vol.ChunkSize()
	return res, Classify(err)
}

// RollbackChanges tells what a rollback would take back, or why it cannot be done.
func (e Engine) RollbackChanges(r control.RollbackRequest) (control.RollbackResult, error) {
	c, err := e.Vol.MayRollback(r.Snapshot)
	return control.RollbackResult{
		Chunks: c.Chunks, Bytes: c.Chunks * e.Vol.ChunkSize(),
		LostChunks: c.Alone, LostBytes: c.Alone * e.Vol.ChunkSize(), Smaller: c.Grown,
	}, Classify(err)
}
