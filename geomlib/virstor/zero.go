package virstor

import (
	"fmt"
	"slices"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ondisk"
)

// handZeroOn makes component t number 0, so that the one that is leaves like any
// other: the two change places. Its chunks are gone already. What of t's has to
// make way goes to component to, or to any when to is nil.
//
// t frees its first chunks for the map and gets a copy of it and an
// extension record that is later than the old one's. Its metadata
// sector commits; the intent in that record says what is left to do.
func (v *Volume) handZeroOn(j *jobHandle, t, to *component) error {
	reserved := uint32(v.component(0).meta().ChunkReserved)
	if err := v.vacate(j, t, reserved, to); err != nil {
		v.alloc.releaseKept(t.no())
		return err
	}
	v.metaMu.Lock()
	defer v.metaMu.Unlock()
	// A discard that has locked a chunk and waits for the committer would keep
	// the chunk from being renamed.
	v.moving.close()
	defer v.moving.open(v.resume)
	v.committer.pause()
	defer v.committer.unpause()
	if err := v.settledLocked(); err != nil {
		return fmt.Errorf("replace component 0 of %s: %w", v.name, err)
	}
	old := v.component(0)
	om, err := v.storeSuccessor(t)
	if err != nil {
		if v.committer.frozen == nil {
			v.alloc.releaseKept(t.no())
		}
		return err
	}
	v.swapZero(t, reserved)
	old.setMeta(om)
	if err := geomlib.StoreMetadata(old.accounted(), om); err != nil {
		// The intent stays: without it the next start would take the former
		// component 0 for a copy, and miss a component.
		return fmt.Errorf("%s is no more component 0 of %s, which the next start notes on it: %w", old.name(), v.name, err)
	}
	return v.writeExtensionLocked(func(e *ondisk.Extension) { e.Intent = ondisk.Intent{} })
}

// successor picks the component that will hold the map.
func (v *Volume) successor(leaving []*component, to *component) (*component, error) {
	reserved := v.component(0).first()
	for _, c := range v.components() {
		if slices.Contains(leaving, c) || to != nil && c != to {
			continue
		}
		if c.usable() > reserved {
			return c, nil
		}
	}
	return nil, fmt.Errorf("no component of %s is large enough for the allocation map (%d chunks): %w", v.name, reserved, ErrTooSmall)
}

// vacate frees the chunks of t below n, for component to or for any, and keeps
// them.
func (v *Volume) vacate(j *jobHandle, t *component, n uint32, to *component) error {
	buf := make([]byte, min(moveBuffer, v.chunk))
	for {
		if v.alloc.claimBelow(t.no(), n) == 0 {
			return nil
		}
		if err := j.ctx.Err(); err != nil {
			return err
		}
		places := v.chunksWhere(func(p phys) bool { return p.comp == t.no() && p.chunk < n })
		j.more(int64(len(places)) * v.chunk)
		for i, pl := range places {
			target, ok, err := v.takeFor(to)
			if err != nil {
				return err
			}
			if !ok {
				left := int64(len(places) - i)
				return v.short(j.kind(), left, left)
			}
			if _, err := v.moveChunk(pl.vc, pl.at, target, buf); err != nil {
				return err
			}
			if err := j.step(v.chunk, 1); err != nil {
				return err
			}
		}
		v.committer.pause()
		v.committer.unpause()
		if err := v.settleFreed(); err != nil {
			return err
		}
	}
}

// storeSuccessor writes the map, the extension record and at last the metadata
// that make t component 0, and returns what the old one's metadata is to be.
// v.metaMu is held and the committer is paused.
func (v *Volume) storeSuccessor(t *component) (former ondisk.Metadata, err error) {
	om := v.component(0).meta()
	if err := v.settleFreed(); err != nil {
		return om, err
	}
	if v.isDegraded.Load() {
		return om, fmt.Errorf("replace component 0 of %s: %w", v.name, ErrDegraded)
	}
	if err := v.copyMap(t); err != nil {
		return om, err
	}
	m := t.meta()
	index := m.No
	m.No, m.ChunkReserved, m.ChunkNext, m.Flags = 0, om.ChunkReserved, max(m.ChunkNext, uint32(om.ChunkReserved)), m.Flags|ondisk.FlagAllocated
	e := extension{rec: v.ext.rec}
	e.offset, e.room = ondisk.ExtensionOffset(m)
	if !e.room {
		return om, fmt.Errorf("%s as component 0 of %s: %w", t.name(), v.name, ErrNoExtension)
	}
	e.rec.Sequence++
	e.rec.Intent = ondisk.Intent{Kind: ondisk.IntentReplaceZero, Arg: [8]uint64{uint64(index)}}
	e.rec.Task = swapTask(e.rec.Task, uint32(index))
	blank := make([]byte, max(v.sector, ondisk.ExtensionRecordSize))
	other := e.offset + int64(1-e.rec.Slot())*ondisk.ExtensionSlotSize
	if err := storeRaw(t.accounted(), blank, other); err != nil {
		return om, err
	}
	if err := storeExtension(t.accounted(), e.offset, e.rec); err != nil {
		return om, err
	}
	if err := geomlib.StoreMetadata(t.accounted(), m); err != nil {
		// Whether it is component 0 now is not known: nothing may be
		// written to either map.
		return om, v.doubtLocked(fmt.Errorf("component 0 of %s may have been replaced; restart to find out: %w", v.name, err))
	}
	e.valid = true
	v.ext = e
	t.setMeta(m)
	return asEmpty(om, index), nil
}

// asEmpty is the metadata of a former component 0 as component index.
func asEmpty(m ondisk.Metadata, index uint16) ondisk.Metadata {
	m.No, m.ChunkReserved, m.ChunkNext, m.Flags = index, 0, 0, 0
	return m
}

// swapTask exchanges component 0 and component index in a task.
func swapTask(t ondisk.Task, index uint32) ondisk.Task {
	for i, c := range t.Components[:t.ComponentCount] {
		switch c {
		case 0:
			t.Components[i] = index
		case index:
			t.Components[i] = 0
		}
	}
	if t.Kind == ondisk.TaskReplace && t.Arg[1] == uint64(index) {
		t.Arg[1] = 0
	}
	return t
}

// copyMap writes the map to t as it will be when t is component 0.
func (v *Volume) copyMap(t *component) error {
	index := t.no()
	total := v.component(0).meta().MapBytes()
	if err := t.clear(0, total, v.zeros); err != nil {
		return err
	}
	per := uint64(v.sector / ondisk.EntrySize)
	n := uint64(v.Size() / v.chunk)
	buf := make([]byte, v.sector)
	for vc := v.chunks.nextAllocated(0, n); vc < n; vc = v.chunks.nextAllocated(vc, n) {
		first := vc / per * per
		for i := range per {
			w := v.chunks.load(first + i)
			if p := physOf(w); w&wordAlloc != 0 && p.comp == index {
				w = wordOf(phys{0, p.chunk})
			}
			v.encodeEntry(buf[i*ondisk.EntrySize:], w)
		}
		if err := t.writeRaw(buf, int64(first)*ondisk.EntrySize); err != nil {
			return err
		}
		vc = first + per
	}
	return t.flush()
}

// swapZero makes memory agree with what storeSuccessor wrote. v.metaMu is held
// and the committer is paused.
func (v *Volume) swapZero(t *component, reserved uint32) {
	index := t.no()
	comps := v.components()
	old := comps[0]
	both := slices.Clone(comps)
	both[0] = t
	t.zero.Store(true)
	v.setComponents(both)
	for _, pl := range v.chunksWhere(func(p phys) bool { return p.comp == index }) {
		if ph, ok := v.chunks.lock(pl.vc); ok {
			v.chunks.unlock(pl.vc, wordOf(phys{0, ph.chunk}), v.resume)
		}
	}
	old.zero.Store(false)
	after := slices.Clone(both)
	after[index] = old
	t.setNo(0)
	old.setNo(index)
	v.alloc.swapZero(index, reserved, newChunkPool(0, old.usable()))
	v.setComponents(after)
	v.mapDurable.Store(v.mapWritten.Load())
}

// finishReplaceZeroLocked gives the former component 0 the metadata of an empty
// component; v.metaMu is held.
func (v *Volume) finishReplaceZeroLocked() error {
	index := uint16(v.ext.rec.Intent.Arg[0])
	if int(index) >= len(v.components()) {
		return fmt.Errorf("%w: intent names component %d of %d", ErrDamaged, index, len(v.components()))
	}
	c := v.component(index)
	return geomlib.StoreMetadata(c.accounted(), c.meta())
}

// claimBelow claims the free chunks of comp below n and returns how many below
// n are in use otherwise.
func (a *allocator) claimBelow(comp uint16, n uint32) (used int) {
	a.lockSettled()
	defer a.mu.Unlock()
	p := a.pools[comp]
	if p.kept == nil {
		p.kept = make(map[uint32]bool)
	}
	for c := p.first; c < n; c++ {
		if p.kept[c] {
			continue
		}
		if p.claim(c) {
			p.kept[c] = true
			if !p.closed {
				a.free--
			}
			continue
		}
		used++
	}
	return used
}

// releaseKept undoes claimBelow.
func (a *allocator) releaseKept(comp uint16) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.pools[comp]
	for c := range p.kept {
		p.release(c)
		if !p.closed {
			a.free++
		}
	}
	p.kept = nil
}

// swapZero gives index 0 the pool of comp without the chunks that are reserved
// now, and comp the pool of the former component 0.
func (a *allocator) swapZero(comp uint16, reserved uint32, former *chunkPool) {
	a.lockSettled()
	defer a.mu.Unlock()
	p := a.pools[comp]
	p.total -= reserved
	p.first = reserved
	p.kept = nil
	former.closed = a.pools[0].closed
	if !a.pools[0].closed {
		a.free += int64(former.free) - int64(a.pools[0].free)
	}
	a.pools[0], a.pools[comp] = p, former
}
