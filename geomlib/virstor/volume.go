package virstor

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/chunkmap"
	"github.com/gvirstor/gvirstor/ondisk"
)

// Volume is an open virtual disk, and what it lies on. All methods may be called by many
// goroutines at once.
type Volume struct {
	Head // the map that label made

	cfg Config
	log *slog.Logger
	geometry
	space
	queues
	cond condition // what is forbidden for now

	// metaMu serialises what changes metadata and the list of members, and guards meta.
	// Who holds it may pause the committer, and not the other way round.
	metaMu  sync.Mutex
	meta    meta
	pool    pool
	outside outsiders

	lease     atomic.Pointer[Lease] // nil: none. It is set before anything is written
	keepLease atomic.Bool           // when the volume is closed

	life    life
	traffic traffic
	stats   volumeStats

	events sync.Mutex // Config.Events is called by one goroutine at a time
}

// geometry is what the metadata and the map say of the volume as such. Nothing changes it
// while the volume is served.
type geometry struct {
	id         uint32
	name       string
	chunk      int64 // bytes of a chunk
	sector     int64 // bytes of a sector, of all components
	chunkShift uint8 // binary logarithm of chunk, or 0: it is no power of two
	order      ondisk.Order
	garbage    bool // unallocated map entries hold what the kernel class refuses

	// renamed is the index that map entries name as another one until an unfinished
	// removal is finished.
	renamed struct{ from, to int }
}

// space is where the data lies and what room there is. The I/O path takes no lock to look
// at it.
type space struct {
	alloc *alloc.Allocator[*component]
	comps atomic.Pointer[[]*component] // changed under metaMu

	full        atomic.Pointer[fullRule]
	reserve     reserveRule
	inline      atomic.Bool // writes to every component are copies into a cache
	inlineLimit int64       // bytes
	gathers     gathering   // a component does
	zeroesReach int64       // bytes

	// lost is the failure of a flush of a component 0 that has left: what it had
	// accepted may not be what was copied. nil: none.
	lost atomic.Pointer[error]
}

// queues are who works and who waits. Each has a lock of its own.
type queues struct {
	freed     freedChunks
	flushSoon flushSoon
	ahead     *zeroAhead // nil: nothing is zeroed ahead
	job       jobRunner
	moving    *barrier // discards are in it while they lock chunks and wait for the committer
	viewing   *barrier // reads of snapshots are in it

	workers   *workers // requests
	writers   *workers // what the committer and flushes need; they wait for nothing else
	passDowns *workers // one, for freed

	zeros     []byte
	sectors   *sectorPool
	waiters   *sync.Pool // by pointer: the runtime keeps a pool, and what holds it, for two collections
	flushPool *sync.Pool
	copies    *sync.Pool // of *[]byte: buffers for chunks that are copied
}

// meta is what is known of the metadata beside what each component holds of its own.
type meta struct {
	ext extension
	gen generations
	// heir is who becomes component 0, from the moment that its record is the one
	// in force.
	heir    *component
	leavers []Ignored    // what an unfinished removal leaves to be cleared
	left    []*component // whose removal failed half way, for Close
	// unfinished are the ids of those that were to become components in this service,
	// and did not: a label of theirs is this volume's own.
	unfinished []uint64
}

// life is how far the volume is between its opening and its end.
type life struct {
	writable    atomic.Bool
	activating  sync.Mutex // held by Activate, and by Close once it has begun
	untilActive struct {   // until Activate
		mu   sync.Mutex
		reqs []*Request
	}

	leaseEnd chan struct{} // closed to end who watches the lease; nil: nobody does
	risen    atomic.Uint64 // the highest generation that was written or is being

	daily struct { // raises the generation
		sync.Mutex
		timer *time.Timer
	}
}

// volumeStats count what the volume did.
type volumeStats struct {
	errors             atomic.Uint64
	flushes            atomic.Uint64
	commits, committed atomic.Uint64 // group commits, chunks in them
	mapWrites          atomic.Uint64

	commitSizes histogram
}

// ID is the random number that label gave all components.
func (v *Volume) ID() uint32 { return v.id }

// Size is the virtual size in bytes.
func (h *Head) Size() int64 { return h.size.Load() }

// SectorSize is the components' sector size in bytes. Requests need not be
// aligned to it.
func (h *Head) SectorSize() int { return int(h.v.sector) }

// ChunkSize is the unit of allocation in bytes.
func (h *Head) ChunkSize() int64 { return h.v.chunk }

// ReadOnly reports whether the volume was opened without writes.
func (h *Head) ReadOnly() bool { return h.v.cfg.ReadOnly }

// Deferred reports whether the volume waits for Activate.
func (v *Volume) Deferred() bool {
	return !v.cfg.ReadOnly && !v.life.writable.Load() && !v.cond.is(stateStranded)
}

func (v *Volume) components() []*component { return *v.comps.Load() }

func (v *Volume) component(i uint16) *component { return (*v.comps.Load())[i] }

// setComponents publishes the component list.
func (v *Volume) setComponents(comps []*component) {
	inline := true
	for _, c := range comps {
		inline = inline && c.buffered
	}
	v.comps.Store(&comps)
	v.inline.Store(inline)
}

// emit passes an event on.
func (v *Volume) emit(e Event) {
	if e.Kind == EventComponents {
		v.fitReserve()
		v.followLease()
	}
	v.ahead.notice(e)
	v.events.Lock()
	defer v.events.Unlock()
	v.cfg.Events(e)
}

func (h *Head) encodeEntry(b []byte, word chunkmap.Word) {
	if h.isFirst() {
		entryOf(word).Encode(b, h.v.order)
		return
	}
	h.entryOf(word).Encode(b, ondisk.LittleEndian)
}

// entryOf is what the map on disk says of a virtual chunk of this word.
func entryOf(word chunkmap.Word) ondisk.Entry {
	if !word.Allocated() {
		return ondisk.Entry{}
	}
	p := word.Phys()
	return ondisk.Entry{Flags: ondisk.FlagAllocated, Component: p.Comp, Chunk: p.Chunk}
}

// Extents calls emit for the consecutive runs that cover [off, off+n), which
// must lie in the volume, until emit returns false. A run is allocated or reads
// as zeros; neighbouring runs differ.
func (h *Head) Extents(off, n int64, emit func(length int64, allocated bool) bool) {
	h.extents(off, min(off+n, h.Size()), emit)
}

// extents is Extents of [off, end), beyond the size of the volume too.
func (h *Head) extents(off, end int64, emit func(length int64, allocated bool) bool) {
	for off < end {
		vc, limit := uint64(off/h.v.chunk), uint64((end-1)/h.v.chunk)+1
		next := h.chunks.NextAllocated(vc, limit)
		allocated := next == vc
		if allocated {
			for next < limit && h.chunks.Load(next).Allocated() {
				next++
			}
		}
		to := min(end, int64(next)*h.v.chunk)
		if !emit(to-off, allocated) {
			return
		}
		off = to
	}
}

// EachAllocated calls emit for every allocated chunk of the virtual disk, in order, with
// the index of the component that it is on. It takes no lock: a chunk that is allocated,
// moved or freed meanwhile is told as it was at some moment of the call.
func (h *Head) EachAllocated(emit func(chunk uint64, component int)) {
	n := uint64(h.Size() / h.v.chunk)
	for vc := h.chunks.NextAllocated(0, n); vc < n; vc = h.chunks.NextAllocated(vc+1, n) {
		if w := h.chunks.Load(vc); w.Allocated() {
			emit(vc, int(w.Phys().Comp))
		}
	}
}

// keepUntilActive keeps r until Activate, or ends it where there is nothing to wait for.
func (h *Head) keepUntilActive(r *Request) bool {
	if h.v.life.writable.Load() || h.v.cfg.ReadOnly {
		return false
	}
	if h.v.cond.is(stateStranded) {
		return h.v.endStranded(r)
	}
	h.v.life.untilActive.mu.Lock()
	if h.v.life.writable.Load() || h.v.cond.is(stateStranded) {
		h.v.life.untilActive.mu.Unlock()
		h.v.workers.put(r)
		return true
	}
	h.v.life.untilActive.reqs = append(h.v.life.untilActive.reqs, r)
	h.v.life.untilActive.mu.Unlock()
	if !h.v.cond.allows(deedHold) {
		h.v.failUntilActive() // Close may have been here before r was
	}
	return true
}

// Providers returns the components' providers by index.
func (v *Volume) Providers() []geomlib.Provider {
	var ps []geomlib.Provider
	for _, f := range v.alloc.Figures() {
		ps = append(ps, f.Owner.prov())
	}
	return ps
}
