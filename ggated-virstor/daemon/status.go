package daemon

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

// Status implements control.Backend.
func (d *Daemon) Status(context.Context) (control.Status, error) {
	d.mu.Lock()
	st := control.Status{Version: d.opt.Version, Problems: slices.Clone(d.problems)}
	var all []*served
	for _, name := range slices.Sorted(maps.Keys(d.volumes)) {
		all = append(all, d.volumes[name])
	}
	d.mu.Unlock()
	st.Volumes = []control.VolumeStatus{}
	for _, s := range all {
		st.Volumes = append(st.Volumes, s.status())
	}
	return st, nil
}

func (s *served) status() control.VolumeStatus {
	e := s.vol.Status()
	v := control.VolumeStatus{
		Name: e.Name, ID: e.ID,
		VirtualSize: e.Size, ChunkSize: e.ChunkSize, SectorSize: e.SectorSize,
		VirtualChunks: e.VirtualChunks, Allocated: e.Allocated, Free: e.Free,
		Reserved: e.Reserved, Pending: e.Pending,
		Held:     control.Held{Count: e.Held.Count, Bytes: e.Held.Bytes, OldestSeconds: e.Held.Oldest.Seconds()},
		ReadOnly: e.ReadOnly, WhenFull: e.WhenFull.String(), Alloc: e.Alloc.String(), Fenced: e.Fenced,
		Conditions: conditions(e),
	}
	for _, p := range s.pubs {
		v.Published = append(v.Published, p.Describe()...)
	}
	mode := "r1w1e0"
	if e.ReadOnly {
		mode = "r1w0e0"
	}
	for _, c := range e.Components {
		cs := control.ComponentStatus{
			Name: c.Name, Index: c.Index, MediaSize: c.MediaSize, SectorSize: c.SectorSize,
			ChunkCount: int64(c.Usable) + int64(c.Reserved), Reserved: int64(c.Reserved),
			Used: int64(c.Used), Free: int64(c.Free), Mode: mode,
		}
		if c.FlushFailed {
			cs.State = "flush failed"
		}
		v.PhysicalChunks += cs.ChunkCount
		v.Components = append(v.Components, cs)
	}
	v.State = fmt.Sprintf("%d%% physical free", control.PercentFree(v.Free, v.PhysicalChunks))
	return v
}

// conditions are what an administrator should see beside the state.
func conditions(e virstor.Status) []string {
	var c []string
	if e.Degraded {
		c = append(c, "degraded: an allocation map sector cannot be written")
	}
	if e.Held.Count > 0 {
		c = append(c, fmt.Sprintf("full: %d writes held", e.Held.Count))
	} else if e.Free-e.Reserved <= 0 && !e.ReadOnly {
		c = append(c, "full")
	}
	if e.ReadOnly {
		c = append(c, "read-only")
	}
	return c
}
