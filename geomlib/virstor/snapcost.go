package virstor

import (
	"fmt"

	"github.com/gvirstor/gvirstor/ondisk"
)

// SnapshotCost is how many chunks a snapshot taken now would take at most, for its map, the
// first one also for the directory and its reserve, and how many are free for that.
func (h *Head) SnapshotCost() (chunks, free int64) { return h.v.costOf([]*Head{h}) }

// SnapshotAllCost is SnapshotCost of snapshots of all volumes of the pool.
func (v *Volume) SnapshotAllCost() (chunks, free int64) { return v.costOf(v.heads()) }

// MaySnapshot is what speaks against a snapshot of that name, as Snapshot does but for what is
// at work when it is taken, and for the want of space. A volume that is open for reading alone
// can be asked.
func (h *Head) MaySnapshot(name string) error { return h.v.maySnapshot([]*Head{h}, name) }

// MaySnapshotAll is MaySnapshot of SnapshotAll.
func (v *Volume) MaySnapshotAll(name string) error { return v.maySnapshot(v.heads(), name) }

func (v *Volume) maySnapshot(heads []*Head, name string) error {
	v.job.starting.Lock()
	defer v.job.starting.Unlock()
	v.metaMu.Lock()
	defer v.metaMu.Unlock()
	for _, h := range heads {
		err := ondisk.CheckMapName(name)
		if _, there := h.snapshotLocked(name); err == nil && there == nil {
			err = ErrSnapshotExists
		}
		if err == nil && !v.cfg.ReadOnly {
			err = h.maySnapshotLocked(name)
		}
		if err != nil {
			return fmt.Errorf("snapshot %s@%s: %w", h.Name(), ondisk.Printable(name), err)
		}
	}
	return nil
}

func (v *Volume) costOf(heads []*Head) (chunks, free int64) {
	v.metaMu.Lock()
	defer v.metaMu.Unlock()
	perPart := uint64(v.chunk / ondisk.EntrySize)
	for _, h := range heads {
		n := uint64(h.Size() / v.chunk)
		for vc := h.chunks.NextAllocated(0, n); vc < n; vc = h.chunks.NextAllocated((vc/perPart+1)*perPart, n) {
			chunks++
		}
		chunks++ // the list
	}
	if v.pool.dir == nil {
		_, most := ondisk.MapLength(uint64(v.Size()), uint32(v.chunk))
		chunks += int64(2 + reserveChunks + most)
	}
	return chunks, v.alloc.Available()
}
