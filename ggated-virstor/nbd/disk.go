package nbd

import "github.com/gvirstor/gvirstor/geomlib/virstor"

// Disk is what the server publishes. All methods may be called by many
// goroutines at once. virstor.Volume is one, virstor.Head of a further volume of its pool,
// and virstor.View of a snapshot.
type Disk interface {
	// Size is the size in bytes. It may grow while the disk is served; clients
	// that connect later are told of it, and requests of all may use it.
	Size() int64
	// SectorSize is 512 or 4096. Submit takes any byte alignment all the same.
	SectorSize() int
	// ChunkSize is the unit of allocation in bytes: what a discard must cover
	// whole to give space back.
	ChunkSize() int64
	ReadOnly() bool
	// Submit starts a request that lies within [0, Size). It may complete
	// before Submit returns, on the caller's goroutine, or later on another.
	Submit(r *virstor.Request)
	// Push begins what Submit was given with virstor.Gather and has kept.
	Push()
	// Extents calls emit for consecutive runs that together cover
	// [off, off+n), until emit returns false. A run that is not allocated
	// reads as zeros. A write that was acknowledged before the call is seen.
	Extents(off, n int64, emit func(length int64, allocated bool) bool)
	// HeldFull returns nil, or, while the volume is full and holds its limit
	// of write data, a channel that is closed when it holds less again.
	HeldFull() <-chan struct{}
	// EndHeld, RetryHeld, Supersede and Superseded are what virstor.Volume says.
	EndHeld(r *virstor.Request)
	RetryHeld()
	Supersede(r *virstor.Request, off, n int64)
	Superseded(r *virstor.Request, off, n int64) bool
}

// layered is implemented by disks that know which volumes they lie on (geomlib.Layered).
// A client whose own volume is among them must not use the export for that.
type layered interface{ LiesOn() []uint32 }

// historian is implemented by disks that know where they differ from older snapshots.
type historian interface {
	// Older are the names of those snapshots.
	Older() []string
	// ChangesSince compares with one of them.
	ChangesSince(snapshot string) (virstor.Changes, error)
}

// lasting is what a snapshot is told from a later one of its name by: a Disk that is one,
// and Changes since one.
type lasting interface{ GUID() uint64 }

// guidOf is the GUID of a snapshot, 0 of what is none.
func guidOf(of any) uint64 {
	if l, ok := of.(lasting); ok {
		return l.GUID()
	}
	return 0
}

var (
	_ lasting   = (*virstor.View)(nil)
	_ Disk      = (*virstor.Volume)(nil)
	_ Disk      = (*virstor.Head)(nil)
	_ Disk      = (*virstor.View)(nil)
	_ layered   = (*virstor.Volume)(nil)
	_ layered   = (*virstor.Head)(nil)
	_ historian = (*virstor.Head)(nil)
	_ historian = (*virstor.Volume)(nil)
	_ historian = (*virstor.View)(nil)
)
