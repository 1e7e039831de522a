package virstor

import "github.com/gvirstor/gvirstor/geomlib/virstor/internal/chunkmap"

func (v *Volume) read(r *Request, block bool) {
	if !block && (r.Length > v.inlineLimit || !v.aligned(r.Offset, r.Length)) {
		v.workers.put(r)
		return
	}
	end := r.Offset + r.Length
	for off := r.Offset + r.req.progress; off < end; {
		pc := v.pieceAt(off, end)
		buf := r.Data[off-r.Offset:][:pc.n]
		ph, state := v.chunks.PinRead(pc.vc)
		switch state {
		case chunkmap.Busy:
			if v.park(pc.vc, r) {
				return
			}
			continue
		case chunkmap.Unallocated:
			clear(buf)
		case chunkmap.Pinned:
			c := v.component(ph.Comp)
			at := c.offset(ph.Chunk) + pc.in
			if !block {
				ok := c.readCached(buf, at)
				v.chunks.Unpin(pc.vc)
				if !ok {
					v.workers.put(r)
					return
				}
				break
			}
			err := v.readPiece(c, buf, at)
			v.chunks.Unpin(pc.vc)
			if err != nil {
				v.finish(r, err)
				return
			}
		}
		off += pc.n
		r.req.progress = off - r.Offset
	}
	v.finish(r, nil)
}

// readStraight does r, a request of l, if it is what most are: a read of whole sectors that
// lie in one chunk, which is there, and which nobody has to himself. Otherwise it reports
// false, and has done nothing. Without block a worker does what would wait for a device.
func (v *Volume) readStraight(r *Request, l *lane, block bool) bool {
	n := r.Length
	if n <= 0 || n != int64(len(r.Data)) || r.Offset < 0 || r.Offset > v.Size()-n || !v.aligned(r.Offset, n) ||
		!block && n > v.inlineLimit {
		return false
	}
	pc := v.pieceAt(r.Offset, r.Offset+n)
	if pc.n < n {
		return false
	}
	ph, state := v.chunks.PinRead(pc.vc)
	if state != chunkmap.Pinned {
		return false
	}
	c := v.component(ph.Comp)
	at := c.offset(ph.Chunk) + pc.in
	var err error
	done := true
	if block {
		err = c.readAt(r.Data, at)
	} else {
		done = c.readCached(r.Data, at)
	}
	v.chunks.Unpin(pc.vc)
	if done && err == nil {
		v.traffic.straight(l, n)
		r.Done.Complete(r)
		return true
	}
	r.req = reqState{v: v, tally: tally{lane: l}}
	if err != nil {
		v.finish(r, err)
	} else {
		v.workers.put(r)
	}
	return true
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
