package virstor

import (
	"errors"
	"fmt"
	"slices"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/chunkmap"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/extblock"
	"github.com/gvirstor/gvirstor/ondisk"
)

// handZeroOn makes component t number 0 and takes the one that is out of the volume, in
// one change of the list of members; the last component takes t's index. The chunks of
// the one that leaves are gone already. What of t's has to make way goes where the
// evacuation's go.
//
// t frees its first chunks for the map and gets a copy of it, with the indexes as they
// will be, and an extension record that is later than the old one's. Its metadata
// sector commits; the intent in that record says who is component 0 no more.
//
// The chunks that t kept free for it are given back on every failure but one: when
// it is not known whether t is component 0 now.
func (e evacuation) handZeroOn(j *jobHandle, t *component) (err error) {
	v := e.v
	reserved := uint32(v.component(0).meta().ChunkReserved)
	keep := false
	defer func() {
		if err != nil && !keep {
			v.alloc.ReleaseKept(t.index())
		}
	}()
	if err := e.vacate(j, t, reserved); err != nil {
		return err
	}
	v.metaMu.Lock()
	defer v.metaMu.Unlock()
	// A discard that has locked a chunk and waits for the committer would keep
	// the chunk from being renamed.
	v.moving.close()
	defer v.moving.open(v.resume)
	v.pauseAll()
	defer v.unpauseAll()
	err = v.mayChangeLocked()
	if err == nil && v.anyDegraded() && !v.cond.is(stateDegraded) { // which store looks at
		err = ErrDegraded // of another volume, whose chunks are locked that nobody lets go
	}
	if err != nil {
		return fmt.Errorf("replace component 0 of %s: %w", v.name, err)
	}
	gone := v.component(0)
	if err := v.disownLocked(gone); err != nil {
		v.staysLocked(gone)
		return fmt.Errorf("replace component 0 of %s: %w", v.name, err)
	}
	next, err := succession{v: v, heir: t}.store()
	keep = true
	if err != nil {
		if keep = v.cond.is(stateFrozen); !keep {
			v.staysLocked(gone)
		}
		return err
	}
	v.swapZero(t, next, reserved)
	return v.dismissZero(gone)
}

// dismissZero lets the former component 0 go, when another is in its place. v.metaMu is
// held and the committer is paused.
func (v *Volume) dismissZero(gone *component) error {
	left := v.discharge(gone)
	v.emit(Event{Kind: EventComponents})
	err := v.writeExtensionLocked(func(e *ondisk.Extension) {
		v.tidyRecord(e)
		if !left && !v.cfg.breaks(breakUnnamedZero) {
			// It says still that it is component 0, and may be a whole volume by itself.
			v.addFailed(e, gone, gone.meta().Member.Generation)
		}
	})
	if lost := gone.failedFlush(); lost != nil {
		v.lost.CompareAndSwap(nil, &lost)
	}
	v.leaveOldLeases()
	if e := gone.close(); e != nil && !gone.refused.Load() {
		err = errors.Join(err, fmt.Errorf("close %s after its removal from %s: %w", gone.name(), v.name, e))
	}
	return err
}

// succession is how component 0 is handed on.
type succession struct {
	v    *Volume
	heir *component // of the volume; the last one, if it joins only now
	// joins: heir is no member yet.
	joins bool
	// unwritten: component 0 takes no writes. What is to be known of its leaving is
	// all in the heir's record, and takes effect with that.
	unwritten bool
	moves     map[uint64]alloc.Phys // virtual chunks that lie elsewhere from then on
	task      ondisk.Task           // what remains to be done then, if it is in no record yet
	directory ondisk.Link           // if there is one, the directory of the snapshots from then on
}

// successor picks the component that will hold the map.
func (e evacuation) successor() (*component, error) {
	v := e.v
	reserved := v.component(0).first()
	for _, c := range v.components() {
		if slices.Contains(e.leaving, c) || e.to != nil && c != e.to || c.refused.Load() {
			continue
		}
		if c.usable() > reserved {
			return c, nil
		}
	}
	return nil, fmt.Errorf("no component of %s is large enough for the allocation map (%d chunks): %w", v.name, reserved, ErrTooSmall)
}

// vacate frees the chunks of t below n and keeps them.
func (e evacuation) vacate(j *jobHandle, t *component, n uint32) error {
	v := e.v
	below := func(p alloc.Phys) bool { return p.Comp == t.index() && p.Chunk < n }
	m := v.newMover(j, below)
	defer m.end()
	for {
		if v.alloc.ClaimBelow(t.index(), n) == 0 {
			return nil
		}
		if err := j.ctx.Err(); err != nil {
			return err
		}
		places := v.placesWhere(below)
		j.more(int64(len(places)) * v.chunk)
		if err := e.moveOff(m, places); err != nil {
			return err
		}
		if err := e.clearSystem(m); err != nil {
			return err
		}
		v.publishAssigned()
		if err := v.waitFreed(); err != nil {
			return err
		}
	}
}

// members are those, by index, when the heir is component 0 and the one that is has left.
func (s succession) members() []*component {
	t, comps := s.heir, s.v.components()
	last := len(comps) - 1
	next := slices.Clone(comps[:last])
	if i := int(t.index()); i < last {
		next[i] = comps[last]
	}
	next[0] = t
	return next
}

// store writes the map, the extension record and at last the metadata that make
// s.heir component 0, and returns the new list of members, which is settled. v.metaMu is
// held and the committer is paused.
func (s succession) store() (next []*component, err error) {
	v, t := s.v, s.heir
	om := v.component(0).meta()
	next = s.members()
	if !s.unwritten {
		if err := v.waitFreed(); err != nil {
			return nil, err
		}
		if err := v.cond.refusal(deedAllocate); err != nil {
			return nil, fmt.Errorf("replace component 0 of %s: %w", v.name, err)
		}
	}
	if err := s.copyMap(uint16(len(next))); err != nil {
		return nil, err
	}
	e, err := s.record(next)
	if err != nil {
		return nil, err
	}
	if err := extblock.Erase(t.accounted(), e.offset, 1-e.rec.Slot()); err != nil {
		return nil, err
	}
	if err := extblock.Store(t.accounted(), e.offset, e.rec); err != nil {
		return nil, err
	}
	heirs := t.meta()
	heirs.No, heirs.ChunkReserved = 0, om.ChunkReserved
	moved, err := v.moveLease(t.prov(), heirs)
	if err != nil {
		return nil, err
	}
	was := v.meta.ext
	v.meta.ext, v.meta.heir = e, t
	defer func() { v.meta.heir = nil }()
	r := rise{comps: next, edit: func(c *component, m *ondisk.Metadata) {
		if !v.life.writable.Load() { // this is its opening for writing, too
			v.countSafely(c, m)
		}
		if c == t && m.ChunkReserved == 0 {
			m.ChunkReserved, m.ChunkNext, m.Flags = om.ChunkReserved, max(m.ChunkNext, uint32(om.ChunkReserved)), m.Flags|ondisk.FlagAllocated
		}
	}}
	if s.joins {
		r.joins = []*component{t}
	}
	r.recover = !v.life.writable.Load()
	if err = v.riseLocked(r); err != nil {
		// Whether it is component 0 now is not known: nothing may be
		// written to either map.
		v.meta.ext = was
		return nil, v.doubtLocked(fmt.Errorf("component 0 of %s may have been replaced; restart to find out: %w", v.name, err))
	}
	moved()
	return next, nil
}

// record is the extension record that the heir gets, later than any that the old
// component 0 may have. v.metaMu is held.
func (s succession) record(next []*component) (extension, error) {
	v := s.v
	t, gone := s.heir, v.component(0)
	m, om := t.meta(), gone.meta()
	m.No, m.ChunkReserved, m.VirtualSize = 0, om.ChunkReserved, om.VirtualSize
	e := extension{rec: v.meta.ext.rec, valid: true}
	e.offset, e.room = ondisk.ExtensionOffset(m)
	if !e.room {
		return e, fmt.Errorf("%s as component 0 of %s: %w", t.name(), v.name, ErrNoExtension)
	}
	e.rec.Sequence++
	old := e.rec.Intent
	if t.member == 0 {
		t.member = v.draw()
	}
	e.rec.Intent = ondisk.Intent{Kind: ondisk.IntentReplaceZero, Arg: [8]uint64{uint64(t.index())}, Leaves: gone.member, Moves: t.member}
	if s.task.Kind != ondisk.TaskNone {
		e.rec.Task = s.task
	}
	e.rec.Task = retask(e.rec.Task, next)
	if s.directory.Exists() {
		e.rec.Directory = s.directory
	}
	if !s.unwritten {
		return e, nil
	}
	if !v.life.writable.Load() {
		e.rec.Clean = false
		if e.rec.Task.Kind == ondisk.TaskResize {
			// Whoever writes from now on believes that the size is what the label says.
			e.rec.Task = ondisk.Task{}
			v.log.Warn("an interrupted resize is given up, since component 0 leaves")
		}
	}
	if old.Kind == ondisk.IntentReplaceZero && old.Leaves != 0 {
		// Whom this one replaced, which was not finished, has a label still.
		addFailed(&e.rec, ondisk.FailedMember{ID: old.Leaves, Generation: max(v.meta.gen.settled, 1)})
	}
	if !v.cfg.breaks(breakUnnamedZero) && !v.addFailed(&e.rec, gone, gone.meta().Member.Generation) {
		return e, fmt.Errorf("%s: more than %d components take no writes: %w", gone.name(), ondisk.MaxFailedMembers, ErrTakesNoWrites)
	}
	return e, nil
}

// asEmpty is the metadata of a former component 0 as component index.
func asEmpty(m ondisk.Metadata, index uint16) ondisk.Metadata {
	m.No, m.ChunkReserved, m.ChunkNext, m.Flags = index, 0, 0, 0
	return m
}

// heirWord is a word of the map as it is when component index is component 0 and the last
// one has taken its index.
func heirWord(w chunkmap.Word, index, last uint16) chunkmap.Word {
	p := w.Phys()
	switch {
	case !w.Allocated():
		return w
	case p.Comp == index:
		return chunkmap.WordOf(alloc.Phys{Comp: 0, Chunk: p.Chunk})
	case p.Comp == last:
		return chunkmap.WordOf(alloc.Phys{Comp: index, Chunk: p.Chunk})
	}
	return w
}

// copyMap writes the map to the heir as it will be when that is component 0 and
// component last has its index.
func (s succession) copyMap(last uint16) error {
	v := s.v
	t, index := s.heir, s.heir.index()
	total := v.component(0).meta().MapBytes()
	if err := t.clear(0, total, v.zeros); err != nil {
		return err
	}
	per := uint64(v.sector / ondisk.EntrySize)
	n := uint64(v.Size() / v.chunk)
	buf := make([]byte, v.sector)
	for vc := v.chunks.NextAllocated(0, n); vc < n; vc = v.chunks.NextAllocated(vc, n) {
		first := vc / per * per
		for i := range per {
			w := v.chunks.Load(first + i)
			if to, moves := s.moves[first+i]; moves {
				w = chunkmap.WordOf(to)
			}
			if w.Allocated() && w.Phys().Comp == 0 {
				return fmt.Errorf("virtual chunk %d is on component 0 of %s still: %w", first+i, v.name, ErrAllocated)
			}
			v.encodeEntry(buf[i*ondisk.EntrySize:], heirWord(w, index, last))
		}
		if err := t.writeRaw(buf, int64(first)*ondisk.EntrySize); err != nil {
			return err
		}
		vc = first + per
	}
	return t.flush()
}

// swapZero makes memory agree with what succession.store wrote: next is the list of
// members. v.metaMu is held and the committers are paused.
func (v *Volume) swapZero(t *component, next []*component, reserved uint32) {
	index, last := t.index(), uint16(len(next))
	gone := v.component(0)
	both := slices.Clone(v.components())
	both[0] = t
	before := t.ledger.Swap(&mapLedger{v: v}) // its copy of the map is durable, and what else it has
	if before != nil {
		for _, p := range before.abandon() {
			t.ledger.Load().free(p)
		}
		t.markDirty()
	}
	v.setComponents(both)
	v.renameWords(index, 0)
	both = slices.Clone(both)
	both[index] = both[last]
	v.setComponents(both)
	if index < last {
		v.renameWords(last, index)
	}
	gone.ledger.Store(nil)
	for i, c := range next {
		c.setIndex(uint16(i))
	}
	v.alloc.SwapZero(next, index, reserved)
	v.setComponents(next)
	v.setNumbers()
	clear(v.committer.unflushed)
}

// renameWords lets the maps in memory name component from by the index to; both indexes
// are its until all is done. v.metaMu is held and the committers are paused.
func (v *Volume) renameWords(from, to uint16) {
	v.beginAlias(from, to)
	defer v.endAlias(from, to)
	for _, h := range v.heads() {
		h.renameWords(from, to)
	}
}

// renameWords is Volume.renameWords of one map.
func (h *Head) renameWords(from, to uint16) {
	for _, pl := range h.chunksWhere(func(p alloc.Phys) bool { return p.Comp == from }) {
		if ph, ok := h.chunks.Lock(pl.vc); ok {
			h.chunks.Unlock(pl.vc, chunkmap.WordOf(alloc.Phys{Comp: to, Chunk: ph.Chunk}))
		}
	}
}

// beginAlias lets component from be known by the index to, too, when maps are compared.
func (v *Volume) beginAlias(from, to uint16) {
	if v.cfg.breaks(breakOneIndex) {
		return
	}
	for _, h := range v.heads() {
		h.chunks.Alias(from, to)
	}
}

// endAlias lets nothing name component from by that index, when no map does any more that is
// written to. v.metaMu is held and the committers are paused: until all maps are done a clone
// and what it is a clone of may have different names for it.
func (v *Volume) endAlias(from, to uint16) {
	for _, h := range v.heads() {
		h.chunks.Alias(from, to)
	}
	for _, h := range v.heads() { // what a clone is a clone of comes first
		h.chunks.Renamed()
	}
	v.renameSystem(from, to)
	v.drainViews()
}

// finishReplaceZeroLocked gives the former component 0 the metadata of an empty
// component; v.metaMu is held.
func (v *Volume) finishReplaceZeroLocked() error {
	index := uint16(v.meta.ext.rec.Intent.Arg[0])
	if int(index) >= len(v.components()) {
		return fmt.Errorf("%w: intent names component %d of %d", ErrDamaged, index, len(v.components()))
	}
	c := v.component(index)
	return geomlib.StoreMetadata(c.accounted(), c.meta())
}
