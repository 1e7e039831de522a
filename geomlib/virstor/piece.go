package virstor

import "math/bits"

// piece is the part of a range that lies in one chunk.
type piece struct {
	vc uint64
	in int64 // offset in the chunk
	n  int64
}

// chunkOf is the virtual chunk that byte off lies in.
func (v *Volume) chunkOf(off int64) int64 {
	if v.chunkShift > 0 {
		return off >> v.chunkShift
	}
	return off / v.chunk
}

// shiftOf is the binary logarithm of a power of two above 1, else 0.
func shiftOf(n uint32) uint8 {
	if bits.OnesCount32(n) != 1 {
		return 0
	}
	return uint8(bits.TrailingZeros32(n))
}

// pieceAt returns the piece of [off, end) that off lies in.
func (v *Volume) pieceAt(off, end int64) piece {
	vc := v.chunkOf(off)
	in := off - vc*v.chunk
	return piece{vc: uint64(vc), in: in, n: min(end-off, v.chunk-in)}
}

func (v *Volume) aligned(off, n int64) bool { return (off|n)&(v.sector-1) == 0 }
