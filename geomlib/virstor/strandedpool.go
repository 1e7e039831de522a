package virstor

import (
	"fmt"
	"slices"

	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/chunkmap"
	"github.com/gvirstor/gvirstor/ondisk"
)

// departing is what snapshots and further volumes have to do with the leaving of a component 0 that takes no
// writes: a directory that names nothing on it is in force with the heir's record, and
// until then the one that component 0's record names, whose chunks stay as they are.
type departing struct {
	alone []move // copies of chunks that the first volume does not name
	dir   *nextDirectory
	moved *relocation // all that move
	maps  *relocatedMaps
}

// on reports whether a place is on component 0.
func (d *departure) on(p alloc.Phys) bool { return p.Comp == d.gone.index() }

// storePoolLocked writes the directory, and the maps that it names. v.metaMu is held and the
// committers are paused.
func (d *departure) storePoolLocked() error {
	v := d.v
	if v.pool.doubt != nil {
		return v.pool.doubt
	}
	if v.pool.dir == nil {
		return nil
	}
	if d.heir.member == 0 {
		d.heir.member = v.draw()
	}
	r := &relocation{v: v, moves: slices.Clone(d.pool.alone), off: d.on, system: true, all: true, held: v.further()}
	for vc, to := range d.moves {
		r.moves = append(r.moves, move{mapping{vc, v.chunks.Load(vc).Phys()}, to})
	}
	next := v.nextDirectory(false)
	next.moves = r
	next.Members = slices.DeleteFunc(next.Members, func(m ondisk.NumberedMember) bool { return m.ID == d.gone.member })
	d.pool.dir, d.pool.moved = next, r
	for i, p := range next.other { // it is not in force any more then
		if !d.on(p) {
			continue
		}
		to, err := v.take(next, 1)
		if err != nil {
			return err
		}
		next.other[i] = to[0]
	}
	var err error
	if d.pool.maps, err = r.planLocked(next); err == nil {
		err = v.storeMaps(d.pool.maps)
	}
	if err == nil {
		err = v.storeChain(next.chunks, next.own)
	}
	if err != nil {
		return fmt.Errorf("write the directory of the volumes and snapshots of %s: %w", v.name, err)
	}
	return nil
}

// rememberPool makes memory agree with the directory that is in force, and frees what it
// does not name. v.metaMu is held and the committers are paused.
func (d *departure) rememberPool() {
	v, p := d.v, d.pool
	if p.dir == nil {
		return
	}
	gone := v.adoptMaps(p.dir, p.maps)
	for _, h := range p.moved.held {
		h.follow(p.moved.moves, p.maps.heads[h])
	}
	for _, h := range v.heads() {
		for _, m := range p.moved.moves {
			h.chunks.MoveFrozen(m.vc, chunkmap.WordOf(m.at), chunkmap.WordOf(m.to))
		}
	}
	named := v.mapChunksLocked()
	for _, at := range gone {
		if !named[at] && !d.on(at) {
			v.alloc.Put(at)
		}
	}
}

// undoPool gives back what was taken for snapshots. v.metaMu is held.
func (d *departure) undoPool() {
	for _, m := range d.pool.alone {
		d.v.alloc.Put(m.to)
	}
	if d.pool.dir != nil {
		d.v.alloc.PutAll(d.pool.dir.taken)
	}
}
