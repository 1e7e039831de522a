package chunkmap

import "github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"

// Word describes one virtual chunk:
//
//	bits  0–31  physical chunk
//	bits 32–47  component
//	bit  48     allocated
//	bit  49     busy: one owner has the chunk to itself, new pins are refused
//	bit  50     shown: a busy chunk that may be read all the same
//	bit  51     shared: a Frozen may name the physical chunk too
//	bits 52–63  pins: device I/O in flight to the chunk
//
// The first 49 bits change only while the chunk is busy, or from zero by Set. Shared stays
// as long as they do, but for Unshare.
type Word uint64

const (
	compShift  = 32
	wordAlloc  = 1 << 48
	wordBusy   = 1 << 49
	wordShown  = 1 << 50
	wordShared = 1 << 51
	pinShift   = 52
	pinOne     = 1 << pinShift
	pinLimit   = 4000 // far above the goroutines that can do I/O at once
)

// WordOf is the word of a virtual chunk that is mapped to p, and nothing else.
func WordOf(p alloc.Phys) Word {
	return Word(wordAlloc | uint64(p.Comp)<<compShift | uint64(p.Chunk))
}

// Allocated reports whether the virtual chunk is mapped to a physical one.
func (w Word) Allocated() bool { return w&wordAlloc != 0 }

// Phys is the physical chunk of a virtual one that is allocated.
func (w Word) Phys() alloc.Phys {
	return alloc.Phys{Comp: uint16(w >> compShift), Chunk: uint32(w)}
}

// Mapping is w without what changes as the chunk is used.
func (w Word) Mapping() Word { return w & (1<<49 - 1) }
