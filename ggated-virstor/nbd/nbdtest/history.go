package nbdtest

import (
	"slices"
	"sync/atomic"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
)

// History is a Disk that knows of snapshots what has changed since.
type History struct {
	*Disk
	// Changed says for each snapshot, by name, whether a chunk has changed since.
	Changed map[string]func(chunk int64) bool
	// Held is how many comparisons are open.
	Held atomic.Int64
}

// Older are the names of the snapshots, in order.
func (h *History) Older() []string {
	var names []string
	for name := range h.Changed {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// ChangesSince compares with a snapshot.
func (h *History) ChangesSince(snapshot string) (virstor.Changes, error) {
	changed := h.Changed[snapshot]
	if changed == nil {
		return nil, virstor.ErrNoSnapshot
	}
	h.Held.Add(1)
	return &changes{h, changed}, nil
}

// changes is virstor.Changes.
type changes struct {
	*History
	changed func(chunk int64) bool
}

func (c *changes) Ranges(off, n int64, emit func(length int64, changed bool) bool) {
	for end := min(off+n, c.Size()); off < end; {
		chunk := off / c.ChunkSize()
		to := min(end, (chunk+1)*c.ChunkSize())
		if !emit(to-off, c.changed(chunk)) {
			return
		}
		off = to
	}
}

func (c *changes) Close() { c.Held.Add(-1) }
