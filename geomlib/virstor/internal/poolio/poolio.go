// Package poolio reads what the components of a pool hold beside the first volume's map:
// the directory in force, and where the maps of snapshots lie and what they say. Nothing
// of it is believed before its checksum was right and it fitted the components.
package poolio

import (
	"context"
	"fmt"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ondisk"
)

// block is how many bytes of a map are read at a time, where as many are needed.
const block = 1 << 20

// Reader reads the system chunks of a pool. Its methods may run at the same time, and end
// with the context's error when that ends.
type Reader struct {
	ondisk.Pool
	// Components are the providers, by the member ids of Pool.
	Components map[uint64]geomlib.Provider
}

// New is a Reader of components whose chunks have so many bytes. What data can use ends at
// the last whole chunk before a component's metadata.
func New(chunkSize uint32, sectorSize int) *Reader {
	return &Reader{
		Pool:       ondisk.Pool{ChunkSize: chunkSize, SectorSize: sectorSize, Components: make(map[uint64]ondisk.PoolComponent)},
		Components: make(map[uint64]geomlib.Provider),
	}
}

// Add makes p, with the metadata m, a component. One without a member id is named by nothing.
func (r *Reader) Add(p geomlib.Provider, m ondisk.Metadata) {
	if !m.Member.Exists() {
		return
	}
	usable := ondisk.UsableChunks(p.MediaSize(), p.SectorSize(), int64(m.ChunkSize))
	r.Pool.Components[m.Member.ID] = ondisk.PoolComponent{Reserved: uint32(m.ChunkReserved), Chunks: min(m.ChunkCount, usable)}
	r.Components[m.Member.ID] = p
}

// read reads the n bytes at byte in of a system chunk.
func (r *Reader) read(at ondisk.Place, in, n int64) ([]byte, error) {
	c, known := r.Pool.Components[at.Member]
	if !known || at.Chunk >= c.Chunks {
		return nil, fmt.Errorf("chunk %d of member %016x is not there", at.Chunk, at.Member)
	}
	p := r.Components[at.Member]
	sector := int64(p.SectorSize()) // which damage can make another than the pool's
	b := make([]byte, (n+sector-1)/sector*sector)
	off := int64(at.Chunk)*int64(r.ChunkSize) + in
	if _, err := p.ReadAt(b, off); err != nil {
		return nil, fmt.Errorf("read %s at byte %d: %w", p.Name(), off, err)
	}
	return b[:n], nil
}

// chain reads a chain of system chunks: what it holds, and where they are.
func (r *Reader) chain(ctx context.Context, kind ondisk.ChainKind, first ondisk.Link) ([]byte, []ondisk.Place, error) {
	chain, err := ondisk.NewChain(kind, first, r.ChunkSize)
	if err != nil {
		return nil, nil, err
	}
	for link, more := chain.Next(); more; link, more = chain.Next() {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		b, err := r.read(link.Place, 0, int64(link.Length))
		if err != nil {
			return nil, nil, err
		}
		if err := chain.Take(b); err != nil {
			return nil, nil, err
		}
	}
	return chain.Contents(), chain.Places(), nil
}

// Directory reads the directory that a record names.
func (r *Reader) Directory(ctx context.Context, first ondisk.Link) (*ondisk.Directory, error) {
	contents, places, err := r.chain(ctx, ondisk.ChainDirectory, first)
	if err != nil {
		return nil, err
	}
	d, err := ondisk.DecodeDirectory(contents)
	if err != nil {
		return nil, err
	}
	return d, r.ValidateDirectory(d, places)
}

// Map is where the map of a volume or snapshot lies.
type Map struct {
	ondisk.PoolMap
	List   *ondisk.MapList
	Places []ondisk.Place // of the list
	Bytes  int64          // of the map

	dir     *ondisk.Directory
	instead map[int][]byte // chunks of the map that are known from elsewhere
}

// Map reads where the map of m, of directory d, lies.
func (r *Reader) Map(ctx context.Context, d *ondisk.Directory, m ondisk.PoolMap) (*Map, error) {
	contents, places, err := r.chain(ctx, ondisk.ChainMapList, m.List)
	if err != nil {
		return nil, err
	}
	list, err := ondisk.DecodeMapList(contents)
	if err != nil {
		return nil, err
	}
	size, _ := ondisk.MapLength(m.Size, r.ChunkSize)
	return &Map{PoolMap: m, List: list, Places: places, Bytes: int64(size), dir: d}, r.ValidateMapList(d, m, list)
}

// Place is where a chunk of the map lies that is no hole.
func (m *Map) Place(c ondisk.MapChunk) ondisk.Place {
	id, _ := m.dir.Member(c.Number)
	return ondisk.Place{Member: id, Chunk: c.Chunk}
}

// Replace makes b, of another place, chunk i of m, and reports whether the checksum proves
// that it is that.
func (m *Map) Replace(i int, b []byte) bool {
	if ondisk.ChunkSum(b) != m.List.Chunks[i].Sum {
		return false
	}
	if m.instead == nil {
		m.instead = make(map[int][]byte)
	}
	m.instead[i] = b
	return true
}

// PartLength is how many bytes of m are in its chunk i.
func (r *Reader) PartLength(m *Map, i int) int64 {
	return min(int64(r.ChunkSize), m.Bytes-int64(i)*int64(r.ChunkSize))
}

// Numbered makes entries of the first volume's map those of a snapshot's: number gives the
// member number of an index. With ondisk.OrderUnknown each is read as it looks.
func Numbered(b []byte, order ondisk.Order, number func(index uint16) (uint16, bool)) {
	for ; len(b) >= ondisk.EntrySize; b = b[ondisk.EntrySize:] {
		as := order
		if as == ondisk.OrderUnknown {
			as = ondisk.DetectOrder(b)
		}
		e := ondisk.DecodeEntry(b, as)
		n, known := number(e.Component)
		if e.Flags != ondisk.FlagAllocated || !known {
			e = ondisk.Entry{}
		} else {
			e.Component = n
		}
		e.Encode(b, ondisk.LittleEndian)
	}
}

// readPart reads n bytes at byte in of chunk i of m.
func (r *Reader) readPart(m *Map, i int, in, n int64) ([]byte, error) {
	if b, known := m.instead[i]; known {
		return b[in : in+n], nil
	}
	return r.read(m.Place(m.List.Chunks[i]), in, n)
}

// Part reads chunk i of m, no hole, and gives each entry of it that is not all zeros, with
// its virtual chunk. Whether the checksum is right is known when it has returned.
func (r *Reader) Part(ctx context.Context, m *Map, i int, visit func(vc uint64, e ondisk.Entry) error) error {
	from, end := int64(i)*int64(r.ChunkSize), r.PartLength(m, i)
	sum := uint64(0)
	for in := int64(0); in < end; {
		if err := ctx.Err(); err != nil {
			return err
		}
		b, err := r.readPart(m, i, in, min(block, end-in))
		if err != nil {
			return err
		}
		sum = ondisk.AddToSum(sum, b)
		for off := 0; off < len(b); off += ondisk.EntrySize {
			e := ondisk.DecodeEntry(b[off:], ondisk.LittleEndian)
			if e == (ondisk.Entry{}) {
				continue
			}
			if err := visit(uint64(from+in+int64(off))/ondisk.EntrySize, e); err != nil {
				return err
			}
		}
		in += int64(len(b))
	}
	if m.Kind == ondisk.KindSnapshot && sum != m.List.Chunks[i].Sum {
		return fmt.Errorf("wrong checksum of chunk %d of its map", i)
	}
	return nil
}

// Entries fills b with the entries of m from byte from of the map, and zeros where it has none.
func (r *Reader) Entries(m *Map, b []byte, from int64) error {
	clear(b)
	end, chunk := min(from+int64(len(b)), m.Bytes), int64(r.ChunkSize)
	for at := from; at < end; {
		n := min(end, (at/chunk+1)*chunk) - at
		if i := int(at / chunk); !m.List.Chunks[i].Hole {
			part, err := r.readPart(m, i, at%chunk, n)
			if err != nil {
				clear(b)
				return err
			}
			copy(b[at-from:], part)
		}
		at += n
	}
	return nil
}
