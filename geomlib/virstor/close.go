package virstor

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ondisk"
)

// NotHandedBackError tells why a volume stays fenced from the kernel class.
type NotHandedBackError struct {
	Volume  string
	Reasons []string
}

func (e *NotHandedBackError) Error() string {
	return fmt.Sprintf("%s: %v: %s", e.Volume, ErrNotHandedBack, strings.Join(e.Reasons, "; "))
}

// Unwrap makes errors.Is(err, ErrNotHandedBack) true.
func (e *NotHandedBackError) Unwrap() error { return ErrNotHandedBack }

// Stop closes the volume and, when the kernel class could go on with it as it
// is, lifts the fence. Otherwise the volume is closed all the same and the
// error is a *NotHandedBackError.
func (v *Volume) Stop() error {
	var kept error
	err := v.close(func() error {
		if v.cfg.ReadOnly || !v.life.writable.Load() {
			if why := v.cond.refusal(deedWriteMap); why != nil {
				kept = &NotHandedBackError{v.name, []string{why.Error()}}
			}
			return nil
		}
		var err error
		kept, err = v.handBackLocked()
		return err
	})
	return errors.Join(err, kept)
}

// handBackLocked lifts the fence if nothing is in the way, and otherwise notes that
// the volume was closed in order: kept is then a *NotHandedBackError. Every way out of
// this project to the kernel class leads through here, so that a volume in service and
// one that nobody serves are judged alike. v.metaMu is held.
func (v *Volume) handBackLocked() (kept, err error) {
	reasons := v.obstacles()
	reasons = append(reasons, v.unclearedLocked()...)
	if err := v.mayChangeLocked(); err != nil {
		reasons = append(reasons, err.Error())
	}
	if t := v.meta.ext.rec.Task.Kind; v.meta.ext.room && t != ondisk.TaskNone {
		reasons = append(reasons, fmt.Sprintf("an unfinished %s goes on at the next start (`gvirstor cancel %s` gives it up while the volume is in service)", t, v.name))
	}
	if reasons == nil {
		return nil, v.unfenceLocked()
	}
	return &NotHandedBackError{v.name, reasons}, v.markCleanLocked()
}

// unclearedLocked names those who were component 0 and could not be cleared: beside
// components of version 1 one could be taken for a volume by itself. v.metaMu is held.
func (v *Volume) unclearedLocked() (why []string) {
	for _, o := range v.outside.all() {
		if _, failed := v.meta.ext.rec.FailedSince(o.member); failed && !v.isMember(o.member) {
			name := ondisk.Printable(o.Provider)
			why = append(why, fmt.Sprintf("%s, which was component 0, could not be cleared (nothing on it is of use: `gvirstor clear %s`, or take it away and start again)", name, name))
		}
	}
	return why
}

// close drains and flushes the volume, runs last, and lets everything go.
func (v *Volume) close(last func() error) error {
	if !v.cond.close() {
		return fmt.Errorf("close %s: %w", v.name, ErrClosed)
	}
	v.life.activating.Lock() // what waits for it is there now, or never
	v.stopDaily()
	v.life.activating.Unlock()
	v.job.interrupt()
	v.traffic.close()
	v.failUntilActive()
	for _, h := range v.heads() {
		h.ill.close()
		h.FailHeld()
		h.committer.giveUp()
	}
	v.catchUp()
	<-v.traffic.idle
	v.ahead.stop()
	v.metaMu.Lock()
	defer v.metaMu.Unlock()
	err := v.finalFlush()
	// Once the workers are done, freed chunks are free and the pools agree
	// with the map.
	v.workers.stop()
	v.passDowns.stop()
	for _, h := range v.heads() {
		h.committer.stop()
	}
	v.writers.stop()
	if last == nil {
		last = v.markCleanLocked
	}
	if err == nil {
		err = last()
	} else if back := v.relistLocked(); back != nil {
		err = errors.Join(err, back)
	}
	err = errors.Join(err, v.endLease(err == nil))
	var closed []*component // one whose removal failed half way has two indexes
	for _, c := range v.components() {
		if !slices.Contains(closed, c) {
			err = errors.Join(err, c.close())
			closed = append(closed, c)
		}
	}
	for _, c := range v.meta.left {
		err = errors.Join(err, c.close())
	}
	if err != nil {
		return fmt.Errorf("close %s: %w", v.name, err)
	}
	return nil
}

// finalFlush flushes everything, freed chunks included.
func (v *Volume) finalFlush() error {
	if v.cfg.ReadOnly || !v.life.writable.Load() || v.cfg.breaks(breakCloseFlush) {
		return nil
	}
	return v.flushAll()
}

// failUntilActive ends what waits for Activate.
func (v *Volume) failUntilActive() {
	v.life.untilActive.mu.Lock()
	reqs := v.life.untilActive.reqs
	v.life.untilActive.reqs = nil
	v.life.untilActive.mu.Unlock()
	for _, r := range reqs {
		r.req.h.finish(r, fmt.Errorf("%s %s: %w", r.Op, r.req.h.Name(), ErrClosed))
	}
}

// markCleanLocked notes, with a new generation, in the extension block that the volume
// was closed in order; v.metaMu is held.
func (v *Volume) markCleanLocked() error {
	if v.cfg.ReadOnly || !v.life.writable.Load() {
		return nil
	}
	if v.mayChangeLocked() != nil || !v.cond.allows(deedMarkClean) || v.anyDegraded() {
		// Half way through a removal one component has two indexes, which is no list
		// of members. The next opening finishes it.
		return nil
	}
	return v.riseLocked(rise{comps: v.components(), record: func(e *ondisk.Extension) { e.Clean = true }})
}

// obstacles are what of the data's layout is a reason why the kernel class must not
// have the volume; handBackLocked knows the others. That class recounts chunk_next from the map, so used chunks must be the lowest; it
// steps to the next component without looking whether that one is full
// (sys/geom/virstor/g_virstor.c); and it writes into whatever chunk_count says.
func (v *Volume) obstacles() []string {
	var why []string
	if v.component(0).meta().SmallChunks() {
		why = append(why, fmt.Sprintf("its chunks of %d bytes are smaller than what the kernel class can serve", v.chunk))
	}
	if len(v.further()) > 0 {
		why = append(why, fmt.Sprintf("it has further volumes, which the kernel class would write over: copy away what is wanted of them, then delete them (%s)", v.furtherNames()))
	} else if v.pool.others.Load() {
		why = append(why, fmt.Sprintf("it has snapshots, which the kernel class would write over: send away what is wanted of them, then delete them (%s)", v.pool.names.Load()))
	}
	if v.cond.is(stateDegraded) {
		why = append(why, "a map sector could not be written")
	}
	if v.garbage {
		why = append(why, "unallocated map entries hold values that the kernel class refuses (run `gvirstor repair`)")
	}
	roomAt := -1
	for i, c := range v.components() {
		if v.lastSectorInUse(c) {
			why = append(why, fmt.Sprintf("a chunk on the metadata sector of %s is in use (see `gvirstor check`)", c.name()))
			continue
		}
		if c.refused.Load() {
			why = append(why, fmt.Sprintf("%s takes no writes (`gvirstor remove -e %s %s` takes it out)", c.name(), v.name, c.name()))
			continue // packing fills none of its holes; who takes it out moves all that is there
		}
		next, dense := v.alloc.Dense(i, c.first())
		if !dense {
			why = append(why, fmt.Sprintf("%s has holes between its used chunks (run `gvirstor pack %s`)", c.name(), v.name))
		}
		if next < c.usable() {
			if roomAt < 0 {
				roomAt = i
			}
		} else if roomAt >= 0 {
			why = append(why, fmt.Sprintf("%s is full while %s before it is not (run `gvirstor pack %s`)",
				c.name(), v.component(uint16(roomAt)).name(), v.name))
		}
	}
	return why
}

// unfenceLocked hands the volume back: exact metadata at version 2 on every
// component first, then version 1, on component 0 last. v.metaMu is held.
func (v *Volume) unfenceLocked() error {
	if err := v.cond.refusal(deedHandBack); err != nil {
		return fmt.Errorf("hand %s back: %w", v.name, err)
	}
	comps := v.components()
	exact := make([]ondisk.Metadata, len(comps))
	current := len(comps) - 1
	for i, c := range comps {
		if next, _ := v.alloc.Dense(i, c.first()); next < c.usable() {
			current = i
			break
		}
	}
	for i, c := range comps {
		m := agreed(comps, i)
		m.Version = ondisk.VersionFenced
		m.ChunkNext, _ = v.alloc.Dense(i, c.first())
		m.Flags = 0
		if m.ChunkNext > 0 {
			m.Flags |= ondisk.FlagAllocated
		}
		if i == current {
			m.Flags |= ondisk.FlagCurrent
		}
		exact[i] = m
		if v.cfg.breaks(breakEarlyUnfence) {
			m = c.meta()
			m.Version, m.Member = ondisk.Version, ondisk.MemberBlock{}
		}
		if err := v.storeMetaLocked(c, m); err != nil {
			return err
		}
	}
	if v.meta.ext.room && !v.cfg.breaks(breakHandBackNote) {
		// From here on a component of version 1 is no stale one.
		if err := v.writeExtensionLocked(func(e *ondisk.Extension) { e.HandBack, e.Clean = true, true }); err != nil {
			return err
		}
	}
	if v.cfg.breaks(breakCloseFlush) {
		for i, c := range comps {
			m := exact[i]
			m.Version, m.Member = ondisk.Version, ondisk.MemberBlock{}
			b := make([]byte, v.sector)
			if err := errors.Join(m.Encode(b), c.writeRaw(b, c.guard)); err != nil {
				return err
			}
		}
	}
	for i := range comps {
		if !v.cfg.breaks(breakUnfenceOrder) {
			i = len(comps) - 1 - i
		}
		m := exact[i]
		m.Version, m.Member = ondisk.Version, ondisk.MemberBlock{}
		if err := v.storeMetaLocked(comps[i], m); err != nil {
			return err
		}
	}
	return nil
}

// storeMetaLocked writes m to c and flushes it; v.metaMu is held.
func (v *Volume) storeMetaLocked(c *component, m ondisk.Metadata) error {
	if m == c.meta() {
		return nil
	}
	if err := geomlib.StoreMetadata(c.accounted(), m); err != nil {
		return fmt.Errorf("hand %s back: %w", v.name, err)
	}
	c.setMeta(m)
	return nil
}

// Close ends a volume: requests in flight are completed, those held for space
// fail, everything is flushed. The fence stays on. The providers are closed.
func (v *Volume) Close() error {
	return v.close(nil)
}
