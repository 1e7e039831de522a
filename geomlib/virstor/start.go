package virstor

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/chunkmap"
)

// startLimit is how much, in bytes, is started: what a write brings is copied meanwhile, by
// who submits it.
const startLimit = 64 << 10

// startRule is what is true of requests that are started, and what tests break of that.
type startRule uint8

const (
	breakStartedUnpinned startRule = 1 << iota // a chunk can be freed while a request to it is under way
	breakStartedClean                          // a flush does not cover writes that were started
)

func (s startRule) is(r startRule) bool { return s&r != 0 }

// started is a request that a geomlib.Starter has. All of it lies in one chunk, which is
// pinned.
type started struct {
	geomlib.Transfer
	r  *Request
	c  *component
	vc uint64
}

// startedPool are those that nobody uses.
var startedPool = sync.Pool{New: func() any { return new(started) }}

func (s *started) give() {
	*s = started{}
	startedPool.Put(s)
}

// startRead begins r, all of which is to be read from at of c, a chunk that is pinned, and
// reports whether it did. Then it is no more the caller's to touch.
func (v *Volume) startRead(r *Request, c *component, vc uint64, at int64) bool {
	return v.mayStart(r, c, at) && v.hand(r, c, vc, at, c.starter.StartRead)
}

// startWrite begins r, a write, if all of it goes to a chunk that is there, of a component
// that can, and reports whether it did. Then it is no more the caller's to touch.
func (h *Head) startWrite(r *Request) bool {
	if r.Op != OpWrite || r.Flags&FUA != 0 || r.req.progress > 0 || r.req.later != nil || !h.v.aligned(r.Offset, r.Length) {
		return false
	}
	pc := h.v.pieceAt(r.Offset, r.Offset+r.Length)
	if pc.n < r.Length {
		return false
	}
	ph, state := h.pinWrite(pc.vc)
	if state != chunkmap.Pinned {
		return false
	}
	c := h.v.component(ph.Comp)
	at := c.offset(ph.Chunk) + pc.in
	if h.v.mayStart(r, c, at) && !c.refused.Load() && h.gaveUp() == nil {
		h.partial.written(pc.vc, pc.in, pc.n)
		if h.v.hand(r, c, pc.vc, at, c.starter.StartWrite) {
			return true
		}
	}
	h.chunks.Unpin(pc.vc)
	return false
}

// mayStart reports whether r may be started on c, at byte at of that.
func (v *Volume) mayStart(r *Request, c *component, at int64) bool {
	if c.starter == nil || r.Length > startLimit || at+r.Length > c.guard || v.cfg.serial {
		return false
	}
	l := c.lease.Load()
	return l == nil || l.MaySend()
}

func (v *Volume) hand(r *Request, c *component, vc uint64, at int64, begin func(*geomlib.Transfer) bool) bool {
	s := startedPool.Get().(*started)
	s.Data, s.Offset, s.End = r.Data, at, s
	s.r, s.c, s.vc = r, c, vc
	gathers, h := r.Flags&Gather != 0, r.req.h
	if !begin(&s.Transfer) {
		s.give()
		return false
	}
	if v.cfg.breakStart.is(breakStartedUnpinned) {
		h.chunks.Unpin(vc)
	}
	if !gathers {
		c.starter.Push()
		return true
	}
	c.gathers.Store(true)
	v.gathers.Store(true)
	return true
}

// gathering is what was started and may not have been sent.
type gathering = atomic.Bool

// Push has the requests sent that were submitted with Gather.
func (v *Volume) Push() {
	if !v.gathers.Load() || !v.gathers.Swap(false) {
		return
	}
	for _, c := range v.components() {
		if c.gathers.Load() && c.gathers.Swap(false) {
			c.starter.Push()
		}
	}
}

// Push is Volume.Push of the pool of h.
func (h *Head) Push() { h.v.Push() }

// Ended is geomlib.TransferEnd's. A read that failed is done again by a worker, which may
// wait, and tells what it meets. A write that failed is not: others may have seen what it
// wrote, and written over that.
func (s *started) Ended(*geomlib.Transfer) {
	r, h, err := s.r, s.r.req.h, s.Err
	if r.Op == OpWrite && !h.v.cfg.breakStart.is(breakStartedClean) {
		s.c.markDirty()
	}
	if !h.v.cfg.breakStart.is(breakStartedUnpinned) {
		h.chunks.Unpin(s.vc)
	}
	switch {
	case err == nil:
		r.Batch = s.Batch
		s.give()
		h.finish(r, nil)
	case r.Op == OpWrite:
		h.v.workers.put(s)
	default:
		s.give()
		h.v.workers.put(r)
	}
}

// perform tells of a write that failed.
func (s *started) perform() {
	r, c, at, err := s.r, s.c, s.Offset, s.Err
	s.give()
	c.writeFailed(err)
	r.req.h.writeFailed(r, fmt.Errorf("write %d bytes of %s at %d: %w", r.Length, c.name(), at, err))
}
