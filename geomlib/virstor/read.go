package virstor

import "github.com/gvirstor/gvirstor/geomlib/virstor/internal/chunkmap"

func (h *Head) read(r *Request, block bool) {
	if !block && (r.Length > h.v.inlineLimit || !h.v.aligned(r.Offset, r.Length)) {
		h.v.workers.put(r)
		return
	}
	end := r.Offset + r.Length
	for off := r.Offset + r.req.progress; off < end; {
		pc := h.v.pieceAt(off, end)
		buf := r.Data[off-r.Offset:][:pc.n]
		ph, state := h.chunks.PinRead(pc.vc)
		switch state {
		case chunkmap.Busy:
			if h.park(pc.vc, r) {
				return
			}
			continue
		case chunkmap.Unallocated:
			clear(buf)
		case chunkmap.Pinned:
			c := h.v.component(ph.Comp)
			at := c.offset(ph.Chunk) + pc.in
			if r.Taker != nil && pc.n == r.Length {
				if n := h.lend(r, c, pc.vc, at, block); n > 0 {
					off += n
					r.req.progress = n
					if off < end && !block { // it need not begin or end with a sector
						h.v.workers.put(r)
						return
					}
					continue
				}
			}
			if !block {
				ok := c.readCached(buf, at)
				if !ok && pc.n == r.Length && h.v.startRead(r, c, pc.vc, at) {
					return
				}
				h.chunks.Unpin(pc.vc)
				if !ok {
					h.v.workers.put(r)
					return
				}
				break
			}
			err := h.v.readPiece(c, buf, at)
			h.chunks.Unpin(pc.vc)
			if err != nil {
				h.finish(r, err)
				return
			}
		}
		off += pc.n
		r.req.progress = off - r.Offset
	}
	h.finish(r, nil)
}

// readStraight does r, a request of l, if it is what most are: a read of whole sectors that
// lie in one chunk, which is there, and which nobody has to himself. Otherwise it reports
// false, and has done nothing. Without block a worker does what would wait for a device.
func (h *Head) readStraight(r *Request, l *lane, block bool) bool {
	n := r.Length
	if n <= 0 || n != int64(len(r.Data)) || r.Offset < 0 || r.Offset > h.Size()-n || !h.v.aligned(r.Offset, n) ||
		!block && n > h.v.inlineLimit {
		return false
	}
	pc := h.v.pieceAt(r.Offset, r.Offset+n)
	if pc.n < n {
		return false
	}
	ph, state := h.chunks.PinRead(pc.vc)
	if state != chunkmap.Pinned {
		return false
	}
	c := h.v.component(ph.Comp)
	at := c.offset(ph.Chunk) + pc.in
	if r.Taker != nil {
		if taken := h.lend(r, c, pc.vc, at, block); taken > 0 {
			h.tookStraight(r, l, taken)
			return true
		}
	}
	var err error
	done := true
	if block {
		err = c.readAt(r.Data, at)
	} else {
		done = c.readCached(r.Data, at)
	}
	if !done && c.starter != nil {
		r.req = reqState{h: h, tally: tally{lane: l}}
		if h.v.startRead(r, c, pc.vc, at) {
			return true
		}
	}
	h.chunks.Unpin(pc.vc)
	if done && err == nil {
		h.v.traffic.straight(l, n)
		r.Done.Complete(r)
		return true
	}
	r.req = reqState{h: h, tally: tally{lane: l}}
	if err != nil {
		h.finish(r, err)
	} else {
		h.v.workers.put(r)
	}
	return true
}

// lend offers the taker of r what it reads of chunk vc, which is pinned and lies at byte at
// of c, and returns how much it took. If that is anything the chunk is unpinned.
func (h *Head) lend(r *Request, c *component, vc uint64, at int64, wait bool) int64 {
	if h.v.cfg.breaks(breakLentUnpinned) {
		h.chunks.Unpin(vc)
		return c.lend(r, at, wait)
	}
	n := c.lend(r, at, wait)
	if n > 0 {
		h.chunks.Unpin(vc)
	}
	return n
}

// tookStraight ends r, a request of l of which so much was taken, or has a worker read the
// rest: whoever takes that will not soon.
func (h *Head) tookStraight(r *Request, l *lane, taken int64) {
	if taken == r.Length {
		h.v.traffic.straight(l, r.Length)
		r.Done.Complete(r)
		return
	}
	r.req = reqState{h: h, progress: taken, tally: tally{lane: l}}
	h.v.workers.put(r)
}

// readPiece reads any range of a component, through a buffer of one sector
// where it covers a sector partly.
func (v *Volume) readPiece(c *component, b []byte, at int64) error {
	if v.aligned(at, int64(len(b))) {
		return c.readAt(b, at)
	}
	s := v.sectors.get()
	defer v.sectors.put(s)
	for len(b) > 0 {
		in := at & (v.sector - 1)
		if whole := int64(len(b)) &^ (v.sector - 1); in == 0 && whole > 0 {
			if err := c.readAt(b[:whole], at); err != nil {
				return err
			}
			b, at = b[whole:], at+whole
			continue
		}
		if err := c.readAt(*s, at-in); err != nil {
			return err
		}
		n := copy(b, (*s)[in:])
		b, at = b[n:], at+int64(n)
	}
	return nil
}
