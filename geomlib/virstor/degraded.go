package virstor

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
	for s := range d.sectors {
		if err := k.writeMapSectors(uint64(s), uint64(s), nil); err != nil {
			v.log.Debug("allocation map still cannot be written", "volume", v.name, "error", err)
			return
		}
	}
	// Whatever failed before: data may be lost for good, while the map is here
	// to be written again.
	if err := v.component(0).flushNow(); err != nil {
		v.log.Debug("allocation map still cannot be flushed", "volume", v.name, "error", err)
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

// abandon lets go of the chunks whose map sector could not be written, when the
// volume closes: who waits for them would keep it from ending. Both copies of
// them hold the same, so they may be read; but nothing may be written any more
// that could come back as the other copy.
func (k *committer) abandon() {
	v, d := k.v, &k.degrade
	v.abandoned.Store(true)
	for _, o := range d.locked {
		v.chunks.unlock(o.vc, wordOf(o.old), v.resume)
		if !o.same {
			d.keep(o.new)
		}
	}
	d.locked = nil
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
