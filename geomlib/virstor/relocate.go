package virstor

import (
	"fmt"
	"slices"

	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/chunkmap"
	"github.com/gvirstor/gvirstor/ondisk"
)

// relocation moves chunks that snapshots name, and chunks of their maps and of the
// directory, by one record. Nobody changes the first while a snapshot names them, so no
// intent is needed: copies, flush; new copies of the parts of snapshots' maps that name
// them, flush; directory and record; then the sectors of the volume's map; and when these
// are durable, and who read a snapshot has done so, the old places are free. After a crash
// on the way the volume and snapshots have chunks twice that they had in common.
type relocation struct {
	v      *Volume
	moves  []move                // copied
	off    func(alloc.Phys) bool // places that nothing new gets
	system bool                  // chunks of maps and of the directory leave those, too
}

// move is a chunk that is copied to another place.
type move struct {
	mapping
	to alloc.Phys
}

// relocate does it. On failure the places that were taken for the moves are given back,
// but where they may be in use.
func (r relocation) relocate() error {
	v := r.v
	if !v.cfg.breaks(breakCopyFlush) {
		if err := v.flushOf(r.places()); err != nil {
			v.alloc.PutAll(r.places())
			return err
		}
	}
	v.metaMu.Lock()
	defer v.metaMu.Unlock()
	if err := r.mayLocked(); err != nil {
		v.alloc.PutAll(r.places())
		return fmt.Errorf("move chunks of %s: %w", v.name, err)
	}
	r.dropUnnamed()
	if v.cfg.breaks(breakMovedEarly) {
		r.freeOld(nil)
	}
	d := v.nextDirectory(false)
	d.moves = &r
	maps, err := r.storeLocked(d)
	if err == nil {
		return r.followLocked(d, maps)
	}
	if v.pool.doubt == nil {
		v.alloc.PutAll(d.taken)
		v.alloc.PutAll(r.places())
	}
	return fmt.Errorf("move chunks of %s: %w", v.name, err)
}

// places are where the moves go.
func (r *relocation) places() (ps []alloc.Phys) {
	for _, m := range r.moves {
		ps = append(ps, m.to)
	}
	return ps
}

// mayLocked refuses what cannot be done now; v.metaMu is held.
func (r *relocation) mayLocked() error {
	v := r.v
	if err := v.cond.refusal(deedAllocate); err != nil {
		return err
	}
	if err := v.mayChangePoolLocked(); err != nil {
		return err
	}
	return v.mapsKnown()
}

// dropUnnamed gives up the moves of chunks that no snapshot names any more: they may have
// changed as they were copied.
func (r *relocation) dropUnnamed() {
	v := r.v
	r.moves = slices.DeleteFunc(r.moves, func(m move) bool {
		gone := !v.isNamed(m.mapping)
		if gone {
			v.alloc.Put(m.to)
		}
		return gone
	})
}

// isNamed reports whether a snapshot names a chunk.
func (v *Volume) isNamed(m mapping) bool { return v.chunks.IsNamed(m.vc, chunkmap.WordOf(m.at)) }

// storeLocked writes what says where the chunks are, and puts it in force. maps are those
// that are stored anew, by the number of the snapshot. v.metaMu is held.
func (r *relocation) storeLocked(d *nextDirectory) (maps map[int]*plannedMap, err error) {
	v := r.v
	if maps, err = r.planLocked(d); err != nil || len(maps) == 0 && !r.system {
		return maps, err
	}
	storeMaps := func() error { return v.storeMaps(maps) }
	putInForce := func() error { return v.storeDirectoryLocked(d) }
	steps := []func() error{storeMaps, putInForce}
	if v.cfg.breaks(breakDirectoryFirst) {
		slices.Reverse(steps)
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return maps, nil
}

// planLocked finds room for what says where the chunks are. v.metaMu is held.
func (r *relocation) planLocked(d *nextDirectory) (maps map[int]*plannedMap, err error) {
	v := r.v
	moved := make(map[alloc.Phys]alloc.Phys)
	for _, m := range r.moves {
		moved[m.at] = m.to
	}
	maps = make(map[int]*plannedMap)
	for i, s := range v.pool.snaps {
		stays, all := r.stays(s)
		if all {
			continue
		}
		next := *s
		if maps[i], err = v.planMap(&next, d, stays, moved); err != nil {
			return nil, err
		}
		d.setList(next.ID, next.List)
	}
	if len(maps) == 0 && !r.system {
		return maps, nil
	}
	return maps, v.planDirectory(d)
}

// storeMaps writes what is new of maps.
func (v *Volume) storeMaps(maps map[int]*plannedMap) error {
	for _, m := range maps {
		if err := v.storeMap(m); err != nil {
			return err
		}
	}
	return nil
}

// stays says which parts of the map of s are as before; all: and its list is.
func (r *relocation) stays(s *snapshot) (stays func(i int) bool, all bool) {
	touched := make(map[int]bool)
	for _, m := range r.moves {
		if at := int64(m.vc) * ondisk.EntrySize; m.vc < s.chunks(r.v) && s.frozen.Load(m.vc) == chunkmap.WordOf(m.at) {
			touched[int(at/r.v.chunk)] = true
		}
	}
	all = len(touched) == 0
	if r.system {
		all = all && !slices.ContainsFunc(s.stored.list, r.off)
		for i, p := range s.stored.parts {
			if !p.hole && r.off(p.at) {
				touched[i], all = true, false
			}
		}
	}
	return func(i int) bool { return !touched[i] }, all
}

// chunks is how many virtual chunks the snapshot has.
func (s *snapshot) chunks(v *Volume) uint64 {
	return (s.Size + uint64(v.chunk) - 1) / uint64(v.chunk)
}

// followLocked makes memory, and the volume's map, agree with the record that is in force
// now, and frees the old places. v.metaMu is held.
func (r *relocation) followLocked(d *nextDirectory, maps map[int]*plannedMap) error {
	v := r.v
	gone := v.adoptMaps(d, maps)
	stay, err := r.followInMap()
	if !v.cfg.breaks(breakMovedEarly) {
		r.freeOld(stay)
	}
	v.freeUnshared(gone)
	v.freeSoon()
	return err
}

// adoptMaps makes memory agree with d, which is in force, and maps, and returns the chunks
// that the maps and the directory do not have any more, and some that they have. v.metaMu
// is held.
func (v *Volume) adoptMaps(d *nextDirectory, maps map[int]*plannedMap) (gone []alloc.Phys) {
	gone = d.gone
	for i, m := range maps {
		s := v.pool.snaps[i]
		gone = append(gone, s.stored.chunks()...)
		next, _ := d.Map(s.ID)
		s.List, s.stored = next.List, m.at
	}
	if d.link.Exists() {
		v.setDirectory(&d.Directory)
	}
	return gone
}

// freeOld frees the places that the moves leave, but for those that stay.
func (r *relocation) freeOld(stay map[alloc.Phys]bool) {
	for _, m := range r.moves {
		if !stay[m.at] {
			r.v.ledger().free(m.at)
		}
	}
}

// followInMap lets the volume's map name the new places, where it named the old ones, and
// the snapshots in memory. stay are the old places that it may still name, after an error.
func (r *relocation) followInMap() (stay map[alloc.Phys]bool, err error) {
	v := r.v
	stay = make(map[alloc.Phys]bool)
	var ops []mapOp
	for _, m := range r.moves {
		if v.chunks.Load(m.vc).Mapping() != chunkmap.WordOf(m.at) {
			continue // snapshots alone name it; the volume's may be another of these
		}
		ph, ok := v.chunks.Lock(m.vc)
		switch {
		case !ok:
		case ph != m.at: // written since: the volume has another chunk
			v.chunks.Unlock(m.vc, chunkmap.WordOf(ph))
		default:
			ops = append(ops, mapOp{vc: m.vc, old: m.at, new: m.to, set: true, shared: true})
		}
	}
	if len(ops) > 0 {
		err = v.committer.commit(ops)
	}
	for _, o := range ops {
		if o.err != nil {
			stay[o.old] = true
		}
	}
	v.committer.pause()
	for _, m := range r.moves {
		v.chunks.MoveFrozen(m.vc, chunkmap.WordOf(m.at), chunkmap.WordOf(m.to))
	}
	v.committer.unpause()
	v.drainViews()
	return stay, err
}

// drainViews returns when whoever was reading a snapshot has done so. Who begins now finds
// chunks where they are now.
func (v *Volume) drainViews() {
	v.viewing.close()
	v.viewing.open(v.resume)
}

// systemChunks are those of the directory, of its other copy and reserve, and of the maps
// of snapshots, each once.
func (v *Volume) systemChunks() []alloc.Phys {
	v.metaMu.Lock()
	defer v.metaMu.Unlock()
	d := v.pool.dir
	if d == nil {
		return nil
	}
	ps := v.numbersOf(d).allPhys(slices.Concat(d.Own, d.Other, d.Reserve))
	for _, s := range v.pool.snaps {
		ps = append(ps, s.stored.chunks()...)
	}
	slices.SortFunc(ps, alloc.Phys.Compare)
	return slices.Compact(ps)
}

// disownLocked takes the number of a component, on which no map has a chunk, out of the
// directory: one that names who is no member is refused. v.metaMu is held.
func (v *Volume) disownLocked(c *component) error {
	named := func(m ondisk.NumberedMember) bool { return m.ID == c.member }
	if d := v.pool.dir; d == nil || !slices.ContainsFunc(d.Members, named) || v.cfg.breaks(breakLeaverNumbered) {
		return nil
	}
	if v.pool.doubt != nil {
		return v.pool.doubt
	}
	d := v.nextDirectory(true)
	d.Members = slices.DeleteFunc(d.Members, named)
	err := v.planDirectory(d)
	if err == nil {
		err = v.storeDirectoryLocked(d)
	}
	if err == nil {
		v.setDirectory(&d.Directory)
		v.freeUnshared(d.gone)
		v.freeSoon()
	} else if v.pool.doubt == nil {
		v.alloc.PutAll(d.taken)
	}
	return err
}

// renameSystem lets what is known of the maps of snapshots name component from by the
// index to. v.metaMu is held.
func (v *Volume) renameSystem(from, to uint16) {
	rename := func(p *alloc.Phys) {
		if p.Comp == from {
			p.Comp = to
		}
	}
	for _, s := range v.pool.snaps {
		for i := range s.stored.list {
			rename(&s.stored.list[i])
		}
		for i := range s.stored.parts {
			rename(&s.stored.parts[i].at)
		}
	}
}
