package picture

import (
	"context"
	"errors"
	"fmt"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/mapio"
	"github.com/gvirstor/gvirstor/ondisk"
)

// ErrCells: a number of cells that nothing can be drawn in.
var ErrCells = errors.New("a picture has 1 to 1048576 cells")

const maxCells = 1 << 20

// Picture is what is drawn. Sizes are bytes, counts are chunks.
type Picture struct {
	Name          string `json:"name"`
	ID            string `json:"id"` // hex
	VirtualSize   int64  `json:"virtual_size"`
	ChunkSize     int64  `json:"chunk_size"`
	VirtualChunks uint64 `json:"virtual_chunks"`
	Allocated     uint64 `json:"allocated_chunks"`
	// Cells are equal parts of the virtual disk, in order, and how full each
	// is: 0 to 1, and 0 only if nothing in it is allocated.
	Cells      []float64   `json:"cells"`
	Components []Component `json:"components"`
}

// Component is one component of a Picture.
type Component struct {
	Name     string  `json:"name"`
	Index    int     `json:"index"`
	Size     int64   `json:"size"`
	Chunks   uint64  `json:"chunks"` // that data may use
	Used     uint64  `json:"used"`
	Reserved uint64  `json:"reserved"`
	Fill     float64 `json:"fill"` // Used / Chunks
}

// FromAssembly makes the picture of a volume from its map, in cells parts, or in one for
// each chunk when there are fewer chunks. The volume need not be open here. Entries that
// cannot be right are left out. progress, if not nil, is told how
// many bytes of the map have been read.
func FromAssembly(ctx context.Context, a *virstor.Assembly, cells int, progress func(done, total int64)) (*Picture, error) {
	if a.Err != nil {
		return nil, fmt.Errorf("draw %s: %w", a.Name, a.Err)
	}
	zero := a.Members[0]
	m := zero.Metadata
	if err := m.Validate(zero.Provider.MediaSize(), zero.Provider.SectorSize()); err != nil && !errors.Is(err, ondisk.ErrLastSector) {
		return nil, fmt.Errorf("draw %s: metadata of %s: %w", a.Name, zero.Provider.Name(), err)
	}
	p := &Picture{Name: a.Name, ID: fmt.Sprintf("%08x", a.ID), VirtualSize: int64(m.VirtualSize), ChunkSize: int64(m.ChunkSize), VirtualChunks: m.Entries()}
	for _, c := range a.Members {
		usable := min(c.Metadata.ChunkCount, ondisk.UsableChunks(c.Provider.MediaSize(), c.Provider.SectorSize(), p.ChunkSize))
		first := uint32(c.Metadata.ChunkReserved)
		p.addComponent(Component{Name: c.Provider.Name(), Size: c.Provider.MediaSize(), Chunks: uint64(max(usable, first) - first), Reserved: uint64(first)})
	}
	fill, err := newFiller(p, cells)
	if err != nil {
		return nil, err
	}
	order := ondisk.OrderUnknown
	s := mapio.Scanner{Provider: zero.Provider, Size: m.MapBytes()}
	if progress != nil {
		s.Progress = func(done int64) { progress(done, s.Size) }
	}
	err = s.Each(ctx, func(vc uint64, raw []byte) error {
		if order == ondisk.OrderUnknown {
			order = ondisk.DetectOrder(raw)
		}
		e := ondisk.DecodeEntry(raw, order)
		if !e.Allocated() || int(e.Component) >= len(p.Components) {
			return nil
		}
		fill.add(vc, 1)
		if c := &p.Components[e.Component]; c.Used < c.Chunks {
			c.Used++
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("draw %s: %w", a.Name, err)
	}
	fill.done()
	return p, nil
}

func (p *Picture) addComponent(c Component) {
	c.Index = len(p.Components)
	p.Components = append(p.Components, c)
}

// filler spreads allocated chunks over cells. Cell i is the chunks from
// i·n/cells up to but not (i+1)·n/cells.
type filler struct {
	p      *Picture
	counts []uint64
}

func newFiller(p *Picture, cells int) (*filler, error) {
	if cells < 1 || cells > maxCells {
		return nil, fmt.Errorf("%w: %d", ErrCells, cells)
	}
	return &filler{p: p, counts: make([]uint64, min(uint64(cells), max(p.VirtualChunks, 1)))}, nil
}

// border is the first chunk of cell i. The product of two numbers below 2^20
// and 2^44 does not overflow.
func (f *filler) border(i uint64) uint64 { return i * f.p.VirtualChunks / uint64(len(f.counts)) }

// cell is the cell that chunk vc is in.
func (f *filler) cell(vc uint64) uint64 {
	i := min(vc*uint64(len(f.counts))/f.p.VirtualChunks, uint64(len(f.counts))-1)
	for f.border(i+1) <= vc {
		i++
	}
	return i
}

func (f *filler) add(vc, n uint64) {
	f.p.Allocated += n
	for end := vc + n; vc < end; {
		i := f.cell(vc)
		next := min(end, f.border(i+1))
		f.counts[i] += next - vc
		vc = next
	}
}

func (f *filler) done() {
	f.p.Cells = make([]float64, len(f.counts))
	for i, n := range f.counts {
		if size := f.border(uint64(i)+1) - f.border(uint64(i)); size > 0 {
			f.p.Cells[i] = float64(n) / float64(size)
		}
	}
	for i := range f.p.Components {
		if c := &f.p.Components[i]; c.Chunks > 0 {
			c.Fill = float64(c.Used) / float64(c.Chunks)
		}
	}
}
