package virstor

import (
	"sync/atomic"

	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/chunkmap"
	"github.com/gvirstor/gvirstor/ondisk"
)

// Head is a map of the pool that is written to: a virtual disk, of which there is one in
// every Volume, and which shares the components, and the free chunks on them, with all
// others. All methods may be called by many goroutines at once.
type Head struct {
	v *Volume // what it lies on

	mapID  uint64                    // ondisk.PoolMap.ID
	called atomic.Pointer[string]    // what follows the "/"; "" is the first one
	from   atomic.Pointer[string]    // what origin is called in its pool; nil: it is no clone
	origin *snapshot                 // of a clone: what it was at first; otherwise nil
	lies   atomic.Pointer[storedMap] // where its map does; changed under Volume.metaMu, with the committer paused
	damage error                     // why nobody knows what it names; or nil
	users  atomic.Int64              // who has it open, but for the first one's; changed under Volume.metaMu
	made   int64                     // when, seconds since 1970
	unsure bool                      // whether it is rolled back is not known until the pool is opened again; guarded by Volume.metaMu
	gone   atomic.Bool               // it is deleted: whatever is asked of it fails

	size      atomic.Int64 // bytes
	quota     atomic.Int64 // bytes of chunks that it may have; 0: no limit
	chunks    *chunkmap.Map
	allocated atomic.Int64 // chunks
	partial   *partialDiscards
	claim     atomic.Pointer[claim] // nil: nobody has it to himself
	ill       *condition            // degraded, closing, and what these bring; the first one's is the volume's

	committer *committer
	held      heldWrites
	writes    *barrier // what changes data is in it, but for what is held
}

// setUp makes h, which nobody knows yet, a head of v of size bytes and so many chunks, none
// of which is allocated.
func (h *Head) setUp(v *Volume, m ondisk.PoolMap, size int64, chunks uint64) {
	h.v, h.mapID, h.made = v, m.ID, m.Time
	h.called.Store(&m.Name)
	if h.ill = &v.cond; !h.isFirst() {
		h.ill = &condition{broken: v.cond.broken}
	}
	h.size.Store(size)
	h.quota.Store(int64(m.Quota))
	h.chunks = chunkmap.New(chunks)
	h.partial = newPartialDiscards(v.chunk, v.sector)
	if h.held.limit = v.cfg.HeldLimit; !h.isFirst() {
		v.held.mu.Lock()
		h.held.limit = v.held.limit
		v.held.mu.Unlock()
	}
	h.writes = newBarrier()
	h.committer = newCommitter(h)
}

// newHead makes the further volume that m says, with nothing in its map. Nobody else knows
// it yet.
func (v *Volume) newHead(m ondisk.PoolMap) *Head {
	h := &Head{v: v}
	h.size.Store(int64(m.Size))
	h.setUp(v, m, int64(m.Size), h.entries())
	return h
}

// entries is how many virtual chunks the map in memory of a further volume has: sectors of
// the map are written whole.
func (h *Head) entries() uint64 { return h.entriesOf(h.Size()) }

// entriesOf is entries of a volume of size bytes.
func (h *Head) entriesOf(size int64) uint64 {
	per := uint64(h.v.sector / ondisk.EntrySize)
	n := uint64(size+h.v.chunk-1) / uint64(h.v.chunk)
	return (n + per - 1) / per * per
}

// stored is where the map lies; of the first one nothing. It does not change: when the map is
// moved there is another.
func (h *Head) stored() *storedMap {
	if m := h.lies.Load(); m != nil {
		return m
	}
	return new(storedMap)
}

// isFirst reports whether h is the volume that label made, whose map is at the start of
// component 0.
func (h *Head) isFirst() bool { return h.mapID == ondisk.FirstMap }

// Name is the volume's name, as label gave it, and behind a slash its own if it is another
// one of that pool.
func (h *Head) Name() string {
	if own := h.ownName(); own != "" {
		return h.v.name + "/" + own
	}
	return h.v.name
}

// ownName is what follows the slash; of the first one nothing.
func (h *Head) ownName() string {
	if own := h.called.Load(); own != nil {
		return *own
	}
	return ""
}

// refusal is condition.refusal of what is to be done to this map: what another one's
// sectors hold is nothing to it. A frozen one has itself alone, or all of the pool are.
func (h *Head) refusal(d deed) error {
	const own = deed(stateDegraded | stateKeeping)
	if h.isFirst() {
		return h.v.cond.refusal(d)
	}
	of := d &^ own
	if d&own != 0 {
		of |= deed(stateFrozen)
	}
	if err := h.v.cond.refusal(of); err != nil {
		return err
	}
	return h.ill.refusal(d & (own | deed(stateFrozen)))
}

// mapBytes is how long the map is on disk, in whole sectors.
func (h *Head) mapBytes() int64 {
	if h.isFirst() {
		return h.v.component(0).meta().MapBytes()
	}
	size, _ := ondisk.MapLength(uint64(h.Size()), uint32(h.v.chunk))
	return (int64(size) + h.v.sector - 1) / h.v.sector * h.v.sector
}

// home is where a sector of the map lies.
func (h *Head) home(sector int64) (c *component, off int64) {
	at := sector * h.v.sector
	if h.isFirst() {
		return h.v.component(0), at
	}
	p := h.stored().parts[at/h.v.chunk].at
	c = h.v.component(p.Comp)
	return c, c.offset(p.Chunk) + at%h.v.chunk
}

// homeOf is on which component the map entry of vc lies.
func (h *Head) homeOf(vc uint64) *component {
	c, _ := h.home(int64(vc) * ondisk.EntrySize / h.v.sector)
	return c
}

// together reports whether two sectors of the map lie in one run.
func (h *Head) together(one, other uint64) bool {
	per := uint64(h.v.chunk / h.v.sector)
	return h.isFirst() || one/per == other/per
}

// homes are the components on which the map lies, each once.
func (h *Head) homes() []*component {
	if h.isFirst() {
		return []*component{h.v.component(0)}
	}
	var comps []*component
	seen := make(map[uint16]bool)
	for _, p := range h.stored().parts {
		if !seen[p.at.Comp] {
			seen[p.at.Comp] = true
			comps = append(comps, h.v.component(p.at.Comp))
		}
	}
	return comps
}

// liesOn reports whether any of the map lies on c.
func (h *Head) liesOn(c *component) bool {
	for _, p := range h.stored().parts {
		if h.v.component(p.at.Comp) == c {
			return true
		}
	}
	return h.isFirst() && h.v.component(0) == c
}

// isDurable reports whether every sector of the map that was written is durable.
func (h *Head) isDurable() bool {
	if h.isFirst() {
		return h.v.ledger().isDurable()
	}
	for _, p := range h.stored().parts {
		if !h.v.component(p.at.Comp).ledger.Load().isDurable() {
			return false
		}
	}
	return true
}

// entryOf is what the map on disk says of a virtual chunk of this word. It is not the first
// volume's, whose map has the indexes of components.
func (h *Head) entryOf(word chunkmap.Word) ondisk.Entry {
	e := entryOf(word)
	if e.Allocated() {
		e.Component = (*h.v.pool.numbers.Load())[e.Component]
	}
	return e
}

// heads are all maps that are written to, the first one first.
func (v *Volume) heads() []*Head {
	if hs := v.pool.heads.Load(); hs != nil {
		return *hs
	}
	return []*Head{&v.Head}
}

// further are the heads but for the first one.
func (v *Volume) further() []*Head {
	if hs := v.pool.heads.Load(); hs != nil {
		return (*hs)[1:]
	}
	return nil
}

// setFurther makes hs the heads beside the first one. v.metaMu is held, or nobody else
// knows the volume yet.
func (v *Volume) setFurther(hs []*Head) {
	if len(hs) == 0 {
		v.pool.heads.Store(nil)
		return
	}
	all := append([]*Head{&v.Head}, hs...)
	v.pool.heads.Store(&all)
	for _, c := range v.components() {
		c.ledger.CompareAndSwap(nil, &mapLedger{v: v})
	}
}

// count is how many virtual chunks the volume has.
func (h *Head) count() uint64 { return uint64((h.Size() + h.v.chunk - 1) / h.v.chunk) }

// pauseAll pauses the committers of all volumes. v.metaMu is held.
func (v *Volume) pauseAll() {
	for _, h := range v.heads() {
		h.committer.pause()
	}
}

// unpauseAll ends pauseAll.
func (v *Volume) unpauseAll() {
	for _, h := range v.heads() {
		h.committer.unpause()
	}
}

// publishAssigned returns when what was assigned before is published.
func (v *Volume) publishAssigned() {
	for _, h := range v.heads() {
		h.committer.pause()
		h.committer.unpause()
	}
}

// kick lets the held writes of all volumes be tried again.
func (v *Volume) kick() {
	if hs := v.pool.heads.Load(); hs != nil {
		for _, h := range *hs {
			h.committer.kick()
		}
		return
	}
	v.committer.kick()
}

// noneHeld reports whether no volume holds a write.
func (v *Volume) noneHeld() bool {
	for _, h := range v.heads() {
		if !h.held.empty() {
			return false
		}
	}
	return true
}

// heldStatus tells of the held writes of all volumes.
func (v *Volume) heldStatus() HeldStatus {
	s := v.held.status()
	for _, h := range v.further() {
		o := h.held.status()
		s.Count, s.Bytes, s.Oldest = s.Count+o.Count, s.Bytes+o.Bytes, max(s.Oldest, o.Oldest)
	}
	return s
}

// snapshots are those of h, the oldest first. v.metaMu is held.
func (h *Head) snapshots() (own []*snapshot) {
	for _, s := range h.v.pool.snaps {
		if s.of == h {
			own = append(own, s)
		}
	}
	return own
}

// title is what a snapshot is called in its pool: of a further volume with a slash and that
// one's name before the "@".
func (s *snapshot) title() string {
	if own := s.of.ownName(); own != "" {
		return "/" + own + "@" + s.Name
	}
	return s.Name
}

// eachWord gives what is allocated of the map, until each returns false.
func (h *Head) eachWord(each func(vc uint64, p alloc.Phys) bool) {
	n := h.count()
	for vc := h.chunks.NextAllocated(0, n); vc < n; vc = h.chunks.NextAllocated(vc+1, n) {
		if w := h.chunks.Load(vc); w.Allocated() && !each(vc, w.Phys()) {
			return
		}
	}
}
