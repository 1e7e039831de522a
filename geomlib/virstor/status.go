package virstor

import (
	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
	"github.com/gvirstor/gvirstor/ondisk"
)

// Status is a volume at one moment. Sizes are bytes, counts are chunks.
type Status struct {
	Name           string
	ID             uint32
	Size           int64
	ChunkSize      int64
	SectorSize     int
	VirtualChunks  int64
	PhysicalChunks int64 // that data may use
	Allocated      int64
	Free           int64
	Reserved       int64 // kept free from ordinary writes
	Pending        int   // freed, not yet usable
	ReadOnly       bool
	Fenced         bool
	Degraded       bool
	Closing        bool
	WhenFull       FullPolicy
	Alloc          AllocOrder
	Held           HeldStatus
	Components     []ComponentStatus
	Lease          *LeaseStatus    // nil: it has none
	Outsiders      []OutsiderError // providers that name the volume and take no part in it
	Snapshots      int
	SnapshotChunks int64        // that snapshots and further volumes hold and the volume does not: data, maps, directory and its reserve
	Volumes        []VolumeInfo // of the pool beside this one
	// DamagedSnapshots are the names of those whose maps cannot be read: until they are
	// deleted no chunk is given out and none is overwritten.
	DamagedSnapshots []string
	Stats            Stats
}

// ComponentStatus is one component of a Status.
type ComponentStatus struct {
	Name        string
	Index       int
	MediaSize   int64
	SectorSize  int
	ChunkCount  uint32 // as in the metadata, reserved ones included
	Usable      uint32 // chunks that data may use
	Reserved    uint32
	Used        uint32
	Free        uint32
	FlushFailed bool
	// TakesNoWrites: its metadata could not be written; it is read, and gets no new chunk.
	TakesNoWrites bool
	Trouble       []Trouble // that lasts; a kind of failure is over some minutes after the last one
	Reach         geomlib.Reach
	Remote        bool // Reach may be away
	Stats         ComponentStats
}

// ComponentStats count since the volume was opened.
type ComponentStats struct {
	ReadErrors, WriteErrors, Flushes, ZeroedBytes uint64
}

// Stats count since the volume was opened.
type Stats struct {
	Errors, Flushes, Commits, CommittedChunks, MapWrites uint64
}

// Status tells the state of the volume. What it says of the components is of one
// instant; the other figures are read one after the other.
func (v *Volume) Status() Status {
	s := Status{
		Name: v.name, ID: v.id, Size: v.Size(), ChunkSize: v.chunk, SectorSize: int(v.sector),
		VirtualChunks: v.Size() / v.chunk,
		Allocated:     v.allocated.Load(),
		Pending:       v.freed.pending(),
		Reserved:      v.alloc.Reserve(),
		ReadOnly:      v.cfg.ReadOnly,
		Fenced:        v.life.writable.Load() || v.cond.is(stateStranded),
		Degraded:      v.cond.is(stateDegraded),
		Closing:       v.cond.is(stateClosing),
		WhenFull:      v.full.Load().policy, Alloc: v.cfg.Alloc,
		Held: v.heldStatus(), Outsiders: v.Outsiders(), Volumes: v.Volumes(),
		Stats: Stats{
			Errors: v.stats.errors.Load(), Flushes: v.stats.flushes.Load(),
			Commits: v.stats.commits.Load(), CommittedChunks: v.stats.committed.Load(),
			MapWrites: v.stats.mapWrites.Load(),
		},
	}
	if l, ok := v.Lease(); ok {
		s.Lease = &l
	}
	if n := v.pool.names.Load(); n != nil {
		s.Snapshots, s.DamagedSnapshots = len(n.all), n.damaged
	}
	for i, f := range v.alloc.Figures() {
		s.PhysicalChunks += int64(f.Total)
		s.Free += int64(f.Free)
		s.Components = append(s.Components, componentStatus(f, i))
	}
	if v.pool.others.Load() {
		s.SnapshotChunks = max(0, s.PhysicalChunks-s.Free-s.Allocated-int64(s.Pending))
	}
	return s
}

// componentStatus is a figure of the allocator in a Status.
func componentStatus(f alloc.Figure[*component], index int) ComponentStatus {
	c := f.Owner
	s := ComponentStatus{
		Name: c.name(), Index: index, MediaSize: c.prov().MediaSize(), SectorSize: int(c.sector),
		ChunkCount: c.meta().ChunkCount, Usable: f.Total, Reserved: c.first(), Used: f.Total - f.Free, Free: f.Free,
		FlushFailed: c.failedFlush() != nil, TakesNoWrites: c.refused.Load(), Trouble: c.troubled.list(),
		Stats: ComponentStats{
			ReadErrors: c.stats.readErrors.Load(), WriteErrors: c.stats.writeErrors.Load(),
			Flushes: c.stats.flushes.Load(), ZeroedBytes: c.stats.zeroed.Load(),
		},
	}
	if r, ok := c.prov().(geomlib.Remote); ok {
		s.Remote, s.Reach = true, r.Reach()
	}
	if s.Reach.Away > 0 {
		s.Trouble = append(s.Trouble, Unreached)
	}
	return s
}

// Metadata returns the metadata of each component as it is on disk now.
func (v *Volume) Metadata() []ondisk.Metadata {
	v.metaMu.Lock()
	defer v.metaMu.Unlock()
	var ms []ondisk.Metadata
	for _, c := range v.components() {
		ms = append(ms, c.meta())
	}
	return ms
}
