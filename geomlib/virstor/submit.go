package virstor

import (
	"fmt"
	"io"
)

// reqState is what the volume keeps of a request in flight.
type reqState struct {
	h *Head
	// progress is how much of the range is done. What is done is never
	// done again: a second write of the same data could overwrite that of a
	// request which was acknowledged in between.
	progress int64
	commit   int64 // progress after the commit the request takes part in
	failed   error // first failure in that commit
	noRoom   error // the write of data that found the storage of a component full, or nil
	discards bool  // it needs no chunk: a discard, or zeros that are one
	own      bool  // of such a one: it goes on when the chunk at progress is not shared
	inside   bool  // it is in Volume.writes
	view     *View // what it reads, if that is a snapshot
	held     heldState
	later    []extent // of a write that was held: what later requests wrote, which it leaves alone
	tally    tally
}

// Submit starts r. It completes on the caller's goroutine what needs no wait
// (with MayBlock, nearly everything); the rest completes later.
func (h *Head) Submit(r *Request) {
	r.Err, r.Batch = nil, nil
	l, timed := h.v.traffic.enter(r, r.Op.counted())
	if l == nil {
		r.Err = fmt.Errorf("%s %s: %w", r.Op, h.Name(), ErrClosed)
		r.Done.Complete(r)
		return
	}
	block := r.Flags&MayBlock != 0
	if r.Op == OpRead && !timed && h.readStraight(r, l, block) {
		return
	}
	r.req = reqState{h: h, tally: h.v.traffic.begin(l, timed)}
	if err := h.validate(r); err != nil {
		h.finish(r, err)
		return
	}
	h.run(r, block)
}

func (h *Head) validate(r *Request) error {
	if h.damage != nil {
		return fmt.Errorf("%s %s: %w", r.Op, h.Name(), h.damage)
	}
	switch r.Op {
	case OpFlush:
		return nil
	case OpRead, OpWrite:
		if r.Length != int64(len(r.Data)) {
			return fmt.Errorf("%s of %d bytes with a buffer of %d: %w", r.Op, r.Length, len(r.Data), ErrRequest)
		}
	case OpDelete, OpWriteZeroes:
	default:
		return fmt.Errorf("operation %d: %w", r.Op, ErrRequest)
	}
	if size := h.Size(); r.Offset < 0 || r.Length < 0 || r.Offset > size || r.Length > size-r.Offset {
		return fmt.Errorf("%s of %d bytes at %d, volume has %d: %w", r.Op, r.Length, r.Offset, size, ErrRange)
	}
	if r.Op != OpRead && h.v.cfg.ReadOnly {
		return fmt.Errorf("%s %s: %w", r.Op, h.Name(), ErrReadOnly)
	}
	return nil
}

// inlineLimit is how much, in bytes, Submit copies on its caller's goroutine on
// a machine with so many processors. Beyond it a worker does, while the caller
// takes the next request. With two processors the client and the caller have
// one each, and a third to run only takes from them (1 MiB writes: 2.8 GB/s
// with a worker, 3.3 GB/s without).
func inlineLimit(processors int) int64 {
	if processors <= 2 {
		return 4 << 20
	}
	return 256 << 10
}

// perform runs r on a worker.
func (r *Request) perform() {
	if w := r.req.view; w != nil {
		w.serve(r)
		return
	}
	r.req.h.run(r, true)
}

// resume goes on with a request that had to wait for others.
func (v *Volume) resume(r *Request) { v.workers.put(r) }

// parked is a Request that waits for a chunk that somebody else has to himself.
type parked Request

// Resume implements chunkmap.Waiter.
func (p *parked) Resume() { p.req.h.v.resume((*Request)(p)) }

// park leaves r to be resumed when chunk vc is free. It reports false when it is already.
func (h *Head) park(vc uint64, r *Request) bool {
	return h.chunks.Park(vc, (*parked)(r), r.Op == OpRead)
}

// run does r, or as much of it as needs no wait when block is false.
func (h *Head) run(r *Request, block bool) {
	if r.Op == OpRead {
		h.read(r, block)
		return
	}
	if h.keepUntilActive(r) {
		return
	}
	if r.Op != OpFlush && !r.req.inside {
		if !h.writes.enter(r) {
			return
		}
		r.req.inside = true
		if err := h.mayChange(r.Claim); err != nil {
			h.finish(r, fmt.Errorf("%s %w", r.Op, err))
			return
		}
	}
	switch r.Op {
	case OpWrite:
		if r.req.discards || h.v.cfg.DetectZeroes && r.req.progress == 0 && isZero(r.Data) {
			h.discard(r, block)
			return
		}
		h.write(r, block)
	case OpFlush:
		h.flush(r, block)
	case OpDelete:
		h.discard(r, block)
	case OpWriteZeroes:
		if r.Flags&NoHole != 0 && !h.v.cfg.DetectZeroes {
			h.write(r, block)
		} else {
			h.discard(r, block)
		}
	}
}

// leaveWrites takes r out of Volume.writes: what it has to do to data is done, or waits.
func (h *Head) leaveWrites(r *Request) {
	if r.req.inside {
		r.req.inside = false
		h.writes.leave()
	}
}

// finish completes r.
func (h *Head) finish(r *Request, err error) {
	h.leaveWrites(r)
	r.Err = err
	if err != nil {
		h.v.stats.errors.Add(1)
	}
	h.v.traffic.account(r, err)
	h.v.traffic.complete(r)
}

// waiter turns Submit into a call.
type waiter struct {
	r  Request
	ch chan struct{}
}

func (w *waiter) Complete(*Request) { w.ch <- struct{}{} }

// do submits one operation and waits for it.
func (h *Head) do(op Op, fl Flags, p []byte, off, n int64) error {
	w := h.v.waiters.Get().(*waiter)
	w.r.Op, w.r.Flags, w.r.Data, w.r.Offset, w.r.Length, w.r.Done = op, fl|MayBlock, p, off, n, w
	h.Submit(&w.r)
	h.v.catchUp()
	<-w.ch
	err := w.r.Err
	w.r.Data, w.r.Err, w.r.req = nil, nil, reqState{}
	h.v.waiters.Put(w)
	return err
}

func newWaiter() any { return &waiter{ch: make(chan struct{}, 1)} }

// ReadAt reads len(p) bytes from byte off. It reads nothing beyond the end of the
// volume: a range that ends there gives io.EOF with what there was.
func (h *Head) ReadAt(p []byte, off int64) (int, error) {
	short := false
	if size := h.Size(); off >= 0 && off <= size && int64(len(p)) > size-off {
		p, short = p[:size-off], true
	}
	if err := h.do(OpRead, 0, p, off, int64(len(p))); err != nil {
		return 0, err
	}
	if short {
		return len(p), io.EOF
	}
	return len(p), nil
}

// WriteAt writes p at byte off.
func (h *Head) WriteAt(p []byte, off int64) (int, error) {
	if err := h.do(OpWrite, 0, p, off, int64(len(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Flush puts everything that was acknowledged before on stable storage.
func (h *Head) Flush() error { return h.do(OpFlush, 0, nil, 0, 0) }

// Discard tells that n bytes from off are no longer needed. Whole chunks become free.
func (h *Head) Discard(off, n int64) error { return h.do(OpDelete, 0, nil, off, n) }

// WriteZeroes makes n bytes from off read as zeros; with NoHole they stay backed by chunks.
func (h *Head) WriteZeroes(off, n int64, fl Flags) error {
	return h.do(OpWriteZeroes, fl, nil, off, n)
}
