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

// Pool is what a volume that has snapshots, or others beside it, has beside its map.
type Pool struct {
	Directory *ondisk.Directory
	Maps      []Map  // of all but the first of Directory.Maps, in their order
	Parts     []Part // what the maps lie in; many snapshots share one
}

// begun is p as one that began then, seconds since 1970.
func (p *Pool) begun(at int64) *Pool {
	q, d := *p, *p.Directory
	d.Maps = slices.Clone(d.Maps)
	d.Maps[0].Time = at
	q.Directory = &d
	return &q
}

// Map is where the map of a snapshot or of a further volume lies.
type Map struct {
	Places []ondisk.Place // of the list
	List   *ondisk.MapList
}

// Part is a chunk that holds a part of a map.
type Part struct {
	ondisk.Address
	Runs []Run // by virtual chunk
}

// Snapshots are the names of the snapshots that b keeps, the oldest first, those of further
// volumes as ondisk.Directory.Title has them.
func (b *Backup) Snapshots() []string { return b.titles(ondisk.KindSnapshot) }

// Volumes are the names of the further volumes that b keeps, the oldest first, each after a
// slash.
func (b *Backup) Volumes() []string { return b.titles(ondisk.KindVolume) }

func (b *Backup) titles(kind ondisk.MapKind) (names []string) {
	if b.Pool == nil {
		return nil
	}
	for _, m := range b.Pool.Directory.Maps[1:] {
		if m.Kind == kind {
			names = append(names, b.Pool.Directory.Title(m))
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
	live map[uint64][]Run        // of further volumes in service, by the ids of their maps; nil: none is
	has  map[ondisk.Address]bool // of pool.Parts
}

// readPool reads the directory that a record names, and the maps that it names: those of live
// are known. What is damaged is left out and named, with all that was made of it.
func (b *Backup) readPool(ctx context.Context, providers []geomlib.Provider, first ondisk.Link, live map[uint64][]Run) error {
	r := &poolReader{b: b, pool: new(Pool), live: live, has: make(map[ondisk.Address]bool),
		Reader: poolio.New(b.Components[0].Metadata.ChunkSize, b.Components[0].SectorSize)}
	for i, c := range b.Components {
		r.Add(providers[i], c.Metadata)
	}
	var err error
	if r.dir, err = r.Directory(ctx, first); err != nil {
		return fmt.Errorf("the directory of its snapshots: %w", err)
	}
	kept := *r.dir
	kept.Maps = slices.Clone(r.dir.Maps[:1])
	for _, m := range r.dir.Maps[1:] { // what one was made of comes before it
		_, there := kept.Map(m.Origin)
		err := errLeftOut
		if there || m.Origin == 0 {
			err = r.add(ctx, m)
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			b.LeftOut = append(b.LeftOut, r.dir.Title(m))
		default:
			kept.Maps = append(kept.Maps, m)
		}
	}
	if len(kept.Maps) > 1 {
		r.pool.Directory, b.Pool = &kept, r.pool
	}
	return nil
}

// errLeftOut: what a map was made of is not kept.
var errLeftOut = errors.New("what it was made of is left out")

// add adds a map whole, or nothing of it.
func (r *poolReader) add(ctx context.Context, m ondisk.PoolMap) error {
	at, err := r.Map(ctx, r.dir, m)
	if err != nil {
		return err
	}
	live, known := r.live[m.ID]
	if m.Kind == ondisk.KindVolume && r.live != nil && !known {
		return virstor.ErrDamaged
	}
	var parts []Part
	for i, c := range at.List.Chunks {
		if c.Hole || r.has[c.Address] {
			continue
		}
		p := Part{Address: c.Address}
		if known {
			p.Runs, live = cut(live, uint64(i+1)*uint64(r.ChunkSize)/ondisk.EntrySize)
		} else if err := r.readPart(ctx, at, i, &p); err != nil {
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

// readPart reads chunk i of a map.
func (r *poolReader) readPart(ctx context.Context, at *poolio.Map, i int, p *Part) error {
	return r.Part(ctx, at, i, func(vc uint64, e ondisk.Entry) error {
		index := r.b.indexOf(r.dir, e.Component)
		if e.Flags != ondisk.FlagAllocated || index < 0 || !r.b.hasChunk(index, e.Chunk) {
			return fmt.Errorf("map entry of virtual chunk %d holds flags %#x, member number %d, chunk %d", vc, e.Flags, e.Component, e.Chunk)
		}
		p.Runs = extend(p.Runs, vc, uint16(index), e.Chunk)
		return nil
	})
}

// cut is what of runs is before virtual chunk end, and what is not.
func cut(runs []Run, end uint64) (before, rest []Run) {
	n := 0
	for n < len(runs) && runs[n].Virtual+runs[n].Length <= end {
		n++
	}
	before, rest = slices.Clip(runs[:n]), runs[n:]
	if len(rest) > 0 && rest[0].Virtual < end {
		r, k := rest[0], end-rest[0].Virtual
		before = append(before, Run{Virtual: r.Virtual, Length: k, Component: r.Component, Chunk: r.Chunk})
		rest = slices.Clone(rest)
		rest[0] = Run{Virtual: end, Length: r.Length - k, Component: r.Component, Chunk: r.Chunk + uint32(k)}
	}
	return before, rest
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
		return ondisk.Link{}, fmt.Errorf("%d maps for %d snapshots and volumes", len(b.Pool.Maps), len(e.d.Maps)-1)
	}
	for i, m := range e.d.Maps[1:] {
		if err := e.addMap(m, b.Pool.Maps[i]); err != nil {
			return ondisk.Link{}, fmt.Errorf("%v %s: %w", m.Kind, e.d.Title(m), err)
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

// checkPool tells whether the maps of the snapshots and further volumes fit the components,
// and those of snapshots their checksums.
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
