package control

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ondisk"
)

// FromEngine is what the engine knows of a volume; how it is published, its
// modes and its job are the daemon's to add.
func FromEngine(s virstor.Status) VolumeStatus {
	v := VolumeStatus{
		Name: s.Name, ID: s.ID,
		VirtualSize: s.Size, ChunkSize: s.ChunkSize, SectorSize: s.SectorSize,
		VirtualChunks: s.VirtualChunks, AllocatedChunks: s.Allocated, FreeChunks: s.Free, ReservedChunks: s.Reserved,
		Held:     Held{Count: s.Held.Count, Bytes: s.Held.Bytes, OldestSeconds: int64(s.Held.Oldest / time.Second)},
		ReadOnly: s.ReadOnly, WhenFull: s.WhenFull.String(), Alloc: s.Alloc.String(), Fenced: s.Fenced,
		Published: []Publication{}, Conditions: []Condition{}, Components: []ComponentStatus{},
	}
	for _, c := range s.Components {
		v.PhysicalChunks += int64(c.ChunkCount)
		v.Components = append(v.Components, componentFromEngine(c))
	}
	for _, o := range s.Outsiders {
		v.Outsiders = append(v.Outsiders, outsiderFromEngine(o))
	}
	for _, c := range []struct {
		holds bool
		name  Condition
	}{
		{s.Degraded, Degraded},
		{s.Free <= s.Reserved, Full},
		{s.Held.Count > 0, HeldWrites},
		{s.ReadOnly, ReadOnly},
		{s.Closing, Stopping},
	} {
		if c.holds {
			v.Conditions = append(v.Conditions, c.name)
		}
	}
	for _, c := range []Condition{ReadErrors, WriteErrors, StorageFull, NoWrites} {
		if slices.ContainsFunc(v.Components, func(s ComponentStatus) bool { return slices.Contains(s.State, c) }) {
			v.Conditions = append(v.Conditions, c)
		}
	}
	v.State = v.StateText()
	return v
}

func outsiderFromEngine(o virstor.OutsiderError) Outsider {
	c := Outsider{
		Name: o.Provider, Kind: o.Kind.Error(), Generation: o.Generation, Settled: o.Settled, LastName: o.LastName, Text: o.Error(),
	}
	if !o.Began.IsZero() {
		began := o.Began.UTC()
		c.Began = &began
	}
	return c
}

func componentFromEngine(c virstor.ComponentStatus) ComponentStatus {
	s := ComponentStatus{
		Name: c.Name, Index: c.Index, MediaSize: c.MediaSize, SectorSize: c.SectorSize,
		ChunkCount: c.ChunkCount, ChunksReserved: c.Reserved, ChunksUsed: c.Reserved + c.Used, ChunksFree: c.Free,
		StorageFreePercent: Percent(int64(c.Free), int64(c.ChunkCount)),
	}
	if c.FlushFailed {
		s.State = append(s.State, FlushFailed)
	}
	if c.TakesNoWrites {
		s.State = append(s.State, NoWrites)
	}
	for _, t := range c.Trouble {
		s.State = append(s.State, troubleConditions[t])
	}
	return s
}

// troubleConditions are the engine's kinds of trouble as conditions.
var troubleConditions = map[virstor.Trouble]Condition{
	virstor.ReadTrouble: ReadErrors, virstor.WriteTrouble: WriteErrors, virstor.StorageFull: StorageFull,
}

// TroubleText names a component's trouble with its remedy.
func TroubleText(component string, t virstor.Trouble) string {
	c := troubleConditions[t]
	return fmt.Sprintf("component %s: %s; %s", ondisk.Printable(component), c, c.Remedy())
}

// ErrJobKind: there is no job of that name.
var ErrJobKind = errors.New("unknown job")

// StartEngineJob starts a job on v. Components have the names that v knows them
// by, the target of a replace included.
func StartEngineJob(v *virstor.Volume, kind string, a JobArgs) error {
	o := virstor.JobOptions{Rate: a.Rate, DryRun: a.DryRun}
	switch kind {
	case "evacuate":
		return v.Evacuate(a.Providers, "", o)
	case "replace":
		if err := mayReceive(v, a.Target); err != nil {
			return err
		}
		return v.Evacuate(a.Providers, a.Target, o)
	case "pack":
		return v.Pack(o)
	case "rebalance":
		return v.Rebalance(o)
	case "reclaim":
		return v.Reclaim(o)
	case "resize":
		return v.Resize(a.Size, a.Force, o)
	}
	return fmt.Errorf("%w %q", ErrJobKind, kind)
}

// mayReceive refuses a component as the target of a replace that holds data of its
// own: whoever names one means another disk, and the volume would have less room
// afterwards than before. One that a replacement had begun to fill may go on.
func mayReceive(v *virstor.Volume, target string) error {
	for _, c := range v.Status().Components {
		if c.Name == target && c.Used > 0 && !v.WasReplacing(target) {
			return fmt.Errorf("replace on %s: %w: %s is in the volume already, and holds data; `gvirstor evacuate` moves a component's data to all others",
				v.Name(), virstor.ErrInUse, target)
		}
	}
	return nil
}

// JobFromEngine is a job of the named volume as the engine tells of it.
func JobFromEngine(volume string, j virstor.JobStatus) JobStatus {
	c := JobStatus{
		ID: volume, Volume: volume, Kind: j.Kind, State: JobState(j.State.String()),
		Done: j.Done, Total: j.Total, Chunks: j.Moved, Result: j.Result, Started: time.Now().Add(-j.Elapsed),
	}
	if sec := j.Elapsed.Seconds(); sec > 0 {
		c.Rate = int64(float64(j.Done) / sec)
	}
	if j.Err != nil && j.State == virstor.JobFailed {
		c.Error = j.Err.Error()
	}
	return c
}
