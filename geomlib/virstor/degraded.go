package virstor

import "fmt"

// degraded is what the committer keeps while map sectors are not known to hold
// what they should.
type degraded struct {
	sectors map[int64]struct{} // map sectors to be rewritten from RAM
	kept    []phys             // chunks that such a sector may name
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

func (d *degraded) keep(p phys) { d.kept = append(d.kept, p) }

// repair rewrites the sectors in doubt from RAM and flushes them. When that
// succeeds the volume allocates again.
func (k *committer) repair() {
	v, d := k.v, &k.degrade
	if err := k.rewriteDoubtful(); err != nil {
		v.log.Debug("allocation map still not written", "volume", v.name, "error", err)
		if v.closing.Load() {
			k.giveUpLocked()
		}
		return
	}
	for _, o := range d.locked {
		v.chunks.unlock(o.vc, wordOf(o.old), v.resume)
		if !o.same {
			v.alloc.put(o.new)
		}
	}
	for _, p := range d.kept {
		v.alloc.put(p)
	}
	*d = degraded{}
	v.isDegraded.Store(false)
	v.log.Info("allocation map written again: allocation goes on", "volume", v.name)
	v.emit(Event{Kind: EventRecovered})
	k.kick()
}

// rewriteDoubtful writes the sectors in doubt and flushes them.
func (k *committer) rewriteDoubtful() error {
	for s := range k.degrade.sectors {
		if err := k.writeMapSectors(uint64(s), uint64(s), nil); err != nil {
			return err
		}
	}
	// Whatever failed before: data may be lost for good, while the map is here
	// to be written again.
	return k.v.component(0).flushNow()
}

// giveUpLocked fails the requests to chunks whose moves are in doubt, so that a
// volume whose map cannot be written can be closed.
func (k *committer) giveUpLocked() {
	v := k.v
	for _, o := range k.degrade.locked {
		for _, r := range v.chunks.unpark(o.vc) {
			v.finish(r, fmt.Errorf("%s %s at %d: %w", r.Op, v.name, r.Offset, ErrDegraded))
		}
	}
}

// doubtUnflushed treats every map sector that was not known to be durable when
// component 0 failed a flush as one to be rewritten.
func (k *committer) doubtUnflushed() {
	was := k.degrade.is()
	for s := range k.unflushed {
		k.degrade.add(s)
	}
	if k.degrade.is() && !was {
		k.v.isDegraded.Store(true)
		k.v.emit(Event{Kind: EventDegraded, Err: k.v.component(0).failedFlush()})
	}
}
