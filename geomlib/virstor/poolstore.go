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
	frees   bool         // it names less than that in force: it may take chunks from the reserve
	taken   []alloc.Phys // chunks that were taken for it and what is new in it

	own, other []alloc.Phys // chunks of its copy, and of that in force
	chunks     [][]byte     // what goes to own
	link       ondisk.Link
}

// nextDirectory is that in force, or one of the volume alone, to be changed; frees: it is to
// name less. v.metaMu is held.
func (v *Volume) nextDirectory(frees bool) *nextDirectory {
	d := &nextDirectory{numbers: v.numbersOf(v.pool.dir), frees: frees}
	d.NextMap = ondisk.FirstMap + 1
	d.Maps = []ondisk.PoolMap{{ID: ondisk.FirstMap, Kind: ondisk.KindVolume, Time: v.now()}}
	if old := v.pool.dir; old != nil {
		d.Sequence, d.NextMap, d.Maps, d.Reserve = old.Sequence, old.NextMap, slices.Clone(old.Maps), old.Reserve
		d.own, d.other = d.numbers.allPhys(old.Other), d.numbers.allPhys(old.Own)
	}
	d.Sequence++
	d.Members = d.numbers.members
	return d
}

// take takes n chunks for d, or none (ErrNoSpace). It waits for those that are about to be
// free.
func (v *Volume) take(d *nextDirectory, n int) ([]alloc.Phys, error) {
	grants, ok := v.alloc.Take(nil, n, false)
	if !ok && v.freed.pending() > 0 {
		if err := v.component(0).flush(); err != nil {
			return nil, err
		}
		v.freed.wait()
		grants, ok = v.alloc.Take(nil, n, false)
	}
	if !ok {
		return nil, fmt.Errorf("%d chunks for maps: %w", n, ErrNoSpace)
	}
	from := len(d.taken)
	for _, g := range grants {
		d.taken = append(d.taken, g.At)
	}
	return d.taken[from:len(d.taken):len(d.taken)], nil
}

// planDirectory finds room for d, and makes what is to be written.
func (v *Volume) planDirectory(d *nextDirectory) error {
	_, chunks := ondisk.MapLength(uint64(v.Size()), uint32(v.chunk))
	if missing := reserveChunks + chunks - len(d.Reserve); missing > 0 && !d.frees {
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

// takeForCopy takes n chunks for a copy of d: of the reserve if there are no others, and d
// names less than the directory in force.
func (v *Volume) takeForCopy(d *nextDirectory, n int) ([]alloc.Phys, error) {
	more, err := v.take(d, n)
	if left := len(d.Reserve) - n; errors.Is(err, ErrNoSpace) && d.frees && left >= 0 {
		more, err = d.numbers.allPhys(d.Reserve[left:]), nil
		d.Reserve = slices.Clip(d.Reserve[:left])
	}
	return more, err
}

// plannedMap is the map of a snapshot that is to be written.
type plannedMap struct {
	frozen *chunkmap.Frozen
	size   int64 // bytes of the map
	parts  []alloc.Phys
	holes  []bool // of the chunks of the map: nothing is allocated there

	list   [][]byte
	listAt []alloc.Phys

	numbers memberNumbers
}

// planMap finds room for the map of s and for its list, and notes in s where they are.
func (v *Volume) planMap(s *snapshot, d *nextDirectory) (*plannedMap, error) {
	size, n := ondisk.MapLength(s.Size, uint32(v.chunk))
	m := &plannedMap{frozen: s.frozen, size: int64(size), holes: make([]bool, n), numbers: d.numbers}
	sums := make([]uint64, n)
	full := 0
	for i := range sums {
		m.holes[i] = true
		_ = m.eachPiece(v, i, func(b []byte, any bool) error {
			m.holes[i] = m.holes[i] && !any
			sums[i] = ondisk.AddToSum(sums[i], b)
			return nil
		})
		if !m.holes[i] {
			full++
		}
	}
	var err error
	if m.parts, err = v.take(d, full); err != nil {
		return nil, err
	}
	list := ondisk.MapList{Map: s.ID}
	for i, rest := 0, m.parts; i < n; i++ {
		if m.holes[i] {
			list.Chunks = append(list.Chunks, ondisk.MapChunk{Hole: true})
			continue
		}
		list.Chunks = append(list.Chunks, ondisk.MapChunk{Address: d.numbers.address(rest[0]), Sum: sums[i]})
		rest = rest[1:]
	}
	contents, err := list.Encode()
	if err != nil {
		return nil, err
	}
	if m.listAt, err = v.take(d, ondisk.ChainLength(len(contents), uint32(v.chunk))); err != nil {
		return nil, err
	}
	s.system = slices.Concat(m.listAt, m.parts)
	s.List, m.list, err = ondisk.EncodeChain(ondisk.ChainMapList, contents, d.numbers.places(m.listAt), uint32(v.chunk))
	return m, err
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
		any := m.frozen.Page(uint64(at/pageBytes), &words)
		some = some || any
		for _, w := range words[:min(pageBytes, to-at)/ondisk.EntrySize] {
			var e ondisk.Entry
			if w.Allocated() {
				p := w.Phys()
				e = ondisk.Entry{Flags: ondisk.FlagAllocated, Component: m.numbers.number[p.Comp], Chunk: p.Chunk}
			}
			buf = buf[:len(buf)+ondisk.EntrySize]
			e.Encode(buf[len(buf)-ondisk.EntrySize:], ondisk.LittleEndian)
		}
		if len(buf) == cap(buf) || at+pageBytes >= to {
			if err := do(buf, some); err != nil {
				return err
			}
			buf, some = buf[:0], false
		}
	}
	return nil
}

// storeMap writes a map and its list, and flushes them.
func (v *Volume) storeMap(m *plannedMap) error {
	rest := m.parts
	for i, hole := range m.holes {
		if hole {
			continue
		}
		at := int64(0)
		err := m.eachPiece(v, i, func(b []byte, _ bool) error {
			err := v.writeSystem(rest[0], at, b)
			at += int64(len(b))
			return err
		})
		if err != nil {
			return err
		}
		rest = rest[1:]
	}
	if err := v.flushOf(m.parts); err != nil {
		return err
	}
	return v.storeChain(m.list, m.listAt)
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
