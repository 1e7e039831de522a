package alloc

import "math/bits"

// Pool is the free chunks of one component.
type Pool struct {
	bits   []uint64 // bit set: free
	first  uint32   // chunks below are reserved
	end    uint32   // chunks from there on are never given out
	total  uint32   // chunks that may ever be allocated, reserved ones excluded
	free   uint32
	hint   int             // no free chunk below word hint
	bars   Bar             // why nothing is taken from it
	kept   map[uint32]bool // claimed to become reserved chunks
	zeroed map[uint32]bool // free chunks that were zeroed ahead
}

// Bar is a reason why nothing is taken from a pool. Bars come and go on their own: an
// evacuation that is given up must not open a component whose flush has failed.
type Bar uint8

// The bars.
const (
	BarFailed     Bar = 1 << iota // a flush failed; for as long as the volume is open
	BarLeaving                    // the component is being emptied or removed
	BarRefused                    // it takes no writes
	BarUnknown                    // a map that may name its free chunks cannot be read
	BarUnnumbered                 // maps cannot name it
)

// closed reports whether nothing is taken from the pool.
func (p *Pool) closed() bool { return p.bars != 0 }

// Bar lets nothing be taken from p, which no allocator has yet, for the reason b.
func (p *Pool) Bar(b Bar) { p.bars |= b }

// NewPool makes the pool of chunks [first, end), all free.
func NewPool(first, end uint32) *Pool {
	p := &Pool{bits: make([]uint64, (uint64(end)+63)/64), first: first, end: end}
	if end > first {
		p.total = end - first
		for c := first; c < end; {
			if c%64 == 0 && end-c >= 64 {
				p.bits[c/64] = ^uint64(0)
				c += 64
				continue
			}
			p.bits[c/64] |= 1 << (c % 64)
			c++
		}
	}
	p.free = p.total
	return p
}

// isFree reports whether chunk is free.
func (p *Pool) isFree(chunk uint32) bool {
	w := int(chunk / 64)
	return w < len(p.bits) && p.bits[w]&(1<<(chunk%64)) != 0
}

// Claim marks chunk as used and reports whether it was free. It, Unclaim and ClaimRun are
// for who builds a pool from a map, before any allocator has it.
func (p *Pool) Claim(chunk uint32) bool {
	if !p.isFree(chunk) {
		return false
	}
	p.bits[chunk/64] &^= 1 << (chunk % 64)
	p.free--
	delete(p.zeroed, chunk)
	return true
}

// Unclaim undoes Claim.
func (p *Pool) Unclaim(chunk uint32) { p.release(chunk) }

// ClaimRun marks n chunks from first on as used, if all of them are free. A map that is
// loaded claims a page of 512 at a time: words are looked at whole.
func (p *Pool) ClaimRun(first, n uint32) bool {
	end := uint64(first) + uint64(n)
	if end > uint64(len(p.bits))*64 {
		return false
	}
	if n == 0 {
		return true
	}
	words := p.bits[first/64 : (end-1)/64+1]
	last := len(words) - 1
	head, tail := ^uint64(0)<<(first%64), ^uint64(0)>>(63-(end-1)%64)
	if last == 0 {
		head &= tail
		tail = head
	}
	used := ^words[0]&head | ^words[last]&tail
	for _, w := range words[min(1, last):last] {
		used |= ^w
	}
	if used != 0 {
		return false
	}
	words[0] &^= head
	words[last] &^= tail
	clear(words[min(1, last):last])
	p.free -= n
	return true
}

// lowest takes the lowest free chunk.
func (p *Pool) lowest() (chunk uint32, zeroed, ok bool) {
	if p.free == 0 {
		return 0, false, false
	}
	for w := p.hint; w < len(p.bits); w++ {
		if p.bits[w] != 0 {
			p.hint = w
			chunk = uint32(w*64 + bits.TrailingZeros64(p.bits[w]))
			zeroed = p.zeroed[chunk]
			return chunk, zeroed, p.Claim(chunk)
		}
	}
	return 0, false, false
}

// release makes chunk free, unless it is none that is given out: the kernel class may have
// used it. It reports whether it did.
func (p *Pool) release(chunk uint32) bool {
	if chunk >= p.end {
		return false
	}
	w := int(chunk / 64)
	p.bits[w] |= 1 << (chunk % 64)
	p.free++
	p.hint = min(p.hint, w)
	return true
}

// eachFree yields the free chunks, the lowest first.
func (p *Pool) eachFree(yield func(uint32) bool) {
	if p.free == 0 {
		return
	}
	for w := p.hint; w < len(p.bits); w++ {
		for word := p.bits[w]; word != 0; word &= word - 1 {
			if !yield(uint32(w*64 + bits.TrailingZeros64(word))) {
				return
			}
		}
	}
}
