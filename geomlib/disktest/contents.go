package disktest

import "encoding/binary"

// contents is what a disk holds: pages, and zeros or junk where there are none.
type contents struct {
	store
	junk bool
	seed uint64
}

func newContents(size int64, sector int) contents {
	return contents{store: newStore(size, max(4096, int64(sector)))}
}

func (c *contents) frozen() contents {
	f := *c
	f.store = c.store.frozen()
	return f
}

func (c contents) fork() contents {
	c.store = c.store.fork()
	return c
}

// eachPage calls do for each page that [off, off+n) touches, with the part
// [from, to) of the page and where that part begins in the range.
func (c *contents) eachPage(off, n int64, do func(i, from, to, at int64)) {
	for end, at := off+n, int64(0); off < end; {
		i, from := off/c.pageSize, off%c.pageSize
		to := min(c.pageSize, from+end-off)
		do(i, from, to, at)
		off += to - from
		at += to - from
	}
}

func (c *contents) read(p []byte, off int64) {
	c.eachPage(off, int64(len(p)), func(i, from, to, at int64) {
		part := p[at : at+to-from]
		switch pg := c.page(i); {
		case pg == nil:
			c.virgin(part, i*c.pageSize+from)
		case pg.b == nil:
			clear(part)
		default:
			copy(part, pg.b[from:to])
		}
	})
}

func (c *contents) write(p []byte, off int64) {
	c.eachPage(off, int64(len(p)), func(i, from, to, at int64) {
		b := c.bytes
		if to-from == c.pageSize {
			b = c.overwritten
		}
		copy(b(i)[from:to], p[at:at+to-from])
	})
}

// overwritten is bytes of a page of which nothing stays.
func (c *contents) overwritten(i int64) []byte { return c.writable(i, nil) }

func (c *contents) bytes(i int64) []byte {
	return c.writable(i, func(b []byte) { c.virgin(b, i*c.pageSize) })
}

// virgin fills p with what was never written at off.
func (c *contents) virgin(p []byte, off int64) {
	if !c.junk {
		clear(p)
		return
	}
	for i := 0; i < len(p); i += 8 {
		x := c.seed + uint64(off+int64(i))*0x9e3779b97f4a7c15 // splitmix64
		x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
		x = (x ^ x>>27) * 0x94d049bb133111eb
		// Not one byte is zero, so that zeros are always somebody's work.
		binary.LittleEndian.PutUint64(p[i:], (x^x>>31)|0x0101010101010101)
	}
}

// forget makes [off, off+n) what was never written.
func (c *contents) forget(off, n int64) {
	c.whole(off, n, c.drop, func(i, from, to int64) {
		if c.page(i) != nil {
			c.virgin(c.bytes(i)[from:to], i*c.pageSize+from)
		}
	})
}

// zero makes [off, off+n) zeros.
func (c *contents) zero(off, n int64) {
	drop := c.drop
	if c.junk {
		drop = func(lo, hi int64) {
			zeros := &page{}
			for i := lo; i < hi; i++ {
				*c.place(i) = zeros
			}
		}
	}
	c.whole(off, n, drop, func(i, from, to int64) { clear(c.bytes(i)[from:to]) })
}

// whole gives the whole pages of [off, off+n) to all and the rest to part.
func (c *contents) whole(off, n int64, all func(lo, hi int64), part func(i, from, to int64)) {
	end := off + n
	lo, hi := (off+c.pageSize-1)/c.pageSize, end/c.pageSize
	if lo > hi { // within one page
		part(hi, off%c.pageSize, end%c.pageSize)
		return
	}
	if from := off % c.pageSize; from != 0 {
		part(lo-1, from, c.pageSize)
	}
	all(lo, hi)
	if to := end % c.pageSize; to != 0 {
		part(hi, 0, to)
	}
}

// nextData is HoleFinder's.
func (c *contents) nextData(off, limit int64) (start, end int64) {
	if c.junk || off == limit {
		return off, limit
	}
	last := (limit + c.pageSize - 1) / c.pageSize
	i := c.next(off/c.pageSize, last)
	if i == last {
		return limit, limit
	}
	stop := i + 1
	for stop < last && c.page(stop) != nil {
		stop++
	}
	return max(off, i*c.pageSize), min(limit, stop*c.pageSize)
}

// apply does the part [from, to) of op, in bytes from op's beginning.
func (c *contents) apply(op Op, from, to int64) {
	if from >= to {
		return
	}
	switch op.Kind {
	case Write:
		c.write(op.Data[from:to], op.Off+from)
	case Delete:
		c.forget(op.Off+from, to-from)
	case Zero:
		c.zero(op.Off+from, to-from)
	}
}
