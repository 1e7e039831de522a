package virstor

import (
	"sync/atomic"
	"testing"
)

// lookingRequest looks at the volume whenever it is told something.
type lookingRequest struct {
	*toldRequest
	v                 *Volume
	atHeld, atResumed HeldStatus
	atComplete        Status
	over              bool // the limit was reached when it resumed
	refuse            atomic.Bool
}

func newLookingRequest(v *Volume, off int64, data []byte) *lookingRequest {
	w := &lookingRequest{toldRequest: newToldRequest(OpWrite, off, data), v: v}
	w.r.Done = w
	return w
}

func (w *lookingRequest) Held(r *Request) bool {
	w.atHeld = w.v.Status().Held
	return w.toldRequest.Held(r)
}

func (w *lookingRequest) Resumed(r *Request) bool {
	w.atResumed, w.over = w.v.Status().Held, w.v.HeldFull() != nil
	return w.toldRequest.Resumed(r) && !w.refuse.Load()
}

func (w *lookingRequest) Complete(r *Request) {
	w.atComplete = w.v.Status()
	w.toldRequest.Complete(r)
}

func TestWhatIsToldIsCountedBefore(t *testing.T) {
	const chunk = 128 << 10
	var v *Volume
	full := make(chan HeldStatus, 1)
	a := newMem("a", 4<<20, 512)
	label(t, 8<<20, chunk, a)
	v = open(t, Config{HeldLimit: 2 * chunk, Events: func(e Event) {
		if e.Kind == EventFull {
			full <- v.Status().Held
		}
	}}, a)
	defer v.Close()
	was := v.Status()
	w := newLookingRequest(v, 0, make([]byte, chunk))
	v.Submit(&w.r)
	<-w.done
	if s := w.atComplete; s.Allocated != was.Allocated+1 || s.Free != was.Free-1 || s.Stats.Commits != 1 || s.Stats.CommittedChunks != 1 {
		t.Errorf("a write of a new chunk was told that it is done, and then was counted: %+v", s)
	}
	mustDo(t, v.SetReserve(was.Free-1))
	ws := []*lookingRequest{newLookingRequest(v, 4*chunk, make([]byte, chunk)), newLookingRequest(v, 8*chunk, make([]byte, chunk))}
	for i, w := range ws {
		v.Submit(&w.r)
		<-w.held
		if h := w.atHeld; h.Count != i+1 || h.Bytes != int64(i+1)*chunk {
			t.Errorf("write %d was told that it is held: %d of %d bytes were", i, h.Count, h.Bytes)
		}
	}
	if h := <-full; h.Count != 1 {
		t.Errorf("that the volume is full was told when %d writes were held", h.Count)
	}
	if v.HeldFull() == nil {
		t.Error("the limit is reached, and nobody is told")
	}
	room := v.HeldFull()
	ws[0].refuse.Store(true)
	mustDo(t, v.SetReserve(0))
	for range 100 { // tried again and again, none goes on
		v.RetryHeld()
	}
	ws[0].refuse.Store(false)
	v.RetryHeld()
	for i, w := range ws {
		<-w.done
		if h := w.atResumed; h.Count != 2-i || h.Bytes != int64(2-i)*chunk || w.over != (i == 0) {
			t.Errorf("write %d went on beside %d of %d bytes that are held, limit reached: %v", i, h.Count, h.Bytes, w.over)
		}
	}
	<-room
	if s := ws[1].atComplete; s.Held.Count != 0 || s.Held.Bytes != 0 {
		t.Errorf("%d writes of %d bytes are held when the last one is done", s.Held.Count, s.Held.Bytes)
	}
}

// TestWritesThatAreTriedAgainFillTheLimitMeanwhile: who waits for room in it would read
// more with each trial.
func TestWritesThatAreTriedAgainFillTheLimitMeanwhile(t *testing.T) {
	const chunk = 128 << 10
	v := openFull(t, 1)
	defer v.Close()
	v.SetHeldLimit(chunk)
	w := newLookingRequest(v, 4*chunk, make([]byte, chunk))
	v.Submit(&w.r)
	<-w.held
	room := v.HeldFull()
	w.refuse.Store(true)
	free := v.Status().Free
	mustDo(t, v.SetReserve(free-1))
	for range 100 {
		v.RetryHeld()
		v.committer.pause()
		v.committer.unpause()
	}
	select {
	case <-room:
		t.Error("there was room while the only write that is held was tried again")
	default:
	}
	if n := v.FailHeld(); n != 1 {
		t.Errorf("%d writes were given up, want 1", n)
	}
	if <-w.done; w.r.Err == nil {
		t.Error("it was done though it was refused to go on")
	}
	<-room
}
