package virstor

import (
	"fmt"
	"slices"

	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/chunkmap"
	"github.com/gvirstor/gvirstor/ondisk"
)

// relocation moves chunks that snapshots name, and chunks of maps and of the directory, by one
// record. Nobody changes the first while a snapshot names them, so no intent is needed:
// copies, flush; new copies of the parts that name them of the maps of snapshots and of
// further volumes, flush; directory and record; then the sectors of the first volume's map;
// and when these are durable, and who read a snapshot has done so, the old places are free.
// After a crash on the way the first volume and others have chunks twice that they had in
// common. It alone: what two volumes have in common a snapshot has, too, and whoever of them
// kept the old place without it would overwrite the other's.
//
// The map of a further volume does not change while parts of it are written elsewhere: its
// committer is paused. What memory says is all written then, so that a volume one of whose
// sectors is in doubt, since where it lies takes no writes, is not degraded any more.
type relocation struct {
	v      *Volume
	moves  []move                // copied
	off    func(alloc.Phys) bool // places that nothing new gets
	system bool                  // chunks of maps and of the directory leave those, too
	all    bool                  // of them all that there are, not a part by each record
	held   []*Head               // further volumes whose maps change; their committers are paused
}

// relocatedMaps are maps that are stored anew.
type relocatedMaps struct {
	snaps map[int]*plannedMap // by the number of the snapshot
	heads map[*Head]*plannedMap
}

func (m *relocatedMaps) none() bool { return len(m.snaps)+len(m.heads) == 0 }

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
	defer r.holdLocked()()
	d := v.nextDirectory(false)
	d.moves = &r
	maps, err := r.storeLocked(d)
	if err == nil {
		return r.followLocked(d, maps)
	}
	if v.pool.doubt == nil {
		v.alloc.PutAll(d.taken)
		v.alloc.PutAll(r.places())
	} else if !v.cfg.breaks(breakPartInDoubt) {
		r.freezeMaps()
	}
	return fmt.Errorf("move chunks of %s: %w", v.name, err)
}

// freezeMaps keeps the maps as they are of further volumes of which nobody knows where they will
// be read from at the next start: there and here they say the same now.
func (r *relocation) freezeMaps() {
	v := r.v
	for _, h := range r.held {
		err := h.ill.freeze(v.pool.doubt)
		v.log.Error("where the allocation map lies is not known until the next start: no chunk is allocated", "volume", h.Name(), "error", err)
		v.emit(Event{Kind: EventDegraded, Err: err})
	}
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

// holdLocked pauses the committers of those further volumes whose maps change, until release.
// A discard that has locked a chunk waits for one, so that there is none then. v.metaMu is
// held.
func (r *relocation) holdLocked() (release func()) {
	v := r.v
	if len(v.further()) == 0 || v.cfg.breaks(breakPartUnpaused) {
		return func() {}
	}
	v.moving.close()
	for _, h := range v.further() {
		h.committer.pause()
		if !r.changes(h) {
			h.committer.unpause()
			continue
		}
		r.held = append(r.held, h)
	}
	if r.held == nil {
		v.moving.open(v.resume)
		return func() {}
	}
	return func() {
		for _, h := range r.held {
			h.committer.unpause()
		}
		v.moving.open(v.resume)
	}
}

// changes reports whether the map of a further volume, whose committer is paused, changes or
// is written elsewhere.
func (r *relocation) changes(h *Head) bool {
	_, all := r.staysOf(h)
	return !all
}

// isNamed reports whether a snapshot of any volume names a chunk.
func (v *Volume) isNamed(m mapping) bool {
	for _, h := range v.heads() {
		if m.vc < h.count() && h.chunks.IsNamed(m.vc, chunkmap.WordOf(m.at)) {
			return true
		}
	}
	return false
}

// names reports whether the map in memory names a chunk.
func (h *Head) names(m mapping) bool {
	return m.vc < h.count() && h.chunks.Load(m.vc).Mapping() == chunkmap.WordOf(m.at)
}

// storeLocked writes what says where the chunks are, and puts it in force. v.metaMu is held.
func (r *relocation) storeLocked(d *nextDirectory) (maps *relocatedMaps, err error) {
	v := r.v
	if maps, err = r.planLocked(d); err != nil || maps.none() && !r.system {
		return maps, err
	}
	if err := v.storeInForceLocked(func() error { return v.storeMaps(maps) }, d, breakDirectoryFirst); err != nil {
		return nil, err
	}
	return maps, nil
}

// planLocked finds room for what says where the chunks are. v.metaMu is held.
func (r *relocation) planLocked(d *nextDirectory) (maps *relocatedMaps, err error) {
	v := r.v
	moved := make(map[alloc.Phys]alloc.Phys)
	for _, m := range r.moves {
		moved[m.at] = m.to
	}
	maps = &relocatedMaps{make(map[int]*plannedMap), make(map[*Head]*plannedMap)}
	for i, s := range v.pool.snaps {
		stays, all := r.stays(s)
		if all {
			continue
		}
		next := *s
		if maps.snaps[i], err = v.planMap(&next, d, stays, moved); err != nil {
			return nil, err
		}
		d.setList(next.ID, next.List)
	}
	for _, h := range r.held {
		stays, all := r.staysOf(h)
		if all {
			continue
		}
		if maps.heads[h], err = h.planLive(d, func(i int) bool { return !stays(i) }, moved); err != nil {
			return nil, err
		}
	}
	if maps.none() && !r.system {
		return maps, nil
	}
	return maps, v.planDirectory(d)
}

// storeMaps writes what is new of maps.
func (v *Volume) storeMaps(maps *relocatedMaps) error {
	for _, m := range maps.snaps {
		if err := v.storeMap(m); err != nil {
			return err
		}
	}
	for _, m := range maps.heads {
		if err := v.storeMap(m); err != nil {
			return err
		}
	}
	return nil
}

// stays says which parts of the map of s are as before; all: and its list is.
func (r *relocation) stays(s *snapshot) (stays func(i int) bool, all bool) {
	touched := r.touched(func(m mapping) bool { return m.vc < s.chunks(r.v) && s.frozen.Load(m.vc) == chunkmap.WordOf(m.at) })
	return r.staysWhere(touched, &s.stored, len(s.stored.parts))
}

// staysOf is stays of a further volume, whose committer is paused.
func (r *relocation) staysOf(h *Head) (stays func(i int) bool, all bool) {
	if r.v.cfg.breaks(breakLiveStays) && !r.system {
		return nil, true
	}
	touched := r.touched(h.names)
	if r.system || len(touched) > 0 { // else what is in doubt would stay locked
		for sector := range h.committer.degrade.sectors {
			touched[int(sector*r.v.sector/r.v.chunk)] = true
		}
	}
	most := livePartsAtOnce
	if r.all {
		most = len(h.stored().parts)
	}
	return r.staysWhere(touched, h.stored(), most)
}

// livePartsAtOnce is how many parts of the map of a further volume are written elsewhere by
// one record, at most: until it is in force the volume allocates nothing.
const livePartsAtOnce = 64

// touched are the parts of a map that have entries of what moves.
func (r *relocation) touched(names func(mapping) bool) map[int]bool {
	parts := make(map[int]bool)
	for _, m := range r.moves {
		if names(m.mapping) {
			parts[int(int64(m.vc)*ondisk.EntrySize/r.v.chunk)] = true
		}
	}
	return parts
}

// staysWhere is stays of a map that lies at, of which touched parts do not stay, nor up to
// most of those that are to leave where they are.
func (r *relocation) staysWhere(touched map[int]bool, at *storedMap, most int) (stays func(i int) bool, all bool) {
	all = len(touched) == 0
	if r.system {
		all = all && !slices.ContainsFunc(at.list, r.off)
		for i, p := range at.parts {
			if !p.hole && r.off(p.at) && (touched[i] || most > 0) {
				touched[i], all = true, false
				most--
			}
		}
	}
	return func(i int) bool { return !touched[i] }, all
}

// chunks is how many virtual chunks the snapshot has.
func (s *snapshot) chunks(v *Volume) uint64 {
	return (s.Size + uint64(v.chunk) - 1) / uint64(v.chunk)
}

// followLocked makes memory, and the first volume's map, agree with the record that is in
// force now, and frees the old places. v.metaMu is held.
func (r *relocation) followLocked(d *nextDirectory, maps *relocatedMaps) error {
	v := r.v
	gone := v.adoptMaps(d, maps)
	for _, h := range r.held {
		h.follow(r.moves, maps.heads[h])
	}
	stay, err := r.followInMap()
	if !v.cfg.breaks(breakMovedEarly) {
		r.freeOld(stay)
	}
	v.freeUnshared(gone)
	if r.system {
		v.freeForsaken()
	}
	v.freeSoon()
	return err
}

// adoptMaps makes memory agree with d, which is in force, and maps, and returns the chunks
// that the maps and the directory do not have any more, and some that they have. v.metaMu
// is held.
func (v *Volume) adoptMaps(d *nextDirectory, maps *relocatedMaps) (gone []alloc.Phys) {
	gone = d.gone
	for i, m := range maps.snaps {
		s := v.pool.snaps[i]
		gone = append(gone, s.stored.chunks()...)
		next, _ := d.Map(s.ID)
		s.List, s.stored = next.List, m.at
	}
	for h, m := range maps.heads {
		gone = append(gone, h.stored().chunks()...)
		h.lies.Store(&m.at)
	}
	if d.link.Exists() {
		v.setDirectory(&d.Directory)
	}
	return gone
}

// follow makes the map in memory of a further volume, whose committer is paused, name the new
// places of what has moved, as what was stored of it does, which is in force. What was in
// doubt is not any more.
func (h *Head) follow(moves []move, stored *plannedMap) {
	k := h.committer
	if stored == nil {
		return
	}
	per := h.v.chunk / h.v.sector
	for _, i := range stored.write {
		for s := int64(i) * per; s < int64(i+1)*per; s++ {
			delete(k.unflushed, s)
			delete(k.degrade.sectors, s)
		}
	}
	if !k.degrade.is() && h.ill.is(stateDegraded) {
		k.settleDoubt()
	}
	for _, m := range moves {
		if !h.names(m.mapping) {
			continue
		}
		if _, ok := h.chunks.Lock(m.vc); ok { // when who reads it has done so
			h.chunks.UnlockMoved(m.vc, chunkmap.WordOf(m.to))
		}
	}
}

// freeForsaken frees what waits until a component says by a flush that it is free, which it
// cannot do any more, where no map lies on it: all that a map named there is in force
// elsewhere. v.metaMu is held.
func (v *Volume) freeForsaken() {
	for _, c := range v.components()[1:] {
		l := c.ledger.Load()
		if l == nil || c.failedFlush() == nil || slices.ContainsFunc(v.further(), func(h *Head) bool { return h.liesOn(c) }) {
			continue
		}
		for _, p := range l.abandon() {
			v.ledger().free(p)
		}
	}
}

// freeOld frees the places that the moves leave, but for those that stay.
func (r *relocation) freeOld(stay map[alloc.Phys]bool) {
	for _, m := range r.moves {
		if !stay[m.at] {
			r.v.ledger().free(m.at)
		}
	}
}

// followInMap lets the first volume's map name the new places, where it named the old ones,
// and the snapshots in memory. stay are the old places that it may still name, after an error.
func (r *relocation) followInMap() (stay map[alloc.Phys]bool, err error) {
	v := r.v
	stay = make(map[alloc.Phys]bool)
	var ops []mapOp
	for _, m := range r.moves {
		if !v.names(m.mapping) {
			continue // others alone name it; the volume's may be another of these
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
	r.followInFrozen()
	v.drainViews()
	return stay, err
}

// followInFrozen lets the snapshots in memory name the new places.
func (r *relocation) followInFrozen() {
	for _, h := range r.v.heads() {
		held := slices.Contains(r.held, h)
		if !held {
			h.committer.pause()
		}
		for _, m := range r.moves {
			h.chunks.MoveFrozen(m.vc, chunkmap.WordOf(m.at), chunkmap.WordOf(m.to))
		}
		if !held {
			h.committer.unpause()
		}
	}
}

// drainViews returns when whoever was reading a snapshot has done so. Who begins now finds
// chunks where they are now.
func (v *Volume) drainViews() {
	v.viewing.close()
	v.viewing.open(v.resume)
}

// systemChunks are those of the directory, of its other copy and reserve, and of the maps
// of snapshots and further volumes, each once.
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
	for _, h := range v.further() {
		ps = append(ps, h.stored().chunks()...)
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

// renameSystem lets what is known of the maps of snapshots and further volumes, and of what is
// about to be free, name component from by the index to. v.metaMu is held and the committers
// are paused.
func (v *Volume) renameSystem(from, to uint16) {
	rename := func(p *alloc.Phys) {
		if p.Comp == from {
			p.Comp = to
		}
	}
	for _, s := range v.pool.snaps {
		s.stored.each(rename)
	}
	for _, h := range v.further() {
		m := h.stored().clone()
		m.each(rename)
		h.lies.Store(m)
	}
	for _, c := range v.components() {
		if l := c.ledger.Load(); l != nil {
			l.each(rename)
		}
	}
}
