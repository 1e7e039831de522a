package virstor

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

// partialDiscards remembers which pieces of allocated chunks were discarded, so
// that a chunk is freed when all of it has been, piece by piece. It is advice:
// memory is bounded, and what is forgotten costs nothing but the space.
type partialDiscards struct {
	chunk int64
	grain int64 // bytes of a bit
	parts [16]partialShard
}

const (
	partialBits  = 1024 // of a chunk
	partialLimit = 256  // chunks remembered by a shard
)

type partialShard struct {
	n atomic.Int32 // len(m): writers look only at this while it is zero

	mu sync.Mutex
	m  map[uint64]*discardedBits
}

type discardedBits [partialBits / 64]uint64

func newPartialDiscards(chunk, sector int64) *partialDiscards {
	p := &partialDiscards{chunk: chunk, grain: max(sector, (chunk+partialBits-1)/partialBits)}
	p.grain = (p.grain + sector - 1) / sector * sector
	for i := range p.parts {
		p.parts[i].m = make(map[uint64]*discardedBits)
	}
	return p
}

func (p *partialDiscards) part(vc uint64) *partialShard { return &p.parts[vc%uint64(len(p.parts))] }

// discarded notes that [in, in+n) of chunk vc holds nothing of use, and reports
// whether all of the chunk does. The caller has the chunk to itself.
func (p *partialDiscards) discarded(vc uint64, in, n int64) bool {
	s := p.part(vc)
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.m[vc]
	if b == nil {
		if len(s.m) >= partialLimit {
			for old := range s.m { // any one
				delete(s.m, old)
				break
			}
		}
		b = new(discardedBits)
		s.m[vc] = b
	}
	// Whole grains only; the last one of a chunk may be short.
	first := (in + p.grain - 1) / p.grain
	last := (in + n) / p.grain
	if in+n == p.chunk {
		last = (p.chunk + p.grain - 1) / p.grain
	}
	for i := first; i < last; i++ {
		b[i/64] |= 1 << (i % 64)
	}
	s.n.Store(int32(len(s.m)))
	set := 0
	for _, w := range b {
		set += bits.OnesCount64(w)
	}
	return int64(set) == (p.chunk+p.grain-1)/p.grain
}

// written notes that [in, in+n) of chunk vc holds data again. The caller has
// the chunk pinned or to itself.
func (p *partialDiscards) written(vc uint64, in, n int64) {
	s := p.part(vc)
	if s.n.Load() == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.m[vc]
	if b == nil {
		return
	}
	for i := in / p.grain; i*p.grain < in+n; i++ {
		b[i/64] &^= 1 << (i % 64)
	}
}

// forget drops what is known of a chunk.
func (p *partialDiscards) forget(vc uint64) {
	s := p.part(vc)
	if s.n.Load() == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.m, vc)
	s.n.Store(int32(len(s.m)))
}

// forgetAll drops what is known of all chunks.
func (p *partialDiscards) forgetAll() {
	for i := range p.parts {
		s := &p.parts[i]
		s.mu.Lock()
		clear(s.m)
		s.n.Store(0)
		s.mu.Unlock()
	}
}
