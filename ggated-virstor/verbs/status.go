package verbs

import (
	"fmt"
	"slices"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ondisk"
)

// Status is what the engine knows of a volume; how it is published, its
// modes and its job are the daemon's to add.
func Status(s virstor.Status) control.VolumeStatus {
	v := control.VolumeStatus{
		Name: s.Name, ID: ondisk.VolumeID(s.ID),
		VirtualSize: s.Size, ChunkSize: s.ChunkSize, SectorSize: s.SectorSize,
		VirtualChunks: s.VirtualChunks, AllocatedChunks: s.Allocated, FreeChunks: s.Free, ReservedChunks: s.Reserved,
		Held:     heldOf(s.Held),
		ReadOnly: s.ReadOnly, WhenFull: s.WhenFull.String(), Alloc: s.Alloc.String(), Fenced: s.Fenced,
		Published: []control.Publication{}, Conditions: []control.Condition{}, Components: []control.ComponentStatus{},
	}
	for _, c := range s.Components {
		v.PhysicalChunks += int64(c.ChunkCount)
		v.Components = append(v.Components, component(c))
	}
	v.Snapshots, v.DamagedSnapshots = s.Snapshots, s.DamagedSnapshots
	for _, i := range s.Volumes {
		v.Volumes = append(v.Volumes, poolVolume(i))
	}
	for _, o := range s.Outsiders {
		v.Outsiders = append(v.Outsiders, outsider(o))
	}
	for _, c := range []struct {
		holds bool
		name  control.Condition
	}{
		{s.Lease != nil && s.Lease.Left == 0, control.Unleased},
		{s.Degraded, control.Degraded},
		{len(s.DamagedSnapshots) > 0, control.SnapshotDamaged},
		{s.Free <= s.Reserved, control.Full},
		{s.Held.Count > 0, control.HeldWrites},
		{s.ReadOnly, control.ReadOnly},
		{s.Closing, control.Stopping},
	} {
		if c.holds {
			v.Conditions = append(v.Conditions, c.name)
		}
	}
	for _, c := range []control.Condition{control.ReadErrors, control.WriteErrors, control.StorageFull, control.Unreached, control.NoWrites} {
		if slices.ContainsFunc(v.Components, func(s control.ComponentStatus) bool { return slices.Contains(s.State, c) }) {
			v.Conditions = append(v.Conditions, c)
		}
	}
	v.Lease = leaseStatus(s.Lease)
	v.State = v.StateText()
	return v
}

// leaseStatus is a lease of the engine's, or nil.
func leaseStatus(l *virstor.LeaseStatus) *control.Lease {
	if l == nil {
		return nil
	}
	return &control.Lease{Host: l.Owner.HostName, Since: l.Owner.Since.UTC(), IntervalSeconds: l.Interval.Seconds(),
		SettleSeconds: l.Settle.Seconds(), LeftSeconds: l.Left.Seconds(), Fencing: l.Fenced}
}

func heldOf(h virstor.HeldStatus) control.Held {
	return control.Held{Count: h.Count, Bytes: h.Bytes, OldestSeconds: int64(h.Oldest / time.Second)}
}

func poolVolume(i virstor.VolumeInfo) control.PoolVolume {
	v := control.PoolVolume{
		Name: i.Name, ID: i.ID, Created: time.Unix(i.Time, 0).UTC(), Size: i.Size, Allocated: i.Allocated, Quota: i.Quota,
		Origin: i.Origin, Held: heldOf(i.Held), Users: i.Users, Degraded: i.Degraded,
	}
	if i.Err != nil {
		v.Problem = i.Err.Error()
	}
	return v
}

func outsider(o virstor.OutsiderError) control.Outsider {
	c := control.Outsider{
		Name: o.Provider, Kind: o.Kind.Error(), Generation: o.Generation, Settled: o.Settled, LastName: o.LastName, Text: o.Error(),
	}
	if !o.Began.IsZero() {
		began := o.Began.UTC()
		c.Began = &began
	}
	return c
}

func component(c virstor.ComponentStatus) control.ComponentStatus {
	s := control.ComponentStatus{
		Name: c.Name, Index: c.Index, MediaSize: c.MediaSize, SectorSize: c.SectorSize,
		ChunkCount: c.ChunkCount, ChunksReserved: c.Reserved, ChunksUsed: c.Reserved + c.Used, ChunksFree: c.Free,
		StorageFreePercent: control.Percent(int64(c.Free), int64(c.ChunkCount)),
		AwaySeconds:        int64(c.Reach.Away / time.Second), Gone: c.Reach.Gone,
	}
	if c.FlushFailed {
		s.State = append(s.State, control.FlushFailed)
	}
	if c.TakesNoWrites {
		s.State = append(s.State, control.NoWrites)
	}
	for _, t := range c.Trouble {
		s.State = append(s.State, conditionOf(t))
	}
	return s
}

// conditionOf is the engine's kind of trouble as a condition.
func conditionOf(t virstor.Trouble) control.Condition {
	switch t {
	case virstor.ReadTrouble:
		return control.ReadErrors
	case virstor.WriteTrouble:
		return control.WriteErrors
	case virstor.Unreached:
		return control.Unreached
	}
	return control.StorageFull
}

// TroubleText names a component's trouble with its remedy.
func TroubleText(component string, t virstor.Trouble) string {
	c := conditionOf(t)
	return fmt.Sprintf("component %s: %s; %s", ondisk.Printable(component), c, c.Remedy())
}
