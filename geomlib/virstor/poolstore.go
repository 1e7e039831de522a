package virstor

import (
	"errors"
	"fmt"
	"slices"

	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/chunkmap"
	"github.com/gvirstor/gvirstor/ondisk"
)

// reserveChunks are kept back beside as many as a map takes, for what has to be done when
// the pool is full.
const reserveChunks = 8

// nextDirectory is a directory that is to come into force, in the copy that is not.
type nextDirectory struct {
	ondisk.Directory
	numbers memberNumbers
	frees   bool         // it names no more than that in force: it may take chunks from the reserve
	taken   []alloc.Phys // chunks that were taken for it and what is new in it
	gone    []alloc.Phys // chunks of the pool itself that it does not name any more
	moves   *relocation  // it says where chunks are now: it may take what writes leave, and of the reserve; or nil

	own, other []alloc.Phys // chunks of its copy, and of that in force
	chunks     [][]byte     // what goes to own
	link       ondisk.Link
}

// nextDirectory is that in force, or one of the volume alone, to be changed; frees: it is to
// name no more. v.metaMu is held.
func (v *Volume) nextDirectory(frees bool) *nextDirectory {
	d := &nextDirectory{numbers: v.numbersOf(v.pool.dir), frees: frees}
	// Neither is below those of a pool that was there before: each of its directories, and
	// each map when it was deleted, took a record.
	d.Sequence = v.meta.ext.rec.Sequence
	d.NextMap = ondisk.FirstMap + 1 + d.Sequence
	d.Maps = []ondisk.PoolMap{{ID: ondisk.FirstMap, Kind: ondisk.KindVolume, Time: v.now()}}
	if old := v.pool.dir; old != nil {
		d.Sequence, d.NextMap, d.Maps, d.Reserve = old.Sequence, old.NextMap, slices.Clone(old.Maps), old.Reserve
		d.own, d.other = d.numbers.allPhys(old.Other), d.numbers.allPhys(old.Own)
	}
	d.Sequence++
	d.Members = d.numbers.members
	return d
}

// edit changes what d says of the map of that id.
func (d *nextDirectory) edit(id uint64, change func(*ondisk.PoolMap)) {
	for i := range d.Maps {
		if d.Maps[i].ID == id {
			change(&d.Maps[i])
		}
	}
}

// setList says where the list of a map begins.
func (d *nextDirectory) setList(id uint64, list ondisk.Link) {
	d.edit(id, func(m *ondisk.PoolMap) { m.List = list })
}

// setSize says how large a further volume is, in bytes.
func (d *nextDirectory) setSize(id, size uint64) {
	d.edit(id, func(m *ondisk.PoolMap) { m.Size = size })
}

// take takes n chunks for d, or none (ErrNoSpace). It waits for those that are about to be
// free.
func (v *Volume) take(d *nextDirectory, n int) ([]alloc.Phys, error) {
	all := d.moves != nil
	grants, ok := v.alloc.Take(nil, n, all)
	if !ok && v.freed.pending() > 0 && !v.cond.is(stateStranded) { // which frees nothing
		if _, err := v.flushFreed(); err != nil {
			return nil, err
		}
		v.freed.wait()
		grants, ok = v.alloc.Take(nil, n, all)
	}
	switch {
	case ok:
	case all && n > 1: // some here, some there
		return v.takeEach(d, n)
	case all, d.frees:
		return d.fromReserve(n)
	default:
		return nil, fmt.Errorf("%d chunks for maps: %w", n, ErrNoSpace)
	}
	from := len(d.taken)
	for _, g := range grants {
		d.taken = append(d.taken, g.At)
	}
	return d.taken[from:len(d.taken):len(d.taken)], nil
}

// takeEach is take of one chunk after the other.
func (v *Volume) takeEach(d *nextDirectory, n int) (taken []alloc.Phys, err error) {
	for range n {
		one, err := v.take(d, 1)
		if err != nil {
			return nil, err
		}
		taken = append(taken, one...)
	}
	return taken, nil
}

// planDirectory finds room for d, and makes what is to be written.
func (v *Volume) planDirectory(d *nextDirectory) error {
	_, chunks := ondisk.MapLength(d.largest(v), uint32(v.chunk))
	if err := v.clearDirectory(d); err != nil {
		return err
	}
	if missing := reserveChunks + chunks - len(d.Reserve); missing > 0 && !d.frees && d.moves == nil {
		more, err := v.take(d, missing)
		if err != nil {
			return err
		}
		d.Reserve = slices.Concat(d.Reserve, d.numbers.addresses(more))
	}
	for {
		d.Own, d.Other = d.numbers.addresses(d.own), d.numbers.addresses(d.other)
		contents, err := d.Encode()
		if err != nil {
			return err
		}
		need := ondisk.ChainLength(len(contents), uint32(v.chunk))
		if len(d.own) >= need && len(d.other) >= need {
			d.link, d.chunks, err = ondisk.EncodeChain(ondisk.ChainDirectory, contents, d.numbers.places(d.own), uint32(v.chunk))
			return err
		}
		for _, copy := range []*[]alloc.Phys{&d.own, &d.other} {
			more, err := v.takeForCopy(d, max(0, need-len(*copy)))
			if err != nil {
				return err
			}
			*copy = append(*copy, more...)
		}
	}
}

// clearDirectory lets d have other chunks where those that it has cannot be written, or are
// to leave. What holds the directory in force leaves with the next one. Where there is no
// room the reserve gets smaller.
func (v *Volume) clearDirectory(d *nextDirectory) error {
	for i, p := range d.own {
		if !v.component(p.Comp).refused.Load() && (d.moves == nil || !d.moves.off(p)) {
			continue
		}
		to, err := v.takeForCopy(d, 1)
		if err != nil {
			return err
		}
		d.own[i], d.gone = to[0], append(d.gone, p)
	}
	if d.moves == nil || !d.moves.system {
		return nil
	}
	var kept []ondisk.Address
	for _, a := range d.Reserve {
		p := d.numbers.phys(a)
		if !d.moves.off(p) {
			kept = append(kept, a)
			continue
		}
		d.gone = append(d.gone, p)
		if to, ok := v.alloc.Take(nil, 1, true); ok {
			d.taken = append(d.taken, to[0].At)
			kept = append(kept, d.numbers.address(to[0].At))
		}
	}
	d.Reserve = kept
	return nil
}

// takeForCopy takes n chunks for a copy of d: of the reserve if there are no others, and d
// names less than the directory in force.
func (v *Volume) takeForCopy(d *nextDirectory, n int) ([]alloc.Phys, error) {
	more, err := v.take(d, n)
	if errors.Is(err, ErrNoSpace) && d.frees {
		return d.fromReserve(n)
	}
	return more, err
}

// fromReserve takes the last n chunks of the reserve, but for those that are to leave where
// they are, or none (ErrNoSpace).
func (d *nextDirectory) fromReserve(n int) ([]alloc.Phys, error) {
	var taken []alloc.Phys
	left := slices.Clone(d.Reserve)
	for i := len(left) - 1; i >= 0 && len(taken) < n; i-- {
		if p := d.numbers.phys(left[i]); d.moves == nil || !d.moves.off(p) {
			taken, left = append(taken, p), slices.Delete(left, i, i+1)
		}
	}
	if len(taken) < n {
		return nil, fmt.Errorf("%d chunks for maps: %w", n, ErrNoSpace)
	}
	d.Reserve = left
	return taken, nil
}

// largest is how large the largest volume of the pool is, bytes.
func (d *nextDirectory) largest(v *Volume) uint64 {
	size := uint64(v.Size())
	for _, m := range d.Maps {
		if m.Kind == ondisk.KindVolume {
			size = max(size, m.Size)
		}
	}
	return size
}

// storeDirectoryLocked puts d in force, whose maps are stored. v.metaMu is held.
func (v *Volume) storeDirectoryLocked(d *nextDirectory) error {
	storeDirectory := func() error { return v.storeChain(d.chunks, d.own) }
	putInForce := func() error { return v.putInForceLocked(d.link) }
	steps := []func() error{storeDirectory, putInForce}
	if v.cfg.breaks(breakRecordFirst) {
		slices.Reverse(steps)
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// plannedMap is the map of a snapshot or of a further volume that is to be written, or parts
// of it.
type plannedMap struct {
	words mapWords
	size  int64                     // bytes of the map
	moved map[alloc.Phys]alloc.Phys // where chunks are that words have elsewhere
	at    storedMap
	write []int // the parts that are written
	list  [][]byte

	numbers memberNumbers
}

// mapWords are a chunkmap.Frozen, or a chunkmap.Map that nobody changes just now.
type mapWords interface {
	Page(page uint64, words *[chunkmap.PageEntries]chunkmap.Word) (any bool)
}

// planMap finds room for the map of s and for its list, and notes in s.List where that is.
// Those parts of a stored map stay where they are that stays chooses. moved says where
// chunks are that s has elsewhere.
func (v *Volume) planMap(s *snapshot, d *nextDirectory, stays func(i int) bool, moved map[alloc.Phys]alloc.Phys) (*plannedMap, error) {
	size, n := ondisk.MapLength(s.Size, uint32(v.chunk))
	m := &plannedMap{words: s.frozen, size: int64(size), moved: moved, numbers: d.numbers}
	m.at.parts = make([]mapPart, n)
	for i := range m.at.parts {
		p := &m.at.parts[i]
		if stays(i) {
			*p = s.stored.parts[i]
			continue
		}
		p.hole = true
		_ = m.eachPiece(v, i, func(b []byte, any bool) error {
			p.hole = p.hole && !any
			p.sum = ondisk.AddToSum(p.sum, b)
			return nil
		})
		if p.hole {
			p.sum = 0
		} else {
			m.write = append(m.write, i)
		}
	}
	var err error
	s.List, err = v.placeMap(s.ID, m, d)
	return m, err
}

// planLive is planMap of a further volume, whose committer is paused: the parts that write
// chooses get another place.
func (h *Head) planLive(d *nextDirectory, write func(i int) bool, moved map[alloc.Phys]alloc.Phys) (*plannedMap, error) {
	v := h.v
	size, _ := ondisk.MapLength(uint64(h.Size()), uint32(v.chunk))
	m := &plannedMap{words: h.chunks, size: int64(size), moved: moved, numbers: d.numbers}
	m.at.parts = slices.Clone(h.stored().parts)
	for i := range m.at.parts {
		if write(i) {
			m.write = append(m.write, i)
		}
	}
	list, err := v.placeMap(h.mapID, m, d)
	d.setList(h.mapID, list)
	return m, err
}

// planVolume finds room for the map of the further volume of that id, which has size bytes in d,
// for its list, and for d: the map is written whole, but for the parts of it that it had before.
// The last of those is written, too, where it was cut off: of its last sector the rest says that
// nothing is allocated. What the map says is for the caller to set.
func (v *Volume) planVolume(d *nextDirectory, id, size uint64, had []mapPart) (*plannedMap, error) {
	length, n := ondisk.MapLength(size, uint32(v.chunk))
	had = had[:min(n, len(had))]
	m := &plannedMap{size: int64(length), numbers: d.numbers}
	m.at.parts = append(slices.Clone(had), make([]mapPart, n-len(had))...)
	for i := max(0, len(had)-1); i < n; i++ {
		m.write = append(m.write, i)
	}
	list, err := v.placeMap(id, m, d)
	if err != nil {
		return nil, err
	}
	d.setList(id, list)
	d.setSize(id, size)
	return m, v.planDirectory(d)
}

// placeMap finds room for those parts of the map of that id that are written, and for its list,
// which begins at first.
func (v *Volume) placeMap(id uint64, m *plannedMap, d *nextDirectory) (first ondisk.Link, err error) {
	places, err := v.take(d, len(m.write))
	if err != nil {
		return first, err
	}
	for k, i := range m.write {
		m.at.parts[i].at = places[k]
	}
	list := ondisk.MapList{Map: id}
	for _, p := range m.at.parts {
		c := ondisk.MapChunk{Hole: p.hole, Sum: p.sum}
		if !p.hole {
			c.Address = d.numbers.address(p.at)
		}
		list.Chunks = append(list.Chunks, c)
	}
	contents, err := list.Encode()
	if err != nil {
		return first, err
	}
	if m.at.list, err = v.take(d, ondisk.ChainLength(len(contents), uint32(v.chunk))); err != nil {
		return first, err
	}
	first, m.list, err = ondisk.EncodeChain(ondisk.ChainMapList, contents, d.numbers.places(m.at.list), uint32(v.chunk))
	return first, err
}

// eachPiece calls do with chunk i of the map, in pieces as the disk has them. any: of a
// piece, that something is allocated in it.
func (m *plannedMap) eachPiece(v *Volume, i int, do func(b []byte, any bool) error) error {
	const pageBytes = chunkmap.PageEntries * ondisk.EntrySize
	from := int64(i) * v.chunk
	to := min(from+v.chunk, m.size)
	var words [chunkmap.PageEntries]chunkmap.Word
	buf := make([]byte, 0, 256<<10)
	some := false
	for at := from; at < to; at += pageBytes {
		any := m.words.Page(uint64(at/pageBytes), &words)
		some = some || any
		n := len(buf)
		buf = buf[:n+int(min(pageBytes, to-at))]
		m.encode(buf[n:], &words)
		if len(buf) == cap(buf) || at+pageBytes >= to {
			if err := do(buf, some); err != nil {
				return err
			}
			buf, some = buf[:0], false
		}
	}
	return nil
}

// encode makes entries of b of the first of words.
func (m *plannedMap) encode(b []byte, words *[chunkmap.PageEntries]chunkmap.Word) {
	for i := range len(b) / ondisk.EntrySize {
		var e ondisk.Entry
		if w := words[i]; w.Allocated() {
			p := w.Phys()
			if len(m.moved) > 0 { // looking up in none takes half of the time
				if to, ok := m.moved[p]; ok {
					p = to
				}
			}
			e = ondisk.Entry{Flags: ondisk.FlagAllocated, Component: m.numbers.number[p.Comp], Chunk: p.Chunk}
		}
		e.Encode(b[i*ondisk.EntrySize:], ondisk.LittleEndian)
	}
}

// storeMap writes what is new of a map, and its list, and flushes them.
func (v *Volume) storeMap(m *plannedMap) error {
	var written []alloc.Phys
	for _, i := range m.write {
		written = append(written, m.at.parts[i].at)
		if err := v.storePart(m, i); err != nil {
			return err
		}
	}
	if err := v.flushOf(written); err != nil {
		return err
	}
	return v.storeChain(m.list, m.at.list)
}

// storePart writes one chunk of a map.
func (v *Volume) storePart(m *plannedMap, i int) error {
	at := int64(0)
	return m.eachPiece(v, i, func(b []byte, _ bool) error {
		err := v.writeSystem(m.at.parts[i].at, at, b)
		at += int64(len(b))
		return err
	})
}

// storeChain writes a chain to its chunks, and flushes it.
func (v *Volume) storeChain(chunks [][]byte, at []alloc.Phys) error {
	for i, b := range chunks {
		if err := v.writeSystem(at[i], 0, b); err != nil {
			return err
		}
	}
	return v.flushOf(at[:len(chunks)])
}

// writeSystem writes b to a system chunk from byte in on, and zeros to the end of its
// last sector.
func (v *Volume) writeSystem(p alloc.Phys, in int64, b []byte) error {
	c := v.component(p.Comp)
	if rest := int64(len(b)) % v.sector; rest != 0 {
		b = append(slices.Clip(b), make([]byte, v.sector-rest)...)
	}
	return c.writeAt(b, c.offset(p.Chunk)+in)
}

// flushOf flushes the components of chunks.
func (v *Volume) flushOf(chunks []alloc.Phys) error {
	var comps []*component
	for _, p := range chunks {
		if c := v.component(p.Comp); !slices.Contains(comps, c) {
			comps = append(comps, c)
		}
	}
	return v.flushComponents(comps)
}
