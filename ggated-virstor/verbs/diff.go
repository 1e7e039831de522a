package verbs

import (
	"context"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

const (
	// maxRanges and maxWalk bound one answer of Diff: ranges, and chunks that are looked at.
	maxRanges = 4096
	maxWalk   = 1 << 20
)

// disk is a volume or a snapshot as it is compared and read.
type disk interface {
	Size() int64
	Submit(r *virstor.Request)
	EndHeld(r *virstor.Request)
	Extents(off, n int64, emit func(length int64, allocated bool) bool)
	ChangesSince(snapshot string) (virstor.Changes, error)
}

// snapshotOf opens a snapshot, which stays until it is let go; no name: the volume as it is.
func snapshotOf(h *virstor.Head, name string) (d disk, info virstor.SnapshotInfo, letGo func(), err error) {
	if name == "" {
		return h, info, func() {}, nil
	}
	view, err := h.OpenSnapshot(name)
	if err != nil {
		return nil, info, nil, err
	}
	return view, infoOf(h, name), view.Close, nil
}

// infoOf is what is known of a snapshot that is held.
func infoOf(h *virstor.Head, name string) (info virstor.SnapshotInfo) {
	for _, s := range h.Snapshots() {
		if s.Name == name {
			info = s
		}
	}
	return info
}

// Diff tells where a volume or a snapshot differs from an older snapshot.
func (e Engine) Diff(_ context.Context, name string, r control.DiffRequest) (control.Diff, error) {
	h, err := e.head(name)
	if err != nil {
		return control.Diff{}, err
	}
	defer h.Release()
	to, info, letGo, err := snapshotOf(h, r.To)
	if err != nil {
		return control.Diff{}, Classify(err)
	}
	defer letGo()
	w := diffWalk{to: to, Diff: control.Diff{ToID: info.ID, Size: to.Size(), Ranges: []control.DiffRange{}, Next: r.Offset}}
	n := min(max(0, w.Size-r.Offset), maxWalk*e.Vol.ChunkSize())
	if r.From == "" {
		w.changed(n, true)
		return w.Diff, nil
	}
	changes, err := to.ChangesSince(r.From)
	if err != nil {
		return control.Diff{}, Classify(err)
	}
	defer changes.Close()
	w.holes, w.FromID = true, infoOf(h, r.From).ID
	changes.Ranges(r.Offset, n, w.changed)
	return w.Diff, nil
}

// diffWalk puts a Diff together; Next is where the next run starts.
type diffWalk struct {
	control.Diff
	to    disk
	holes bool // are told, too
}

// changed takes a run that has changed or not. It reports false when there is room for no
// more ranges.
func (w *diffWalk) changed(length int64, is bool) bool {
	end := w.Next + length
	if !is {
		w.Next = end
		return true
	}
	w.to.Extents(w.Next, length, func(n int64, allocated bool) bool {
		n = min(n, end-w.Next)
		if (allocated || w.holes) && !w.add(control.DiffRange{Offset: w.Next, Length: n, Hole: !allocated}) {
			return false
		}
		w.Next += n
		return true
	})
	return w.Next == end
}

// add appends a range, or makes the last one longer.
func (w *diffWalk) add(r control.DiffRange) bool {
	if i := len(w.Ranges) - 1; i >= 0 && w.Ranges[i].Hole == r.Hole && w.Ranges[i].Offset+w.Ranges[i].Length == r.Offset {
		w.Ranges[i].Length += r.Length
		return true
	}
	if len(w.Ranges) == maxRanges {
		return false
	}
	w.Ranges = append(w.Ranges, r)
	return true
}
