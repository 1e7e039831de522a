package virstor

import (
	"cmp"
	"errors"
	"slices"
	"sync"
)

// errUnwanted marks a new chunk whose every request failed elsewhere.
var errUnwanted = errors.New("no request needs the chunk any more")

// batch is one group commit. Its slices are kept from batch to batch.
type batch struct {
	reqs    []*Request
	held    int // of these, the first ones: they were held, and are tried again
	ops     []*opGroup
	chunks  []newChunk
	index   map[uint64]int // virtual chunk → chunks
	missing []uint64
	taken   []grant
	touched []*component
	changes []mapChange
	wg      sync.WaitGroup
}

// mapChange is one entry of the map to be written. err is where failure goes.
type mapChange struct {
	vc   uint64
	word uint64
	err  *error
}

// newChunk is a chunk that the batch allocates.
type newChunk struct {
	v      *Volume
	vc     uint64
	to     phys
	zeroed bool // it reads as zeros already
	pieces []newPiece
	gaps   []extent
	err    error
	wg     *sync.WaitGroup
}

// newPiece is what one request wants of a new chunk. Without data the request
// only needs the chunk to be there.
type newPiece struct {
	req   *Request
	in, n int64
	data  bool
	buf   []byte // nil: zeros
}

// extent is the range [from, to) of a chunk.
type extent struct{ from, to int64 }

func (b *batch) reset() {
	if b.index == nil {
		b.index = make(map[uint64]int)
	}
	for i := range b.chunks {
		c := &b.chunks[i]
		clear(c.pieces)
		*c = newChunk{pieces: c.pieces[:0], gaps: c.gaps[:0]}
	}
	clear(b.reqs)
	clear(b.ops)
	clear(b.index)
	b.held = 0
	b.reqs, b.ops, b.chunks = b.reqs[:0], b.ops[:0], b.chunks[:0]
}

// add appends a new chunk, reusing what an earlier batch left there.
func (b *batch) add(vc uint64, to grant) {
	b.index[vc] = len(b.chunks)
	if len(b.chunks) < cap(b.chunks) {
		b.chunks = b.chunks[:len(b.chunks)+1]
	} else {
		b.chunks = append(b.chunks, newChunk{})
	}
	c := &b.chunks[len(b.chunks)-1]
	c.vc, c.to, c.zeroed, c.err = vc, to.at, to.zeroed, nil
}

func (c *newChunk) perform() {
	c.err = c.write()
	c.wg.Done()
}

// write puts the data of all requests into the chunk, in their order, and zeros
// where there is none.
func (c *newChunk) write() error {
	comp := c.v.component(c.to.comp)
	base := comp.offset(c.to.chunk)
	if c.v.cfg.Zero == ZeroAuto && !c.zeroed && !c.v.cfg.breaks(breakZeroing) {
		c.findGaps(c.v.chunk)
		if c.v.cfg.breaks(breakZeroTail) {
			c.gaps = c.gaps[:min(1, len(c.gaps))]
		}
		for _, g := range c.gaps {
			if err := comp.clear(base+g.from, g.to-g.from, c.v.zeros); err != nil {
				return err
			}
		}
	}
	for _, p := range c.pieces {
		if !p.data {
			continue
		}
		var err error
		if p.buf == nil {
			err = comp.writeZeros(base+p.in, p.n, c.v.zeros)
		} else {
			err = comp.writeAt(p.buf, base+p.in)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// findGaps fills gaps with what no piece covers.
func (c *newChunk) findGaps(size int64) {
	c.gaps = c.gaps[:0]
	for _, p := range c.pieces {
		if p.data {
			c.gaps = append(c.gaps, extent{p.in, p.in + p.n})
		}
	}
	covered := c.gaps
	slices.SortFunc(covered, func(a, b extent) int { return cmp.Compare(a.from, b.from) })
	// Gap i lies before the end of covered extent i, so the gaps can take the
	// place of the extents that were read.
	at, n := int64(0), 0
	for _, e := range covered {
		if e.from > at {
			gap := extent{at, e.from}
			at = max(at, e.to)
			covered[n] = gap
			n++
			continue
		}
		at = max(at, e.to)
	}
	c.gaps = covered[:n]
	if at < size {
		c.gaps = append(c.gaps, extent{at, size})
	}
}
