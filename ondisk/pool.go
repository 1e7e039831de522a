package ondisk

import (
	"fmt"
	"slices"
)

// PoolComponent is what a directory and maps can name of a component.
type PoolComponent struct {
	Reserved uint32 // chunks at its start that hold the first volume's map
	Chunks   uint32 // usable ones, reserved ones included
}

// Pool is the geometry that a directory and its maps have to fit.
type Pool struct {
	ChunkSize  uint32                   // bytes
	SectorSize int                      // bytes
	Components map[uint64]PoolComponent // by member id
}

// has tells whether a chunk can be allocated at the place.
func (p Pool) has(at Place) bool {
	c, ok := p.Components[at.Member]
	return ok && at.Member != 0 && at.Chunk >= c.Reserved && at.Chunk < c.Chunks
}

// ValidateDirectory tells whether d, decoded from a chain in these places, can be
// a directory of the pool: nil, or ErrDirectory with the first reason against it.
// Checksums only prove that somebody wrote it; whoever acts on it asks here first.
func (p Pool) ValidateDirectory(d *Directory, chain []Place) error {
	for _, m := range d.Members {
		if _, ok := p.Components[m.ID]; !ok {
			return fmt.Errorf("%w: number %d is that of member %016x, which is no component", ErrDirectory, m.Number, m.ID)
		}
	}
	chunks := slices.Concat(d.Own, d.Other, d.Reserve)
	for _, a := range chunks {
		if !p.has(d.place(a)) {
			return fmt.Errorf("%w: chunk %d of member number %d does not exist", ErrDirectory, a.Chunk, a.Number)
		}
	}
	if len(chain) > len(d.Own) {
		return fmt.Errorf("%w: it lies in %d chunks and says %d", ErrDirectory, len(chain), len(d.Own))
	}
	for i, at := range chain {
		if d.place(d.Own[i]) != at {
			return fmt.Errorf("%w: chunk %d of it lies elsewhere than it says", ErrDirectory, i)
		}
	}
	return p.validateMaps(d, chunks)
}

// place is where the address is.
func (d *Directory) place(a Address) Place {
	id, _ := d.Member(a.Number)
	return Place{id, a.Chunk}
}

// validateMaps looks at the sizes of the maps and at where their lists begin.
func (p Pool) validateMaps(d *Directory, system []Address) error {
	used := make(map[Place]uint64, len(system)+len(d.Maps))
	for _, a := range system {
		used[d.place(a)] = 0
	}
	for _, m := range d.Maps[1:] {
		_, chunks := MapLength(m.Size, p.ChunkSize)
		switch by, twice := used[m.List.Place]; {
		case m.Size%uint64(p.SectorSize) != 0 || chunks > MaxReserved:
			return fmt.Errorf("%w: %v %d of %d bytes", ErrDirectory, m.Kind, m.ID, m.Size)
		case !p.has(m.List.Place) || m.List.check(p.ChunkSize) != nil:
			return fmt.Errorf("%w: the list of %v %d: %v", ErrDirectory, m.Kind, m.ID, m.List)
		case twice:
			return fmt.Errorf("%w: the list of %v %d lies where that of %d does, or the directory", ErrDirectory, m.Kind, m.ID, by)
		}
		used[m.List.Place] = m.ID
	}
	return nil
}

// ValidateMapList tells whether l can be the list of m, of directory d: nil, or
// ErrMapList with the first reason against it.
func (p Pool) ValidateMapList(d *Directory, m PoolMap, l *MapList) error {
	if _, chunks := MapLength(m.Size, p.ChunkSize); l.Map != m.ID || len(l.Chunks) != chunks {
		return fmt.Errorf("%w: %d chunks for map %d, which is %v %d of %d chunks", ErrMapList, len(l.Chunks), l.Map, m.Kind, m.ID, chunks)
	}
	for i, c := range l.Chunks {
		switch {
		case !c.Hole && !p.has(d.place(c.Address)):
			return fmt.Errorf("%w: chunk %d of %v %d is chunk %d of member number %d, which does not exist", ErrMapList, i, m.Kind, m.ID, c.Chunk, c.Number)
		case m.Kind == KindVolume && (c.Hole || c.Sum != 0):
			return fmt.Errorf("%w: chunk %d of volume %d is missing or has a checksum", ErrMapList, i, m.ID)
		}
	}
	return nil
}

// ValidateEntry tells whether e can be an entry of a map other than the first
// volume's: nil, or ErrMapList. An entry that is not allocated is all zeros.
func (p Pool) ValidateEntry(d *Directory, e Entry) error {
	if e == (Entry{}) || e.Flags == FlagAllocated && p.has(d.place(Address{e.Component, e.Chunk})) {
		return nil
	}
	return fmt.Errorf("%w: entry with flags %#x, member number %d, chunk %d", ErrMapList, e.Flags, e.Component, e.Chunk)
}
