package check

import "math/bits"

// bitmap marks the chunks of one component that entries claim.
type bitmap struct {
	words []uint64
	used  uint32
	last  uint32 // the highest marked; meaningless when used is 0
}

func newBitmap(n uint32) *bitmap { return &bitmap{words: make([]uint64, (uint64(n)+63)/64)} }

func (b *bitmap) has(i uint32) bool { return b.words[i/64]&(1<<(i%64)) != 0 }

// claim marks i and reports whether it was unmarked.
func (b *bitmap) claim(i uint32) bool {
	if b.has(i) {
		return false
	}
	b.words[i/64] |= 1 << (i % 64)
	b.last = max(b.last, i)
	b.used++
	return true
}

// holes counts the unmarked chunks from first up to the highest marked one.
func (b *bitmap) holes(first uint32) uint32 {
	if b.used == 0 {
		return 0
	}
	return b.last + 1 - first - b.used
}

// firstHole is the lowest unmarked chunk from first on.
func (b *bitmap) firstHole(first uint32) uint32 {
	for i := first; ; {
		w := i / 64
		if int(w) >= len(b.words) {
			return i
		}
		free := ^b.words[w] >> (i % 64) << (i % 64)
		if free != 0 {
			return w*64 + uint32(bits.TrailingZeros64(free))
		}
		i = (w + 1) * 64
	}
}
