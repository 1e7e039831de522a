package virstor

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/chunkmap"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/poolio"
	"github.com/gvirstor/gvirstor/ondisk"
)

// poolLoader takes in the directory in force and the maps of the snapshots. The volume's
// own map is loaded, and nobody else knows the volume yet.
type poolLoader struct {
	v        *Volume
	bounds   []bounds // with the pools of what no map names, so far
	geometry ondisk.Pool
	dir      *ondisk.Directory
	numbers  memberNumbers
	maps     map[alloc.Phys]bool // chunks of maps, which snapshots may share
}

// newPoolLoader reads the directory in force; it is nil without one. One that cannot be
// read fails it (ErrDamaged), and one that holds what nobody serves (ErrUnserved).
func (v *Volume) newPoolLoader(bs []bounds) (*poolLoader, error) {
	first := v.meta.ext.rec.Directory
	if !first.Exists() {
		return nil, nil
	}
	l := &poolLoader{v: v, bounds: bs, geometry: v.poolGeometry(), maps: make(map[alloc.Phys]bool)}
	contents, places, err := l.readChain(ondisk.ChainDirectory, first)
	if err == nil {
		l.dir, err = ondisk.DecodeDirectory(contents)
	}
	if err == nil {
		err = l.geometry.ValidateDirectory(l.dir, places)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: the directory of its snapshots: %w", ErrDamaged, err)
	}
	if err := Servable(l.dir); err != nil {
		return nil, err
	}
	l.numbers = v.numbersOf(l.dir)
	return l, nil
}

// loadPool takes in what the record in force says that there is beside the volume's map.
// A snapshot that cannot be read is damaged.
func (v *Volume) loadPool(bs []bounds) error {
	l, err := v.newPoolLoader(bs)
	if l == nil {
		return err
	}
	for _, p := range l.numbers.allPhys(slices.Concat(l.dir.Own, l.dir.Other, l.dir.Reserve)) {
		if err := l.claim(p); err != nil {
			return err
		}
	}
	v.setDirectory(l.dir)
	v.pool.others.Store(true)
	l.loadSnapshots(&v.Head)
	var further []*Head
	for _, m := range l.dir.Maps[1:] { // what a clone comes from has a lower id
		if m.Kind != ondisk.KindVolume {
			continue
		}
		h := l.loadHead(m)
		l.loadSnapshots(h)
		further = append(further, h)
	}
	slices.SortFunc(v.pool.snaps, func(a, b *snapshot) int { return cmp.Compare(a.ID, b.ID) })
	v.setFurther(further)
	v.nameSnapshots()
	return nil
}

// loadSnapshots takes in the snapshots of h, whose map is loaded.
func (l *poolLoader) loadSnapshots(h *Head) {
	for _, m := range slices.Backward(l.dir.Maps[1:]) { // a newer one differs less from the map
		if m.Kind == ondisk.KindSnapshot && m.Origin == h.mapID {
			l.v.pool.snaps = append(l.v.pool.snaps, l.load(h, m))
		}
	}
}

// loadHead takes in a further volume. Of one that is damaged nobody knows what it names.
func (l *poolLoader) loadHead(m ondisk.PoolMap) *Head {
	h := l.v.newHead(m) // of a size that is no multiple of a chunk the rest has one, too
	for _, s := range l.v.pool.snaps {
		if m.Origin != 0 && s.ID == m.Origin {
			h.origin = s
		}
	}
	if h.origin != nil && h.origin.frozen != nil {
		h.chunks.SetOrigin(h.origin.frozen)
	}
	s := &snapshot{PoolMap: m}
	words, err := l.read(s)
	h.lies.Store(&s.stored)
	if err == nil {
		err = l.takeWords(h, words)
	}
	if err != nil {
		h.damage = fmt.Errorf("%w: volume %s: %w", ErrDamaged, h.Name(), err)
		l.v.log.Error("a volume of the pool is damaged: until it is deleted, or can be read at another start, the others are only read",
			"volume", h.Name(), "error", err)
	}
	return h
}

// takeWords makes words the map of h, and claims the chunks that its origin does not name.
func (l *poolLoader) takeWords(h *Head, words pages) error {
	claimed := make(pages)
	for page, own := range words {
		claimed[page] = new([chunkmap.PageEntries]chunkmap.Word)
		for i, w := range own {
			vc, p := page*chunkmap.PageEntries+uint64(i), w.Phys()
			switch {
			case w == 0:
				continue
			case !l.inPool(p), h.chunks.Names(vc, w):
			case h.origin != nil && h.origin.frozen == nil: // it may be what nobody can read
			case l.bounds[p.Comp].pool.Claim(p.Chunk):
				claimed[page][i] = w
			default:
				l.unclaimAll(claimed)
				h.chunks = chunkmap.New(h.entries())
				h.allocated.Store(0)
				return &misusedError{vc, p.Chunk, l.v.component(p.Comp).name()}
			}
			h.chunks.SetRun(vc, w, 1)
			h.allocated.Add(1)
		}
	}
	return nil
}

// unclaimAll undoes the claims of words.
func (l *poolLoader) unclaimAll(words pages) {
	for _, own := range words {
		for _, w := range own {
			if w != 0 {
				l.bounds[w.Phys().Comp].pool.Unclaim(w.Phys().Chunk)
			}
		}
	}
}

// Servable refuses a directory that holds what this version does not serve (ErrUnserved).
func Servable(d *ondisk.Directory) error {
	for _, m := range d.Maps {
		if m.Quota != 0 && (m.ID == ondisk.FirstMap || m.Quota > math.MaxInt64) {
			return fmt.Errorf("%v %d with a quota: %w", m.Kind, m.ID, ErrUnserved)
		}
	}
	return nil
}

// claim takes a system chunk, which has one use.
func (l *poolLoader) claim(p alloc.Phys) error {
	if l.bounds[p.Comp].pool.Claim(p.Chunk) {
		return nil
	}
	return fmt.Errorf("%w: chunk %d of %s has another use beside one that the directory of its snapshots says", ErrDamaged, p.Chunk, l.v.component(p.Comp).name())
}

// claimPart claims a chunk of the map of a snapshot, which may be that of others, too.
func (l *poolLoader) claimPart(p alloc.Phys) error {
	if l.maps[p] {
		return nil
	}
	if err := l.claim(p); err != nil {
		return err
	}
	l.maps[p] = true
	return nil
}

// readChain reads a chain of system chunks.
func (l *poolLoader) readChain(kind ondisk.ChainKind, first ondisk.Link) ([]byte, []ondisk.Place, error) {
	chain, err := ondisk.NewChain(kind, first, uint32(l.v.chunk))
	if err != nil {
		return nil, nil, err
	}
	for link, more := chain.Next(); more; link, more = chain.Next() {
		c, known := l.geometry.Components[link.Member]
		if !known || link.Chunk >= c.Chunks {
			return nil, nil, fmt.Errorf("%w: %v, which is not there", ondisk.ErrChain, link)
		}
		b, err := l.v.readSystem(l.v.physOf(link.Place), int64(link.Length))
		if err != nil {
			return nil, nil, err
		}
		if err := chain.Take(b); err != nil {
			return nil, nil, err
		}
	}
	return chain.Contents(), chain.Places(), nil
}

// readSystem reads the first n bytes of a system chunk.
func (v *Volume) readSystem(p alloc.Phys, n int64) ([]byte, error) {
	c := v.component(p.Comp)
	b := make([]byte, (n+v.sector-1)/v.sector*v.sector)
	if err := c.readAt(b, c.offset(p.Chunk)); err != nil {
		return nil, err
	}
	return b[:n], nil
}

// pages are the words of a map, by page, where anything is allocated.
type pages map[uint64]*[chunkmap.PageEntries]chunkmap.Word

// load takes in a snapshot. Of one that is damaged nobody knows what it names.
func (l *poolLoader) load(h *Head, m ondisk.PoolMap) *snapshot {
	s := &snapshot{of: h, PoolMap: m}
	words, err := l.read(s)
	if err == nil {
		s.frozen, err = l.freeze(h, words)
	}
	if err != nil {
		s.damage = fmt.Errorf("%w: snapshot %s: %w", ErrDamaged, m.Name, err)
		l.v.log.Error("a snapshot is damaged: until it can be read at another start, or is given up with what it alone holds, the volume is only read",
			"snapshot", m.Name, "error", err)
	}
	return s
}

// freeze makes words a Frozen, and claims the chunks that nobody has yet. One that has
// another use fails it.
func (l *poolLoader) freeze(h *Head, words pages) (*chunkmap.Frozen, error) {
	f := h.chunks.Before()
	for page := range f.Pages() {
		own := words[page]
		if own == nil {
			own = new([chunkmap.PageEntries]chunkmap.Word)
		}
		if err := l.claimPage(h, f, page, own); err != nil {
			f.Remove()
			l.unclaim(h, words, err.vc)
			return nil, err
		}
		f.SetPage(page, own)
	}
	return f, nil
}

// misusedError is a map entry of a snapshot whose chunk has another use.
type misusedError struct {
	vc        uint64
	chunk     uint32
	component string
}

func (e *misusedError) Error() string {
	return fmt.Sprintf("map entry of virtual chunk %d names chunk %d of %s, which has another use", e.vc, e.chunk, e.component)
}

// claimPage claims what own, a page of f that it does not have yet, names and nobody else.
func (l *poolLoader) claimPage(h *Head, f *chunkmap.Frozen, page uint64, own *[chunkmap.PageEntries]chunkmap.Word) *misusedError {
	var newer [chunkmap.PageEntries]chunkmap.Word
	f.Page(page, &newer)
	for i, w := range own {
		vc, p := page*chunkmap.PageEntries+uint64(i), w.Phys()
		if w == 0 || w == newer[i] || !l.inPool(p) || l.bounds[p.Comp].pool.Claim(p.Chunk) || h.chunks.Names(vc, w) {
			continue
		}
		return &misusedError{vc, p.Chunk, l.v.component(p.Comp).name()}
	}
	return nil
}

// inPool reports whether a pool has the chunk: one that the kernel class allocated over a
// metadata sector is in none.
func (l *poolLoader) inPool(p alloc.Phys) bool { return p.Chunk < l.bounds[p.Comp].usable }

// unclaim undoes what was claimed of words before virtual chunk end.
func (l *poolLoader) unclaim(h *Head, words pages, end uint64) {
	for page, own := range words {
		for i, w := range own {
			vc, p := page*chunkmap.PageEntries+uint64(i), w.Phys()
			if vc < end && w != 0 && l.inPool(p) && !h.chunks.Names(vc, w) {
				l.bounds[p.Comp].pool.Unclaim(p.Chunk)
			}
		}
	}
}

// readList reads where the map of s, a snapshot or a further volume, lies, and claims the chunks that it lies in, as far as
// they are known: they are s.stored.
func (l *poolLoader) readList(s *snapshot) (*ondisk.MapList, error) {
	contents, places, err := l.readChain(ondisk.ChainMapList, s.List)
	for _, at := range places {
		p := l.v.physOf(at)
		if e := l.claim(p); e != nil {
			err = errors.Join(err, e)
			continue
		}
		s.stored.list = append(s.stored.list, p)
	}
	if err != nil {
		return nil, err
	}
	list, err := ondisk.DecodeMapList(contents)
	if err != nil {
		return nil, err
	}
	if err := l.geometry.ValidateMapList(l.dir, s.PoolMap, list); err != nil {
		return nil, err
	}
	return list, l.claimParts(s, list)
}

// claimParts claims the chunks that the map of s lies in.
func (l *poolLoader) claimParts(s *snapshot, list *ondisk.MapList) (err error) {
	for _, c := range list.Chunks {
		part := mapPart{hole: c.Hole, sum: c.Sum}
		if !c.Hole {
			part.at = l.numbers.phys(c.Address)
			take := l.claimPart
			if s.Kind == ondisk.KindVolume { // it changes, and is nobody else's
				take = l.claim
			}
			if e := take(part.at); e != nil {
				err = errors.Join(err, e)
				continue
			}
		}
		s.stored.parts = append(s.stored.parts, part)
	}
	of := &l.v.Head
	if s.of != nil {
		of = s.of
	}
	if err == nil && s.Kind == ondisk.KindSnapshot && s.Size > uint64(of.Size()) {
		err = fmt.Errorf("%w: it has %d bytes, the volume %d", ondisk.ErrMapList, s.Size, of.Size())
	}
	return err
}

// read reads the map of s, and claims the chunks that it lies in.
func (l *poolLoader) read(s *snapshot) (pages, error) {
	list, err := l.readList(s)
	if err != nil {
		return nil, err
	}
	words := make(pages)
	for i, c := range list.Chunks {
		if c.Hole {
			continue
		}
		if err := l.readPart(s, i, c, words); err != nil {
			return nil, err
		}
	}
	return words, nil
}

// readPart reads chunk i of the map of s into words.
func (l *poolLoader) readPart(s *snapshot, i int, c ondisk.MapChunk, words pages) error {
	v := l.v
	from, n := l.part(s, i)
	b, err := v.readSystem(l.numbers.phys(c.Address), n)
	if err == nil && s.Kind == ondisk.KindSnapshot && ondisk.ChunkSum(b) != c.Sum && !v.cfg.breaks(breakMapSums) {
		err = fmt.Errorf("%w: wrong checksum of chunk %d of the map", ondisk.ErrMapList, i)
	}
	if err != nil {
		copied := l.rolledBackPart(s, i)
		if copied == nil || ondisk.ChunkSum(copied) != c.Sum {
			return err
		}
		b = copied
	}
	return l.decode(b, from, words)
}

// part is where chunk i of the map of s begins in the map, and how long it is, in bytes.
func (l *poolLoader) part(s *snapshot, i int) (from, n int64) {
	total, _ := ondisk.MapLength(s.Size, uint32(l.v.chunk))
	from = int64(i) * l.v.chunk
	return from, min(l.v.chunk, int64(total)-from)
}

// rolledBackPart is what the volume's map has in place of chunk i of the map of s, as that
// would have it, while a rollback to s is under way: it may have been copied already. It is
// nil without one, and where it cannot be read.
func (l *poolLoader) rolledBackPart(s *snapshot, i int) []byte {
	v := l.v
	if in := v.meta.ext.rec.Intent; in.Kind != ondisk.IntentRollback || in.Arg[0] != s.ID {
		return nil
	}
	from, n := l.part(s, i)
	b := make([]byte, (n+v.sector-1)/v.sector*v.sector)
	if err := v.component(0).readAt(b, from); err != nil {
		return nil
	}
	poolio.Numbered(b[:n], v.order, func(index uint16) (uint16, bool) {
		if int(index) >= len(l.numbers.number) {
			return 0, false
		}
		return l.numbers.number[index], true
	})
	return b[:n]
}

// decode takes the entries of b, which are from byte from of a map on, into words.
func (l *poolLoader) decode(b []byte, from int64, words pages) error {
	for vc := uint64(from / ondisk.EntrySize); len(b) > 0; vc, b = vc+1, b[ondisk.EntrySize:] {
		e := ondisk.DecodeEntry(b, ondisk.LittleEndian)
		if e == (ondisk.Entry{}) {
			continue
		}
		_, known := l.dir.Member(e.Component) // not one that a component would be given now
		index := l.numbers.index[e.Component]
		if e.Flags != ondisk.FlagAllocated || !known || e.Chunk < l.bounds[index].first || e.Chunk >= l.bounds[index].count {
			return fmt.Errorf("%w: entry %d with flags %#x names chunk %d of member number %d", ondisk.ErrMapList, vc, e.Flags, e.Chunk, e.Component)
		}
		page := vc / chunkmap.PageEntries
		if words[page] == nil {
			words[page] = new([chunkmap.PageEntries]chunkmap.Word)
		}
		words[page][vc%chunkmap.PageEntries] = chunkmap.WordOf(alloc.Phys{Comp: index, Chunk: e.Chunk})
	}
	return nil
}

// barDamaged keeps every chunk from being given out, freed or overwritten while a snapshot
// or a volume is damaged: nobody knows which ones it names, and at another start it may be read again.
// v.metaMu is held, or nobody else knows the volume yet.
func (v *Volume) barDamaged() {
	damaged := slices.ContainsFunc(v.pool.snaps, func(s *snapshot) bool { return s.frozen == nil }) ||
		slices.ContainsFunc(v.further(), func(h *Head) bool { return h.damage != nil })
	for _, h := range v.heads() {
		h.chunks.SetUnknown(damaged)
	}
	for i := range v.components() {
		v.alloc.SetBar(uint16(i), alloc.BarUnknown, damaged)
	}
}
