package virstor

import (
	"fmt"
	"slices"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/chunkmap"
	"github.com/gvirstor/gvirstor/ondisk"
)

// writeMap writes each map sector that changes.
func (k *committer) writeMap() {
	b := &k.batch
	b.changes = b.changes[:0]
	for i := range b.chunks {
		if c := &b.chunks[i]; c.err == nil {
			b.changes = append(b.changes, mapChange{vc: c.vc, word: chunkmap.WordOf(c.to), err: &c.err})
		}
	}
	refused := k.h.refusal(deedAllocate)
	for _, g := range b.ops {
		for i := range g.ops {
			o := &g.ops[i]
			if refused != nil {
				o.err = fmt.Errorf("change the map of %s: %w", k.h.Name(), refused)
				continue
			}
			o.begun = true
			b.changes = append(b.changes, mapChange{vc: o.vc, word: o.word(), err: &o.err})
		}
	}
	slices.SortFunc(b.changes, func(x, y mapChange) int {
		switch {
		case x.vc < y.vc:
			return -1
		case x.vc > y.vc:
			return 1
		}
		return 0
	})
	per := uint64(k.v.sector / ondisk.EntrySize)
	most := uint64(len(k.mapBuf)) / uint64(k.v.sector)
	for rest := b.changes; len(rest) > 0; {
		// A run of map sectors that follow each other is one write.
		first := rest[0].vc / per
		last, n := first, 1
		for n < len(rest) && rest[n].vc/per <= last+1 && rest[n].vc/per-first < most && k.h.together(first, rest[n].vc/per) {
			last = rest[n].vc / per
			n++
		}
		k.writeMapRun(first, last, rest[:n])
		rest = rest[n:]
	}
}

// writeMapRun writes the map sectors first to last with changes in them.
func (k *committer) writeMapRun(first, last uint64, changes []mapChange) {
	err := k.writeMapSectors(first, last, changes)
	if err == nil {
		return
	}
	for _, c := range changes {
		if *c.err == nil {
			*c.err = err
		}
	}
	k.doubt(first, last, err)
}

// doubt notes that map sectors may hold something else than memory, since writing them
// failed. k.running is held.
func (k *committer) doubt(first, last uint64, err error) {
	for s := first; s <= last; s++ {
		k.degrade.add(int64(s))
	}
	k.h.ill.degrade(err)
	k.v.log.Error("allocation map not written: no chunk is allocated until it can be",
		"sectors", fmt.Sprintf("%d-%d", first, last), "error", err)
	k.v.emit(Event{Kind: EventDegraded, Err: err})
}

// writeMapSectors writes the sectors as published, with changes on top.
// What is assigned but not flushed is in neither.
func (k *committer) writeMapSectors(first, last uint64, changes []mapChange) error {
	v := k.v
	if err := k.h.refusal(deedWriteMap); err != nil {
		return err
	}
	per := uint64(v.sector / ondisk.EntrySize)
	buf := k.mapBuf[:int64(last-first+1)*v.sector]
	base := first * per
	for i := range (last - first + 1) * per {
		k.h.encodeEntry(buf[i*ondisk.EntrySize:], k.h.chunks.Load(base+i))
	}
	for _, c := range changes {
		k.h.encodeEntry(buf[(c.vc-base)*ondisk.EntrySize:], c.word)
	}
	home, at := k.h.home(int64(first))
	write := home.writeRaw
	if !k.h.isFirst() {
		write = home.writeAt
	}
	if err := write(buf, at); err != nil {
		return &mapWriteError{err}
	}
	if home.ledger.Load().wrote() {
		k.forgetUnflushed(home)
	}
	for s := first; s <= last; s++ {
		k.unflushed[int64(s)] = struct{}{}
	}
	v.stats.mapWrites.Add(1)
	return nil
}

// publish makes the new mappings visible, takes care of what failed, and
// unlocks the chunks of the map operations.
func (k *committer) publish() {
	v, b := k.v, &k.batch
	per := uint64(v.sector / ondisk.EntrySize)
	for i := range b.chunks {
		c := &b.chunks[i]
		switch {
		case c.copies:
			k.publishCopy(c, k.degrade.has(int64(c.vc/per)))
		case c.err == nil:
			k.h.chunks.Set(c.vc, c.to)
			k.h.allocated.Add(1)
		case k.degrade.has(int64(c.vc / per)):
			// The sector may or may not hold it: keep off the chunk.
			k.h.ill.keep()
			k.degrade.keep(c.to)
		default:
			v.alloc.Put(c.to)
		}
	}
	if len(b.chunks) > 0 {
		k.failChunks()
	}
	for _, g := range b.ops {
		for i := range g.ops {
			o := &g.ops[i]
			if g.err == nil {
				g.err = o.err
			}
			k.publishOp(o, o.begun && k.degrade.has(int64(o.vc/per)))
		}
		close(g.done)
	}
}

// publishCopy ends the making of a chunk that takes the place of another, which snapshots
// name. doubt: if it failed, its sector may hold either.
func (k *committer) publishCopy(c *newChunk, doubt bool) {
	v := k.v
	switch {
	case c.err == nil:
		for _, p := range c.pieces {
			if p.data {
				k.h.partial.written(c.vc, p.in, p.n)
			}
		}
		k.h.chunks.Unlock(c.vc, chunkmap.WordOf(c.to))
		if v.cfg.breaks(breakOwners) {
			k.release(c.vc, c.from)
		}
	case !doubt:
		k.h.chunks.Unlock(c.vc, chunkmap.WordOf(c.from))
		v.alloc.Put(c.to)
	default: // as of a move
		k.keepLocked(mapOp{vc: c.vc, old: c.from, new: c.to, set: true})
	}
}

// keepLocked keeps the chunk of a change locked of whose sector nobody knows which entry
// it holds. It can be read where it was.
func (k *committer) keepLocked(o mapOp) {
	if !k.letGo(o) {
		k.h.ill.keep()
		k.degrade.locked = append(k.degrade.locked, o)
		k.h.chunks.Show(o.vc, chunkmap.WordOf(o.old))
	}
}

// publishOp ends one map operation, whatever became of others in its group.
// doubt: its sector was not written for sure, and may hold the old or the new
// entry.
func (k *committer) publishOp(o *mapOp, doubt bool) {
	v := k.v
	switch {
	case o.err == nil && o.shared:
		k.h.chunks.UnlockMoved(o.vc, chunkmap.WordOf(o.new))
	case o.err == nil && o.set:
		k.h.chunks.Unlock(o.vc, chunkmap.WordOf(o.new))
		if !o.same {
			k.release(o.vc, o.old)
		}
	case o.err == nil:
		k.h.partial.forget(o.vc)
		k.h.allocated.Add(-1)
		k.h.chunks.Unlock(o.vc, 0)
		if !k.snapshotNames(o) {
			k.release(o.vc, o.old)
		}
	case !doubt:
		k.h.chunks.Unlock(o.vc, chunkmap.WordOf(o.old))
		if o.owns() {
			v.alloc.Put(o.new)
		}
	case o.set:
		// Writes acknowledged on either copy could come back as the other:
		// the chunk stays locked until its sector is known. Both copies are the
		// same until then, so it can be read.
		k.keepLocked(*o)
	default:
		k.h.partial.forget(o.vc)
		k.h.allocated.Add(-1)
		k.h.chunks.Unlock(o.vc, 0)
		k.h.ill.keep()
		if !k.snapshotNames(o) {
			k.degrade.keep(o.old)
		}
	}
}

// snapshotNames reports whether a snapshot names the chunk that o gives up.
func (k *committer) snapshotNames(o *mapOp) bool {
	return k.h.chunks.IsNamed(o.vc, chunkmap.WordOf(o.old)) && !k.v.cfg.breaks(breakOwners)
}

// forgetUnflushed notes that all map sectors on c, but for what is being written, are
// durable.
func (k *committer) forgetUnflushed(c *component) {
	if k.h.isFirst() {
		clear(k.unflushed)
		return
	}
	for s := range k.unflushed {
		if home, _ := k.h.home(s); home == c {
			delete(k.unflushed, s)
		}
	}
}

// unname lets the chunk go that virtual chunk vc had, and that no map in memory has any
// more, nor a snapshot in force: until it is durable that the sector of vc does not name it
// either, that may be what the disk has. k.running is held.
func (k *committer) unname(vc uint64, p alloc.Phys) {
	if k.degrade.has(int64(vc / uint64(k.v.sector/ondisk.EntrySize))) {
		k.h.ill.keep()
		k.degrade.keep(p)
		return
	}
	home := k.h.homeOf(vc)
	if k.v.cfg.breaks(breakHomeLedger) {
		home = k.v.component(0)
	}
	home.ledger.Load().free(p)
	// A flush that began after the map was written but before add does not
	// know of p: let there be another.
	home.markDirty()
}

// release is unname of what has just been unmapped.
func (k *committer) release(vc uint64, p alloc.Phys) {
	k.unname(vc, p)
	if k.freedAt.IsZero() && !k.v.cfg.serial {
		k.freedAt = time.Now()
	}
}
