package virstor

import (
	"errors"
	"fmt"
	"slices"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/chunkmap"
	"github.com/gvirstor/gvirstor/ondisk"
)

// ErrStranded: component 0, which holds the allocation map, takes no writes, and nothing
// changes the map until another component has its place. It wraps ErrTakesNoWrites.
var ErrStranded error = &refusal{ErrTakesNoWrites, "component 0, which holds the allocation map, takes no writes; evacuate or replace it"}

// Stranded reports whether component 0 takes no writes, so that only its leaving (Evacuate,
// Replace) changes the volume. One that was found so by Open or Activate is read only
// until then; one that became so in service takes writes to chunks that are allocated on
// other components.
func (v *Volume) Stranded() bool { return v.cond.is(stateStranded) }

// mayStrand reports whether a volume of which err kept it from being opened for writing
// can be served all the same, since the reason is that component 0 takes no writes.
func (v *Volume) mayStrand(err error) bool {
	return v.cfg.ServeStranded && v.meta.ext.room && v.component(0).unwritten.Load() && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrChanged)
}

// stranded opens a again, to be read, when failed, whose opening for writing ended with
// err, met a component 0 that takes no writes. What failed may have written to it counts
// as written.
func (a *Assembly) stranded(failed *Volume, err error) (*Volume, error) {
	if e := failed.dropCaches(); e != nil {
		return nil, errors.Join(err, e)
	}
	again, e := a.readAgain()
	if e != nil {
		return nil, errors.Join(err, e)
	}
	v, e := newVolume(again, failed.cfg)
	if e != nil {
		return nil, errors.Join(err, e)
	}
	v.meta.ext.rec.Sequence = max(v.meta.ext.rec.Sequence, failed.meta.ext.rec.Sequence)
	v.meta.gen.highest = max(v.meta.gen.highest, failed.meta.gen.highest)
	v.life.risen.Store(v.meta.gen.highest)
	for i, c := range failed.components() {
		if e := c.failedFlush(); e != nil {
			v.component(uint16(i)).fail(e)
		}
	}
	if e := v.loadMap(); e != nil {
		return nil, errors.Join(err, e)
	}
	if e := v.beStranded(err); e != nil {
		return nil, e
	}
	return v, nil
}

// beStranded makes a volume one that is only read, because opening it for writing ended
// with err. The other members are flushed: what is in their caches will not be written
// again.
func (v *Volume) beStranded(err error) error {
	zero := v.component(0)
	switch in := v.meta.ext.rec.Intent; in.Kind {
	case ondisk.IntentNone, ondisk.IntentRollback:
	case ondisk.IntentRemove, ondisk.IntentReplaceZero:
		if in.Leaves == 0 {
			return err
		}
	default:
		return err
	}
	for _, c := range v.components()[1:] {
		if e := c.flushNow(); e != nil {
			return errors.Join(err, e)
		}
	}
	v.cond.strand(zero.name())
	v.setRefused(zero, true)
	v.log.Error("component 0 takes no writes: the volume is only read; evacuate or replace that component",
		"component", zero.name(), "error", err)
	return nil
}

// endStranded ends a request that would change a volume that is only read, and reports
// whether it is one.
func (v *Volume) endStranded(r *Request) bool {
	if r.Op == OpFlush {
		return false
	}
	err := v.readOnly()
	if err == nil {
		return false // since just now
	}
	r.req.h.finish(r, fmt.Errorf("%s %s: %w", r.Op, r.req.h.Name(), err))
	return true
}

// readOnly is why nothing of the volume may be changed, but by component 0's leaving.
func (v *Volume) readOnly() error {
	switch {
	case v.cfg.ReadOnly:
		return ErrReadOnly
	case v.life.writable.Load():
		return nil
	}
	if err := v.cond.refusal(deedWriteMap); err != nil {
		return err
	}
	return ErrReadOnly
}

// zeroFails reports whether component 0 takes no writes, or the volume is in a state in
// which its writes would not do: then it leaves without any. Not while nobody knows which
// component is number 0.
func (v *Volume) zeroFails() bool {
	if v.cond.is(stateFrozen) || v.cond.is(stateClosing) {
		return false
	}
	return v.cond.is(stateStranded) || v.cond.is(stateDegraded) || v.cond.is(stateInDoubt) || v.component(0).unwritten.Load()
}

// zeroFails reports whether component 0 leaves, and does so without a write to it.
func (e evacuation) zeroFails() bool {
	return slices.Contains(e.leaving, e.v.component(0)) && e.v.zeroFails()
}

// departure is component 0 leaving without a write to it. Its chunks are copied to where
// others have room, which nobody is told of; then the heir's record, map and metadata say
// where they are, all at once. Until then the volume is what component 0's map says, and
// nothing that it may name is written to but by clients, in place; what they would write
// to component 0 fails.
type departure struct {
	evacuation
	gone    *component
	joins   bool // to is no member yet
	heir    *component
	moves   map[uint64]alloc.Phys // of the first volume
	inDoubt map[headChunk]bool    // whose last move is; nobody changes them
	pool    departing
	was     struct{ stranded, refused bool }
}

// headChunk is a virtual chunk of one of the volumes.
type headChunk struct {
	h  *Head
	vc uint64
}

// mayLeaveUnwritten refuses it while a rollback is unfinished: the size that component 0
// says is not yet that of the map in memory.
func (e evacuation) mayLeaveUnwritten() error {
	e.v.metaMu.Lock()
	defer e.v.metaMu.Unlock()
	if k := e.v.meta.ext.rec.Intent.Kind; k == ondisk.IntentRollback {
		return fmt.Errorf("replace component 0 of %s: %w: %q", e.v.name, ErrUnfinished, k)
	}
	return nil
}

// leaveUnwritten lets component 0 leave, of which zeroFails said that it is to go without
// writes. fresh, if not nil, is a provider that joins for it: it is a component
// when leaveUnwritten succeeds, and closed when not.
func (e evacuation) leaveUnwritten(j *jobHandle, fresh *component) error {
	v := e.v
	if err := e.mayLeaveUnwritten(); err != nil {
		if fresh != nil {
			err = errors.Join(err, fresh.prov().Close())
		}
		return err
	}
	d := &departure{evacuation: e, gone: v.component(0), moves: make(map[uint64]alloc.Phys)}
	v.log.Warn("component 0 takes no writes: it leaves without any", "component", d.gone.name())
	d.begin(fresh)
	err := d.pickHeir()
	if err == nil {
		err = d.copyOff(j)
	}
	if err == nil {
		err = d.commit(j)
	}
	switch {
	case v.component(0) != d.gone:
		j.note("%s, component 0, took no writes: it left without any, and its label may say otherwise", d.gone.name())
		return err
	case v.cond.is(stateFrozen):
		return err // everything stays as it is until the volume is reopened
	}
	return errors.Join(err, d.undo())
}

// begin keeps component 0 as it is.
func (d *departure) begin(fresh *component) {
	v := d.v
	v.metaMu.Lock()
	defer v.metaMu.Unlock()
	d.was.stranded, d.was.refused = v.cond.strand(d.gone.name()), d.gone.refused.Load()
	v.setRefused(d.gone, true)
	v.pauseAll() // what they were about is done now, and all else they refuse
	defer v.unpauseAll()
	d.inDoubt = make(map[headChunk]bool)
	for _, h := range v.heads() {
		for _, o := range h.committer.degrade.locked {
			d.inDoubt[headChunk{h, o.vc}] = true
		}
	}
	if fresh == nil {
		return
	}
	d.to, d.joins = fresh, true
	next := append(slices.Clone(v.components()), fresh)
	fresh.setIndex(uint16(len(next) - 1))
	v.setComponents(next)
	v.alloc.Append(alloc.NewPool(0, fresh.usable()))
	v.alloc.Hold(next)
}

// undo is for a departure that nobody knows of.
func (d *departure) undo() (err error) {
	v := d.v
	v.metaMu.Lock()
	defer v.metaMu.Unlock()
	v.pauseAll()
	defer v.unpauseAll()
	for _, at := range d.moves {
		v.alloc.Put(at)
	}
	d.undoPool()
	if d.heir != nil {
		v.alloc.ReleaseKept(d.heir.index())
	}
	if d.joins {
		comps := v.components()
		comps = comps[:len(comps)-1]
		v.setComponents(comps)
		v.alloc.DropLast(comps)
		err = d.to.prov().Close()
	}
	v.setRefused(d.gone, d.was.refused)
	if !d.was.stranded {
		v.cond.ashore()
	}
	v.kick()
	return err
}

// pickHeir picks who will hold the map: its first chunks must be free, since there is
// nowhere to say that what is in them has moved. They are kept.
func (d *departure) pickHeir() error {
	v, reserved := d.v, d.gone.first()
	for _, c := range v.components() {
		if slices.Contains(d.leaving, c) || d.to != nil && c != d.to || c.refused.Load() || c.failedFlush() != nil || c.usable() <= reserved {
			continue
		}
		if v.alloc.ClaimBelow(c.index(), reserved) == 0 || v.cfg.breaks(breakHeirInUse) {
			d.heir = c
			return nil
		}
		v.alloc.ReleaseKept(c.index())
	}
	return refuse(ErrTakesNoWrites, "%s takes no writes, and no other component of %s has its first %d chunks free for the allocation map%s: `gvirstor replace %s %s NEW` takes a provider that has",
		d.gone.name(), v.name, reserved, refusedText(d.refusing()), v.name, d.gone.name())
}

// copyOff copies what is on component 0 to where there is room.
func (d *departure) copyOff(j *jobHandle) error {
	v := d.v
	places := v.placesWhere(d.on)
	j.total(int64(len(places)) * v.chunk)
	buf := make([]byte, min(moveBuffer, v.chunk))
	for i, pl := range places {
		target, ok := d.takeNow() // chunks that component 0 has to free are not waited for
		if !ok {
			left := int64(len(places) - i)
			return v.shortOf(j.kind(), left, left+int64(d.gone.first()), d.refusing())
		}
		if err := d.copyOne(pl, target, buf); err != nil {
			return fmt.Errorf("move virtual chunk %d of %s: %w", pl.vc, v.name, err)
		}
		if err := j.step(v.chunk, 1); err != nil {
			return err
		}
	}
	return nil
}

// copyOne copies a chunk when the writes to it that had begun have ended. None begins
// any more.
func (d *departure) copyOne(pl mapping, target alloc.Phys, buf []byte) error {
	v := d.v
	h := v.headWith(pl) // the first one, if that is one of several: snapshots have it then, and nobody writes to it
	if h != nil && h.isFirst() {
		d.moves[pl.vc] = target
	} else {
		d.pool.alone = append(d.pool.alone, move{pl, target})
	}
	if h != nil && !d.inDoubt[headChunk{h, pl.vc}] {
		at, ok := h.chunks.Lock(pl.vc)
		if !ok {
			return fmt.Errorf("it is not allocated any more: %w", ErrDamaged) // the map does not change
		}
		defer h.chunks.Unlock(pl.vc, chunkmap.WordOf(at))
	}
	return v.copyChunk(pl.at, target, buf)
}

// commit makes the heir component 0.
func (d *departure) commit(j *jobHandle) error {
	v, t := d.v, d.heir
	v.metaMu.Lock()
	defer v.metaMu.Unlock()
	v.moving.close()
	defer v.moving.open(v.resume)
	v.pauseAll()
	defer v.unpauseAll()
	if err := v.waitFreed(); err != nil {
		return err
	}
	if k := v.meta.ext.rec.Intent; v.life.writable.Load() && k.Kind != ondisk.IntentNone {
		return fmt.Errorf("replace component 0 of %s: %w: %q", v.name, ErrUnfinished, k.Kind)
	}
	if err := d.storePoolLocked(); err != nil {
		return err
	}
	was, reserved := v.meta.ext.rec.Intent, d.gone.first()
	s := succession{v: v, heir: t, joins: d.joins, unwritten: true, moves: d.moves, task: j.task}
	if d.pool.dir != nil {
		s.directory = d.pool.dir.link
	}
	next, err := s.store()
	if err != nil {
		return err
	}
	j.stored = v.meta.ext.rec.Task.Kind != ondisk.TaskNone
	d.remember()
	d.rememberPool()
	v.swapZero(t, next, reserved)
	v.clearLeaversLocked(was.Leaves)
	v.cond.handedOn()
	err = v.dismissZero(d.gone)
	v.goOnWritable()
	return err
}

// remember makes memory agree with the heir's map, which has the chunks of component 0
// elsewhere. What component 0's map could not say, that chunks are free or where one is
// whose last move was in doubt, nobody asks any more.
func (d *departure) remember() {
	v, k := d.v, d.v.committer
	for _, o := range k.degrade.locked {
		if to, moves := d.moves[o.vc]; moves {
			v.chunks.UnlockMoved(o.vc, chunkmap.WordOf(to))
			delete(d.moves, o.vc)
		} else {
			v.chunks.Unlock(o.vc, chunkmap.WordOf(o.old))
		}
		if o.owns() {
			v.alloc.Put(o.new)
		}
	}
	for vc, to := range d.moves {
		if _, ok := v.chunks.Lock(vc); ok { // when who reads it has done so
			v.chunks.UnlockMoved(vc, chunkmap.WordOf(to)) // for snapshots, too
		}
	}
	for _, p := range append(k.degrade.kept, d.gone.ledger.Load().abandon()...) {
		v.alloc.Put(p)
	}
	k.degrade = degraded{}
}

// goOnWritable lets a volume that was only read take writes, when a component that does
// is number 0. v.metaMu is held.
func (v *Volume) goOnWritable() {
	if v.life.writable.Swap(true) {
		v.emit(Event{Kind: EventRecovered})
		v.kick()
		return
	}
	v.log.Info("the volume takes writes again")
	v.emit(Event{Kind: EventRecovered})
	v.startDaily()
}

// replaceUnwritten starts the job in which p takes the place of component 0, which takes
// no writes. It owns p. v.job.starting is held.
func (v *Volume) replaceUnwritten(p geomlib.Provider, opt JobOptions) error {
	v.metaMu.Lock()
	metas, err := v.planAdd([]geomlib.Provider{p}, len(v.components())+1, AddOptions{})
	v.metaMu.Unlock()
	if err != nil {
		return errors.Join(err, p.Close())
	}
	fresh := v.newComponent(p, metas[0])
	fresh.member = 0
	e := evacuation{v: v, leaving: []*component{v.component(0)}}
	err = v.launchLocked(jobReplace, ondisk.Task{}, opt, func(j *jobHandle) error {
		return e.leaveAll(j, fresh)
	})
	if err != nil {
		return errors.Join(err, p.Close())
	}
	return nil
}
