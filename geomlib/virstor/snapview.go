package virstor

import (
	"fmt"

	"github.com/gvirstor/gvirstor/ondisk"
)

// View reads a snapshot. Its methods may be called by many goroutines at once; while it is
// open the snapshot cannot be deleted.
type View struct {
	v *Volume
	s *snapshot
}

// OpenSnapshot opens the snapshot of that name for reading (ErrNoSnapshot, and ErrDamaged
// for one whose map cannot be read).
func (h *Head) OpenSnapshot(name string) (*View, error) {
	h.v.metaMu.Lock()
	defer h.v.metaMu.Unlock()
	s, err := h.snapshotLocked(name)
	if err == nil && s.damage != nil {
		err = s.damage
	}
	if err != nil {
		return nil, fmt.Errorf("open snapshot: %w", err)
	}
	s.views++
	return &View{v: h.v, s: s}, nil
}

// Close lets the snapshot go. It is called once.
func (w *View) Close() {
	w.v.metaMu.Lock()
	defer w.v.metaMu.Unlock()
	w.s.views--
}

// GUID is the snapshot's, which no other one ever has.
func (w *View) GUID() uint64 { return uint64(w.s.GUID) }

// Size is that of the volume when the snapshot was taken, in bytes.
func (w *View) Size() int64 { return int64(w.s.Size) }

// SectorSize is that of the volume in bytes.
func (w *View) SectorSize() int { return w.v.SectorSize() }

// ChunkSize is the unit of allocation in bytes.
func (w *View) ChunkSize() int64 { return w.v.chunk }

// ReadOnly is true.
func (w *View) ReadOnly() bool { return true }

// Submit starts r, as Volume.Submit does. What is not OpRead or OpFlush fails with
// ErrReadOnly; once the volume closes, all does with ErrClosed.
func (w *View) Submit(r *Request) {
	v := w.v
	r.Err, r.Batch = nil, nil
	l, _ := v.traffic.enter(r, 0)
	r.req = reqState{h: w.s.of, view: w, tally: tally{lane: l}}
	if l == nil {
		r.Err = fmt.Errorf("%s a snapshot of %s: %w", r.Op, v.name, ErrClosed)
		r.Done.Complete(r)
		return
	}
	switch {
	case r.Op == OpFlush:
		w.finish(r, nil)
	case r.Op != OpRead:
		w.finish(r, fmt.Errorf("%s snapshot %s of %s: %w", r.Op, ondisk.Printable(w.s.Name), v.name, ErrReadOnly))
	case r.Length != int64(len(r.Data)):
		w.finish(r, fmt.Errorf("%s of %d bytes with a buffer of %d: %w", r.Op, r.Length, len(r.Data), ErrRequest))
	case r.Offset < 0 || r.Offset > w.Size() || r.Length > w.Size()-r.Offset:
		w.finish(r, fmt.Errorf("read %d bytes at %d, snapshot has %d: %w", r.Length, r.Offset, w.Size(), ErrRange))
	case r.Flags&MayBlock != 0:
		w.serve(r)
	case w.readCached(r):
		w.finish(r, nil)
	default:
		v.workers.put(r)
	}
}

// readCached reads r if that needs no wait for a device, and reports whether it did.
func (w *View) readCached(r *Request) bool {
	v := w.v
	if r.Length > v.inlineLimit || !v.aligned(r.Offset, r.Length) || !v.viewing.tryEnter() {
		return false
	}
	defer v.viewing.leave()
	ok, _ := w.read(r, false) // an error is for who waits for the device
	return ok
}

// finish completes r.
func (w *View) finish(r *Request, err error) {
	r.Err = err
	w.v.traffic.complete(r)
}

// serve does r, a read that lies in the snapshot.
func (w *View) serve(r *Request) {
	if !w.v.viewing.enter(r) {
		return
	}
	_, err := w.read(r, true)
	w.v.viewing.leave()
	w.finish(r, err)
}

// read fills r's buffer. Without block it waits for no device, and reports false, with
// nothing of use in the buffer, when it would have to.
func (w *View) read(r *Request, block bool) (ok bool, err error) {
	v := w.v
	for done := int64(0); done < r.Length; {
		pc := v.pieceAt(r.Offset+done, r.Offset+r.Length)
		b := r.Data[done:][:pc.n]
		done += pc.n
		word := w.s.frozen.Load(pc.vc)
		if !word.Allocated() {
			clear(b)
			continue
		}
		c := v.component(word.Phys().Comp)
		at := c.offset(word.Phys().Chunk) + pc.in
		if !block {
			if !c.readCached(b, at) {
				return false, nil
			}
			continue
		}
		if err := v.readPiece(c, b, at); err != nil {
			return false, err
		}
	}
	return true, nil
}

// Push has nothing to do: no request is kept.
func (w *View) Push() {}

// HeldFull returns nil: it holds nothing.
func (w *View) HeldFull() <-chan struct{} { return nil }

// EndHeld has nothing to end.
func (w *View) EndHeld(*Request) {}

// RetryHeld has nothing to try.
func (w *View) RetryHeld() {}

// Supersede has nothing to leave alone.
func (w *View) Supersede(*Request, int64, int64) {}

// Superseded reports false.
func (w *View) Superseded(*Request, int64, int64) bool { return false }

// Extents calls emit for the consecutive runs that cover [off, off+n), as those of Volume.
func (w *View) Extents(off, n int64, emit func(length int64, allocated bool) bool) {
	v, end := w.v, min(off+n, w.Size())
	for off < end {
		allocated := w.s.frozen.Load(uint64(v.chunkOf(off))).Allocated()
		to := min(end, (v.chunkOf(off)+1)*v.chunk)
		for to < end && w.s.frozen.Load(uint64(v.chunkOf(to))).Allocated() == allocated {
			to = min(end, to+v.chunk)
		}
		if !emit(to-off, allocated) {
			return
		}
		off = to
	}
}
