package virstor

import (
	"sync/atomic"

	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/chunkmap"
)

// Head is a map of the pool that is written to: a virtual disk, of which there is one in
// every Volume, and which shares the components, and the free chunks on them, with all
// others. All methods may be called by many goroutines at once.
type Head struct {
	v *Volume // what it lies on

	size      atomic.Int64 // bytes
	chunks    *chunkmap.Map
	allocated atomic.Int64 // chunks
	partial   *partialDiscards
	claim     atomic.Pointer[claim] // nil: nobody has it to himself

	committer *committer
	held      heldWrites
	writes    *barrier // what changes data is in it, but for what is held
}

// setUp makes h, which nobody knows yet, a head of v of size bytes and so many chunks, none
// of which is allocated.
func (h *Head) setUp(v *Volume, size int64, chunks uint64) {
	h.v = v
	h.size.Store(size)
	h.chunks = chunkmap.New(chunks)
	h.partial = newPartialDiscards(v.chunk, v.sector)
	h.held.limit = v.cfg.HeldLimit
	h.writes = newBarrier()
	h.committer = newCommitter(h)
}
