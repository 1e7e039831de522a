package mapio

import (
	"bytes"
	"encoding/binary"
	"iter"

	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/chunkmap"
	"github.com/gvirstor/gvirstor/ondisk"
)

// Piece is a piece of the map as it is on component 0.
type Piece struct {
	Off int64 // bytes from the start of the map
	B   []byte

	number int
	states []PageState // of each part that Pages gives
}

// Page is what a Piece has of a page of the map in memory.
type Page struct {
	B     []byte
	First uint64 // the virtual chunk of the first entry in B
	State PageState
}

// PageState is what a page of the map looks like before it is known whether its
// entries are right.
type PageState uint8

// The states of pages.
const (
	Mixed   PageState = iota
	Empty             // nothing but zeros
	InOrder           // the entries, read as little-endian, name one chunk after the other
)

// pageBytes is how long a page of the map is on disk.
const pageBytes = chunkmap.PageEntries * ondisk.EntrySize

// NextEntry is what an entry, read as little-endian, is less than one that names the next
// chunk of its component.
const NextEntry = 1 << 32

// Pages goes through the pages of the map that p has a part of.
func (p *Piece) Pages() iter.Seq[Page] {
	return func(yield func(Page) bool) {
		states := p.states
		for part, first := range p.parts() {
			if !yield(Page{part, first, states[0]}) {
				return
			}
			states = states[1:]
		}
	}
}

// parts goes through the parts of pages that p has, with the virtual chunks of their
// first entries.
func (p *Piece) parts() iter.Seq2[[]byte, uint64] {
	return func(yield func([]byte, uint64) bool) {
		b, vc := p.B, uint64(p.Off/ondisk.EntrySize)
		for len(b) > 0 {
			n := min(len(b), int(chunkmap.PageEntries-vc%chunkmap.PageEntries)*ondisk.EntrySize)
			if !yield(b[:n], vc) {
				return
			}
			b, vc = b[n:], vc+uint64(n/ondisk.EntrySize)
		}
	}
}

// classify notes the states of p's pages. One that p has a part of is Mixed.
func (p *Piece) classify() {
	p.states = p.states[:0]
	for part := range p.parts() {
		state := Mixed
		if len(part) == pageBytes {
			state = stateOf((*[pageBytes]byte)(part))
		}
		p.states = append(p.states, state)
	}
}

// zeroPage is only read.
var zeroPage [pageBytes]byte

func stateOf(page *[pageBytes]byte) PageState {
	switch {
	case binary.NativeEndian.Uint64(page[:]) == 0:
		if bytes.Equal(page[:], zeroPage[:]) {
			return Empty
		}
	case inOrder(page):
		return InOrder
	}
	return Mixed
}

// inOrder reports whether the entries of a page name one chunk after the other.
// Most of the time that it takes to open a large volume is spent here: four entries
// at a time, of four sequences, take two thirds of what one sequence takes.
func inOrder(page *[pageBytes]byte) bool {
	le := binary.LittleEndian
	w0 := le.Uint64(page[:])
	if le.Uint64(page[pageBytes-ondisk.EntrySize:]) != w0+(chunkmap.PageEntries-1)*NextEntry {
		return false // mostly
	}
	w1, w2, w3 := w0+NextEntry, w0+2*NextEntry, w0+3*NextEntry
	differ := uint64(0)
	for i := 0; i < pageBytes; i += 4 * ondisk.EntrySize {
		four := (*[4 * ondisk.EntrySize]byte)(page[i:])
		differ |= (le.Uint64(four[:]) ^ w0) | (le.Uint64(four[8:]) ^ w1) |
			(le.Uint64(four[16:]) ^ w2) | (le.Uint64(four[24:]) ^ w3)
		w0, w1, w2, w3 = w0+4*NextEntry, w1+4*NextEntry, w2+4*NextEntry, w3+4*NextEntry
	}
	return differ == 0
}
