package picture

import (
	"context"
	"errors"
	"fmt"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
)

// ErrCells: a number of cells that nothing can be drawn in.
var ErrCells = errors.New("a picture has 1 to 1048576 cells")

// Errors of what is not there to be drawn. They come wrapped with what was attempted.
var (
	// ErrNoSnapshot: the volume has no snapshot of that name.
	ErrNoSnapshot = errors.New("no snapshot of that name")
	// ErrNoVolume: the pool has no further volume of that name.
	ErrNoVolume = errors.New("no further volume of that name")
)

const maxCells = 1 << 20

// Picture is what is drawn. Sizes are bytes, counts are chunks.
type Picture struct {
	Name          string `json:"name"` // of the volume, behind a "/" of a further one, and behind an "@" of the snapshot
	ID            string `json:"id"`   // hex
	VirtualSize   int64  `json:"virtual_size"`
	ChunkSize     int64  `json:"chunk_size"`
	VirtualChunks uint64 `json:"virtual_chunks"`
	Allocated     uint64 `json:"allocated_chunks"`
	// Cells are equal parts of the virtual disk, in order.
	Cells []Cell `json:"cells"`
	// Components are filled with everything that the pool has: what only other volumes and
	// snapshots have, too.
	Components []Component `json:"components"`
	// Damaged are the snapshots, and behind a "/" the further volumes, whose maps cannot be
	// read: chunks that only they have look free. Of a further volume's snapshot it is
	// "/VOLUME@SNAPSHOT".
	Damaged []string `json:"damaged_snapshots,omitempty"`
}

// Cell is a part of the virtual disk. Sizes are bytes.
type Cell struct {
	Offset int64 `json:"offset"`
	Length int64 `json:"length"`
	// Fill is how much of it is allocated: 0 to 1, and 0 only if nothing in it is.
	Fill   float64 `json:"fill"`
	Shares []Share `json:"shares,omitempty"` // by index of the component
}

// Share is what a component holds of a Cell.
type Share struct {
	Component int    `json:"component"` // its index
	Chunks    uint64 `json:"chunks"`
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

// Options modify FromAssembly.
type Options struct {
	Cells    int    // parts of the virtual disk; one for each chunk when there are fewer of those
	Volume   string // draw that further volume instead of the first, what follows the slash
	Snapshot string // draw the volume as that snapshot of it has it
	// Progress, if not nil, is told how many bytes of the first volume's map have been read.
	Progress func(done, total int64)
}

// FromAssembly makes the picture of a volume from its map, or of one of its snapshots
// (ErrNoVolume, ErrNoSnapshot). The volume need not be open here. Entries that cannot be right are left
// out.
func FromAssembly(ctx context.Context, a *virstor.Assembly, opt Options) (*Picture, error) {
	if a.Err != nil {
		return nil, fmt.Errorf("draw %s: %w", a.Name, a.Err)
	}
	d := &drawing{ctx: ctx, a: a, opt: opt}
	if err := d.draw(); err != nil {
		return nil, fmt.Errorf("draw %s: %w", a.Name, err)
	}
	return d.p, nil
}

// FromVolume makes the picture of an open volume in so many cells, as FromAssembly does. What changes
// meanwhile may show or not.
func FromVolume(v *virstor.Volume, cells int) (*Picture, error) {
	s := v.Status()
	p := &Picture{Name: s.Name, ID: fmt.Sprintf("%08x", s.ID), VirtualSize: s.Size, ChunkSize: s.ChunkSize, VirtualChunks: uint64(s.VirtualChunks)}
	for _, c := range s.Components {
		p.addComponent(Component{Name: c.Name, Size: c.MediaSize, Chunks: uint64(c.Usable), Used: uint64(c.Used), Reserved: uint64(c.Reserved)})
	}
	fill, err := newFiller(p, cells)
	if err != nil {
		return nil, err
	}
	v.EachAllocated(func(chunk uint64, component int) {
		if component < len(p.Components) {
			fill.add(chunk, component)
		}
	})
	fill.done()
	return p, nil
}

func (p *Picture) addComponent(c Component) {
	c.Index = len(p.Components)
	p.Components = append(p.Components, c)
}

// filler spreads allocated chunks, which come in order, over cells. Cell i is the chunks
// from i·n/cells up to but not (i+1)·n/cells.
type filler struct {
	p      *Picture
	at     int      // the cell that counts are of
	end    uint64   // the first chunk behind it
	counts []uint64 // chunks of that cell, by component
}

func newFiller(p *Picture, cells int) (*filler, error) {
	if cells < 1 || cells > maxCells {
		return nil, fmt.Errorf("%w: %d", ErrCells, cells)
	}
	p.Cells = make([]Cell, min(uint64(cells), max(p.VirtualChunks, 1)))
	f := &filler{p: p, counts: make([]uint64, len(p.Components))}
	for i := range p.Cells {
		first := f.border(i)
		p.Cells[i].Offset = int64(first) * p.ChunkSize
		p.Cells[i].Length = int64(f.border(i+1)-first) * p.ChunkSize
	}
	f.end = f.border(1)
	return f, nil
}

// border is the first chunk of cell i. The product of two numbers below 2^20
// and 2^44 does not overflow.
func (f *filler) border(i int) uint64 {
	return uint64(i) * f.p.VirtualChunks / uint64(len(f.p.Cells))
}

// add counts the allocated chunk vc, which comes after those before. One beyond the end is none.
func (f *filler) add(vc uint64, component int) {
	if vc >= f.p.VirtualChunks {
		return
	}
	f.p.Allocated++
	if vc >= f.end {
		f.leave()
		f.at = int(vc * uint64(len(f.p.Cells)) / f.p.VirtualChunks)
		for f.border(f.at+1) <= vc {
			f.at++
		}
		f.end = f.border(f.at + 1)
	}
	f.counts[component]++
}

// leave tells the cell what was counted of it.
func (f *filler) leave() {
	cell, sum := &f.p.Cells[f.at], uint64(0)
	for i, n := range f.counts {
		if n > 0 {
			cell.Shares = append(cell.Shares, Share{Component: i, Chunks: n})
			sum += n
			f.counts[i] = 0
		}
	}
	if cell.Length > 0 {
		cell.Fill = float64(sum) / float64(cell.Length/f.p.ChunkSize)
	}
}

func (f *filler) done() {
	f.leave()
	for i := range f.p.Components {
		if c := &f.p.Components[i]; c.Chunks > 0 {
			c.Fill = float64(c.Used) / float64(c.Chunks)
		}
	}
}
