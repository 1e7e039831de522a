package virstor

import (
	"fmt"
	"maps"
	"slices"

	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/chunkmap"
)

// degraded is what the committer keeps while map sectors are not known to hold
// what they should.
type degraded struct {
	sectors map[int64]struct{} // map sectors to be rewritten from RAM
	kept    []alloc.Phys       // chunks that such a sector may name
	locked  []mapOp            // moves whose outcome is unknown; their chunks are locked
}

func (d *degraded) is() bool { return len(d.sectors) > 0 }

func (d *degraded) has(sector int64) bool {
	_, ok := d.sectors[sector]
	return ok
}

func (d *degraded) add(sector int64) {
	if d.sectors == nil {
		d.sectors = make(map[int64]struct{})
	}
	d.sectors[sector] = struct{}{}
}

func (d *degraded) keep(p alloc.Phys) { d.kept = append(d.kept, p) }

// repair rewrites the sectors in doubt from RAM and flushes them. When that
// succeeds the volume allocates again.
func (k *committer) repair() {
	v := k.v
	if err := k.rewriteDoubtful(); err != nil {
		v.log.Debug("allocation map still not written", "error", err)
		return
	}
	k.settleDoubt()
}

// settleDoubt goes on when all that was in doubt is durable as memory has it. k.running is
// held.
func (k *committer) settleDoubt() {
	v, d := k.v, &k.degrade
	for _, o := range d.locked {
		k.h.chunks.Unlock(o.vc, chunkmap.WordOf(o.old))
		if o.owns() {
			v.alloc.Put(o.new)
		}
	}
	for _, p := range d.kept {
		v.alloc.Put(p)
	}
	*d = degraded{}
	k.h.ill.rewritten()
	v.log.Info("allocation map written again: allocation goes on")
	v.emit(Event{Kind: EventRecovered})
	k.kick()
}

// rewriteDoubtful writes the sectors in doubt and flushes them.
func (k *committer) rewriteDoubtful() error {
	if err := k.h.refusal(deedWriteMap); err != nil {
		return err
	}
	for _, s := range slices.Sorted(maps.Keys(k.degrade.sectors)) {
		if err := k.writeMapSectors(uint64(s), uint64(s), nil); err != nil {
			return err
		}
	}
	// Whatever failed before: data may be lost for good, while the map is here
	// to be written again.
	for _, c := range k.h.homes() {
		if err := c.flushNow(); err != nil {
			return err
		}
	}
	return nil
}

// giveUp lets those go who wait for chunks whose place is not known, when the volume
// closes: reads, which are the same in both, and writes, which fail.
func (k *committer) giveUp() {
	k.running.Lock()
	defer k.running.Unlock()
	k.degrade.locked = slices.DeleteFunc(k.degrade.locked, k.letGo)
}

// letGo unlocks the chunk of a move whose outcome is not known, and reports whether it
// did: only in a closing volume. k.running is held.
func (k *committer) letGo(o mapOp) bool {
	if !k.h.ill.giveUp() {
		return false
	}
	k.h.chunks.Unlock(o.vc, chunkmap.WordOf(o.old))
	return true
}

// gaveUp is the error of a write that comes too late.
func (h *Head) gaveUp() error {
	if h.ill.allows(deedAcknowledgeWrite) {
		return nil
	}
	return fmt.Errorf("write to %s, which closes: %w", h.Name(), ErrDegraded)
}

// doubtUnflushed treats every map sector that was not known to be durable when
// component 0 failed a flush as one to be rewritten.
func (k *committer) doubtUnflushed() {
	was := k.degrade.is()
	var err error
	for s := range k.unflushed {
		home, _ := k.h.home(s)
		failed := home.failedFlush()
		if failed == nil && !k.h.isFirst() {
			continue // another component than the one that failed
		}
		err = failed
		k.degrade.add(s)
	}
	if k.degrade.is() && !was {
		k.h.ill.degrade(err)
		k.v.emit(Event{Kind: EventDegraded, Err: err})
	}
}
