package backup

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/poolio"
	"github.com/gvirstor/gvirstor/ondisk"
)

// Pool is what a volume that has snapshots has beside its map.
type Pool struct {
	Directory *ondisk.Directory
	Maps      []Map  // of all but the first of Directory.Maps, in their order
	Parts     []Part // what the maps lie in; many share one
}

// Map is where the map of a snapshot lies.
type Map struct {
	Places []ondisk.Place // of the list
	List   *ondisk.MapList
}

// Part is a chunk that holds a part of a map.
type Part struct {
	ondisk.Address
	Runs []Run // by virtual chunk
}

// Snapshots are the names of the snapshots that b keeps, the oldest first.
func (b *Backup) Snapshots() []string {
	var names []string
	if b.Pool != nil {
		for _, m := range b.Pool.Directory.Maps[1:] {
			names = append(names, m.Name)
		}
	}
	return names
}

// poolReader collects a Pool.
type poolReader struct {
	*poolio.Reader
	b    *Backup
	dir  *ondisk.Directory
	pool *Pool
	has  map[ondisk.Address]bool // of pool.Parts
}

// readPool reads the directory that a record names, and the maps of its snapshots. Those
// that are damaged are left out, and named.
func (b *Backup) readPool(ctx context.Context, providers []geomlib.Provider, first ondisk.Link) error {
	r := &poolReader{b: b, pool: new(Pool), has: make(map[ondisk.Address]bool),
		Reader: poolio.New(b.Components[0].Metadata.ChunkSize, b.Components[0].SectorSize)}
	for i, c := range b.Components {
		r.Add(providers[i], c.Metadata)
	}
	var err error
	if r.dir, err = r.Directory(ctx, first); err != nil {
		return fmt.Errorf("the directory of its snapshots: %w", err)
	}
	for _, m := range r.dir.Maps[1:] {
		if m.Kind == ondisk.KindVolume { // a restore would give its chunks up
			return fmt.Errorf("%w (%s)", ErrFurther, m.Name)
		}
	}
	kept := *r.dir
	kept.Maps = slices.Clone(r.dir.Maps[:1])
	for _, m := range r.dir.Maps[1:] {
		err := r.add(ctx, m)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			b.LeftOut = append(b.LeftOut, m.Name)
		default:
			kept.Maps = append(kept.Maps, m)
		}
	}
	if len(kept.Maps) > 1 {
		r.pool.Directory, b.Pool = &kept, r.pool
	}
	return nil
}

// add adds the map of a snapshot whole, or nothing of it.
func (r *poolReader) add(ctx context.Context, m ondisk.PoolMap) error {
	at, err := r.Map(ctx, r.dir, m)
	if err != nil {
		return err
	}
	var parts []Part
	for i, c := range at.List.Chunks {
		if c.Hole || r.has[c.Address] {
			continue
		}
		p := Part{Address: c.Address}
		if err := r.Part(ctx, at, i, func(vc uint64, e ondisk.Entry) error {
			index := r.b.indexOf(r.dir, e.Component)
			if e.Flags != ondisk.FlagAllocated || index < 0 || !r.b.hasChunk(index, e.Chunk) {
				return fmt.Errorf("map entry of virtual chunk %d holds flags %#x, member number %d, chunk %d", vc, e.Flags, e.Component, e.Chunk)
			}
			p.Runs = extend(p.Runs, vc, uint16(index), e.Chunk)
			return nil
		}); err != nil {
			return err
		}
		parts = append(parts, p)
	}
	for _, p := range parts {
		r.has[p.Address] = true
	}
	r.pool.Parts = append(r.pool.Parts, parts...)
	r.pool.Maps = append(r.pool.Maps, Map{at.Places, at.List})
	return nil
}

// indexOf is the index of the component that has a member number, -1 when none has.
func (b *Backup) indexOf(d *ondisk.Directory, number uint16) int {
	id, known := d.Member(number)
	if !known {
		return -1
	}
	return b.indexOfMember(id)
}

func (b *Backup) indexOfMember(id uint64) int {
	return slices.IndexFunc(b.Components, func(c Component) bool { return c.Metadata.Member.ID == id && id != 0 })
}

// hasChunk reports whether data can be on a chunk of a component.
func (b *Backup) hasChunk(index int, chunk uint32) bool {
	m := b.Components[index].Metadata
	return chunk >= uint32(m.ChunkReserved) && chunk < m.ChunkCount
}

// geometry is what the directory and the maps have to fit.
func (b *Backup) geometry() ondisk.Pool {
	zero := b.Components[0]
	g := ondisk.Pool{ChunkSize: zero.Metadata.ChunkSize, SectorSize: zero.SectorSize, Components: make(map[uint64]ondisk.PoolComponent)}
	for _, c := range b.Components {
		m := c.Metadata
		usable := ondisk.UsableChunks(int64(m.ProviderSize), c.SectorSize, int64(m.ChunkSize))
		g.Components[m.Member.ID] = ondisk.PoolComponent{Reserved: uint32(m.ChunkReserved), Chunks: min(m.ChunkCount, usable)}
	}
	return g
}

// systemChunk is what is written to the beginning of a chunk that the pool itself takes.
type systemChunk struct {
	ondisk.Place
	bytes []byte
}

// encode gives the link to the directory, and makes visit see what is in each system chunk
// that anything is in, once. It fails where the parts do not fit together.
func (b *Backup) encode(visit func(systemChunk) error) (ondisk.Link, error) {
	e := &poolEncoder{b: b, g: b.geometry(), d: b.Pool.Directory, visit: visit, parts: make(map[ondisk.Address]*Part), seen: make(map[ondisk.MapChunk]bool)}
	for i := range b.Pool.Parts {
		e.parts[b.Pool.Parts[i].Address] = &b.Pool.Parts[i]
	}
	if len(e.d.Maps) != len(b.Pool.Maps)+1 {
		return ondisk.Link{}, fmt.Errorf("%d maps for %d snapshots", len(b.Pool.Maps), len(e.d.Maps)-1)
	}
	for i, m := range e.d.Maps[1:] {
		if err := e.addMap(m, b.Pool.Maps[i]); err != nil {
			return ondisk.Link{}, fmt.Errorf("snapshot %s: %w", m.Name, err)
		}
	}
	return e.directory()
}

// poolEncoder makes bytes of a Pool.
type poolEncoder struct {
	b     *Backup
	g     ondisk.Pool
	d     *ondisk.Directory
	visit func(systemChunk) error
	parts map[ondisk.Address]*Part
	seen  map[ondisk.MapChunk]bool // parts that were visited
}

func (e *poolEncoder) chain(kind ondisk.ChainKind, contents []byte, places []ondisk.Place) (ondisk.Link, error) {
	first, chunks, err := ondisk.EncodeChain(kind, contents, places, e.g.ChunkSize)
	if err != nil {
		return first, err
	}
	for i, c := range chunks {
		if err := e.visit(systemChunk{places[i], c}); err != nil {
			return first, err
		}
	}
	return first, nil
}

func (e *poolEncoder) directory() (ondisk.Link, error) {
	contents, err := e.d.Encode()
	if err != nil {
		return ondisk.Link{}, err
	}
	n := ondisk.ChainLength(len(contents), e.g.ChunkSize)
	var places []ondisk.Place
	for _, a := range e.d.Own[:min(n, len(e.d.Own))] {
		id, _ := e.d.Member(a.Number)
		places = append(places, ondisk.Place{Member: id, Chunk: a.Chunk})
	}
	if err := e.g.ValidateDirectory(e.d, places); err != nil {
		return ondisk.Link{}, err
	}
	return e.chain(ondisk.ChainDirectory, contents, places)
}

func (e *poolEncoder) addMap(m ondisk.PoolMap, at Map) error {
	if err := e.g.ValidateMapList(e.d, m, at.List); err != nil {
		return err
	}
	contents, err := at.List.Encode()
	if err != nil {
		return err
	}
	first, err := e.chain(ondisk.ChainMapList, contents, at.Places)
	if err != nil {
		return err
	}
	if first != m.List {
		return errors.New("the list of its map is another one")
	}
	for i, c := range at.List.Chunks {
		if c.Hole || e.seen[c] {
			continue
		}
		bytes, err := e.part(m, i, c)
		if err != nil {
			return err
		}
		id, _ := e.d.Member(c.Number)
		if err := e.visit(systemChunk{ondisk.Place{Member: id, Chunk: c.Chunk}, bytes}); err != nil {
			return err
		}
		e.seen[c] = true
	}
	return nil
}

// part is chunk i of the map of m.
func (e *poolEncoder) part(m ondisk.PoolMap, i int, c ondisk.MapChunk) ([]byte, error) {
	p := e.parts[c.Address]
	if p == nil {
		return nil, fmt.Errorf("chunk %d of its map is missing", i)
	}
	size, _ := ondisk.MapLength(m.Size, e.g.ChunkSize)
	from := uint64(i) * uint64(e.g.ChunkSize)
	b := make([]byte, min(uint64(e.g.ChunkSize), size-from))
	first, n := from/ondisk.EntrySize, uint64(len(b))/ondisk.EntrySize
	for _, r := range p.Runs {
		if r.Virtual < first || r.Virtual-first >= n || r.Length > n-(r.Virtual-first) {
			return nil, fmt.Errorf("virtual chunks %d+%d are not in chunk %d of its map", r.Virtual, r.Length, i)
		}
		number, known := e.number(r.Component)
		if !known {
			return nil, fmt.Errorf("virtual chunk %d is on component %d, which the directory does not know", r.Virtual, r.Component)
		}
		for k := range r.Length {
			entry := ondisk.Entry{Flags: ondisk.FlagAllocated, Component: number, Chunk: r.Chunk + uint32(k)}
			entry.Encode(b[(r.Virtual-first+k)*ondisk.EntrySize:], ondisk.LittleEndian)
		}
	}
	if m.Kind == ondisk.KindSnapshot && ondisk.ChunkSum(b) != c.Sum {
		return nil, fmt.Errorf("wrong checksum of chunk %d of its map", i)
	}
	return b, nil
}

// number is the member number of the component with an index.
func (e *poolEncoder) number(index uint16) (number uint16, known bool) {
	id := e.b.Components[index].Metadata.Member.ID
	i := slices.IndexFunc(e.d.Members, func(m ondisk.NumberedMember) bool { return m.ID == id })
	if i < 0 {
		return 0, false
	}
	return e.d.Members[i].Number, true
}

// checkPool tells whether the maps of the snapshots fit the components and their
// checksums.
func (b *Backup) checkPool() error {
	if b.Pool == nil {
		return nil
	}
	if _, room := ondisk.ExtensionOffset(b.Components[0].Metadata); !room {
		return errors.New("snapshots of a volume without an extension block")
	}
	for i, c := range b.Components {
		if id := c.Metadata.Member.ID; id == 0 || b.indexOfMember(id) != i {
			return fmt.Errorf("component %d has no member id of its own", i)
		}
	}
	if err := virstor.Servable(b.Pool.Directory); err != nil {
		return err
	}
	for _, m := range b.Pool.Directory.Maps[1:] {
		if m.Kind != ondisk.KindSnapshot {
			return fmt.Errorf("%v %d in a backup: %w", m.Kind, m.ID, virstor.ErrUnserved)
		}
	}
	for _, p := range b.Pool.Parts {
		if err := b.checkRuns(p.Runs); err != nil {
			return err
		}
	}
	_, err := b.encode(func(systemChunk) error { return nil })
	return err
}

// systemRuns are the chunks that the pool itself takes, as runs on virtual chunks that are
// none, each its own.
func (b *Backup) systemRuns() []Run {
	if b.Pool == nil {
		return nil
	}
	var runs []Run
	add := func(index int, chunk uint32) {
		if index >= 0 {
			runs = append(runs, Run{Virtual: noVirtual + uint64(len(runs))<<33 + uint64(chunk), Length: 1, Component: uint16(index), Chunk: chunk})
		}
	}
	d := b.Pool.Directory
	for _, a := range slices.Concat(d.Own, d.Other, d.Reserve) {
		add(b.indexOf(d, a.Number), a.Chunk)
	}
	for _, m := range b.Pool.Maps {
		for _, at := range m.Places {
			add(b.indexOfMember(at.Member), at.Chunk)
		}
	}
	for _, p := range b.Pool.Parts {
		add(b.indexOf(d, p.Number), p.Chunk)
	}
	return runs
}

// noVirtual is beyond all virtual chunks.
const noVirtual = 1 << 62
