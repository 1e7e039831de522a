package virstor

import "io"

// waiter turns Submit into a call.
type waiter struct {
	r  Request
	ch chan struct{}
}

func (w *waiter) Complete(*Request) { w.ch <- struct{}{} }

// do submits one operation and waits for it.
func (v *Volume) do(op Op, fl Flags, p []byte, off, n int64) error {
	w := v.waiters.Get().(*waiter)
	w.r.Op, w.r.Flags, w.r.Data, w.r.Offset, w.r.Length, w.r.Done = op, fl|MayBlock, p, off, n, w
	v.Submit(&w.r)
	v.catchUp()
	<-w.ch
	err := w.r.Err
	w.r.Data, w.r.Err = nil, nil
	v.waiters.Put(w)
	return err
}

func newWaiter() any { return &waiter{ch: make(chan struct{}, 1)} }

// ReadAt reads len(p) bytes from byte off. It reads nothing beyond the end of the
// volume: a range that ends there gives io.EOF with what there was.
func (v *Volume) ReadAt(p []byte, off int64) (int, error) {
	short := false
	if size := v.Size(); off >= 0 && off <= size && int64(len(p)) > size-off {
		p, short = p[:size-off], true
	}
	if err := v.do(OpRead, 0, p, off, int64(len(p))); err != nil {
		return 0, err
	}
	if short {
		return len(p), io.EOF
	}
	return len(p), nil
}

// WriteAt writes p at byte off.
func (v *Volume) WriteAt(p []byte, off int64) (int, error) {
	if err := v.do(OpWrite, 0, p, off, int64(len(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Flush puts everything that was acknowledged before on stable storage.
func (v *Volume) Flush() error { return v.do(OpFlush, 0, nil, 0, 0) }

// Discard tells that n bytes from off are no longer needed. Whole chunks become free.
func (v *Volume) Discard(off, n int64) error { return v.do(OpDelete, 0, nil, off, n) }

// WriteZeroes makes n bytes from off read as zeros; with NoHole they stay backed by chunks.
func (v *Volume) WriteZeroes(off, n int64, fl Flags) error {
	return v.do(OpWriteZeroes, fl, nil, off, n)
}
