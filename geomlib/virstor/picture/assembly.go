package picture

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/mapio"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/poolio"
	"github.com/gvirstor/gvirstor/ondisk"
)

// drawing is a picture that is being made from what lies on components.
type drawing struct {
	ctx    context.Context
	a      *virstor.Assembly
	opt    Options
	p      *Picture
	fill   *filler
	used   [][]uint64 // by component, a bit for each chunk behind the reserved ones
	reader *poolio.Reader
	dir    *ondisk.Directory // nil without further volumes and snapshots
}

func (d *drawing) draw() error {
	zero := d.a.Members[0]
	m := zero.Metadata
	if err := m.Validate(zero.Provider.MediaSize(), zero.Provider.SectorSize()); err != nil && !errors.Is(err, ondisk.ErrLastSector) {
		return fmt.Errorf("metadata of %s: %w", zero.Provider.Name(), err)
	}
	d.p = &Picture{Name: d.a.Name, ID: fmt.Sprintf("%08x", d.a.ID), VirtualSize: int64(m.VirtualSize), ChunkSize: int64(m.ChunkSize), VirtualChunks: m.Entries()}
	d.reader = poolio.New(m.ChunkSize, zero.Provider.SectorSize())
	for _, c := range d.a.Members {
		usable := min(c.Metadata.ChunkCount, ondisk.UsableChunks(c.Provider.MediaSize(), c.Provider.SectorSize(), d.p.ChunkSize))
		first := uint32(c.Metadata.ChunkReserved)
		chunks := max(usable, first) - first
		d.p.addComponent(Component{Name: c.Provider.Name(), Size: c.Provider.MediaSize(), Chunks: uint64(chunks), Reserved: uint64(first)})
		d.used = append(d.used, make([]uint64, (uint64(chunks)+63)/64))
		d.reader.Add(c.Provider, c.Metadata)
	}
	drawn, err := d.pool(zero)
	if err != nil {
		return err
	}
	if d.fill, err = newFiller(d.p, d.opt.Cells); err != nil {
		return err
	}
	if err := d.volume(zero, drawn == nil); err != nil {
		return err
	}
	if err := d.further(drawn); err != nil {
		return err
	}
	d.fill.done()
	return nil
}

// pool reads the directory of further volumes and snapshots, if there is one, and gives which
// of them is to be drawn, if one is.
func (d *drawing) pool(zero virstor.Member) (drawn *ondisk.PoolMap, err error) {
	rec, _, err := virstor.Record(zero.Provider, zero.Metadata)
	if err != nil {
		return nil, err
	}
	if rec.Directory.Exists() {
		if d.dir, err = d.reader.Directory(d.ctx, rec.Directory); err != nil {
			return nil, fmt.Errorf("the directory of its snapshots: %w", err)
		}
		for _, a := range slices.Concat(d.dir.Own, d.dir.Other, d.dir.Reserve) {
			id, _ := d.dir.Member(a.Number)
			d.takePlace(ondisk.Place{Member: id, Chunk: a.Chunk})
		}
	}
	return d.chosen()
}

// chosen is the map that is to be drawn where that is not the first volume's, and nil where it
// is.
func (d *drawing) chosen() (*ondisk.PoolMap, error) {
	var drawn *ondisk.PoolMap
	id := uint64(ondisk.FirstMap)
	if d.opt.Volume != "" {
		if drawn = d.find(ondisk.KindVolume, 0, d.opt.Volume); drawn == nil {
			return nil, fmt.Errorf("%w: %s", ErrNoVolume, ondisk.Printable(d.opt.Volume))
		}
		id = drawn.ID
		d.p.Name += "/" + drawn.Name
	}
	if d.opt.Snapshot != "" {
		if drawn = d.find(ondisk.KindSnapshot, id, d.opt.Snapshot); drawn == nil {
			return nil, fmt.Errorf("%w: %s", ErrNoSnapshot, ondisk.Printable(d.opt.Snapshot))
		}
		d.p.Name += "@" + drawn.Name
	}
	if drawn != nil {
		d.p.VirtualSize = int64(drawn.Size)
		d.p.VirtualChunks = (drawn.Size + uint64(d.p.ChunkSize) - 1) / uint64(d.p.ChunkSize)
	}
	return drawn, nil
}

// find is a further map of that name, of a snapshot one of the volume of that id; or nil.
func (d *drawing) find(kind ondisk.MapKind, of uint64, name string) *ondisk.PoolMap {
	if d.dir == nil {
		return nil
	}
	for i := range d.dir.Maps[1:] {
		m := &d.dir.Maps[1+i]
		if m.Kind == kind && m.Name == name && (kind == ondisk.KindVolume || m.Origin == of) {
			return m
		}
	}
	return nil
}

// take makes a chunk a used one, if data can be on it.
func (d *drawing) take(component int, chunk uint32) {
	c := &d.p.Components[component]
	i := uint64(chunk) - c.Reserved // a reserved one is far beyond the others
	if i >= c.Chunks {
		return
	}
	if word, bit := &d.used[component][i/64], uint64(1)<<(i%64); *word&bit == 0 {
		*word |= bit
		c.Used++
	}
}

func (d *drawing) takePlace(at ondisk.Place) {
	if i := d.index(at.Member); i >= 0 {
		d.take(i, at.Chunk)
	}
}

// index is that of the component with a member id, -1 when there is none.
func (d *drawing) index(member uint64) int {
	return slices.IndexFunc(d.a.Members, func(m virstor.Member) bool { return m.Metadata.Member.ID == member })
}

// volume takes what the volume's map names, and draws it.
func (d *drawing) volume(zero virstor.Member, drawn bool) error {
	order := ondisk.OrderUnknown
	s := mapio.Scanner{Provider: zero.Provider, Size: zero.Metadata.MapBytes()}
	if d.opt.Progress != nil {
		s.Progress = func(done int64) { d.opt.Progress(done, s.Size) }
	}
	return s.Each(d.ctx, func(vc uint64, raw []byte) error {
		if order == ondisk.OrderUnknown {
			order = ondisk.DetectOrder(raw)
		}
		e := ondisk.DecodeEntry(raw, order)
		if !e.Allocated() || int(e.Component) >= len(d.p.Components) {
			return nil
		}
		if drawn {
			d.fill.add(vc, int(e.Component))
		}
		d.take(int(e.Component), e.Chunk)
		return nil
	})
}

// further takes what the maps of all further volumes and snapshots name and lie in, and draws
// one of them. One that is damaged is named, and cannot be drawn.
func (d *drawing) further(drawn *ondisk.PoolMap) error {
	if d.dir == nil {
		return nil
	}
	read := make(map[ondisk.Place]bool) // chunks of maps, which snapshots share
	for _, m := range d.dir.Maps[1:] {
		this := drawn != nil && drawn.ID == m.ID
		err := d.furtherMap(m, this, read)
		switch {
		case d.ctx.Err() != nil:
			return d.ctx.Err()
		case err != nil && this:
			return fmt.Errorf("%s is damaged: %w", d.dir.Title(m), err)
		case err != nil:
			d.p.Damaged = append(d.p.Damaged, d.dir.Title(m))
		}
	}
	return nil
}

func (d *drawing) furtherMap(m ondisk.PoolMap, drawn bool, read map[ondisk.Place]bool) error {
	at, err := d.reader.Map(d.ctx, d.dir, m)
	if err != nil {
		return err
	}
	for _, place := range at.Places {
		d.takePlace(place)
	}
	index := make(map[uint16]int)
	for _, n := range d.dir.Members {
		index[n.Number] = d.index(n.ID)
	}
	for i, c := range at.List.Chunks {
		if c.Hole || !drawn && read[at.Place(c)] {
			continue
		}
		d.takePlace(at.Place(c))
		if err := d.reader.Part(d.ctx, at, i, func(vc uint64, e ondisk.Entry) error {
			component, known := index[e.Component]
			if !e.Allocated() || !known || component < 0 {
				return nil
			}
			if drawn {
				d.fill.add(vc, component)
			}
			d.take(component, e.Chunk)
			return nil
		}); err != nil {
			return err
		}
		read[at.Place(c)] = true
	}
	return nil
}
