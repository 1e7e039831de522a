package virstor

import (
	"bytes"
	"errors"
	"runtime"
	"testing"

	"pgregory.net/rapid"
)

// heldRequest is a write that is to be held, and does what the test says when it may
// go on.
type heldRequest struct {
	*toldRequest
	refuse bool // to be held, and to go on; guarded by mu
}

func newHeldRequest(op Op, off int64, data []byte) *heldRequest {
	w := &heldRequest{toldRequest: newToldRequest(op, off, data)}
	w.r.Done = w
	return w
}

func (w *heldRequest) Held(r *Request) bool {
	w.toldRequest.Held(r)
	return !w.refused()
}

func (w *heldRequest) Resumed(r *Request) bool {
	w.toldRequest.Resumed(r)
	return !w.refused()
}

func (w *heldRequest) refused() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.refuse
}

// openFull opens a volume of 64 chunks, of which the first ones named are written
// with ones, and no more can be.
func openFull(t testing.TB, chunks int64) *Volume {
	t.Helper()
	const chunk = 128 << 10
	a := newMem("a", 4<<20, 512)
	label(t, 8<<20, chunk, a)
	v := open(t, Config{}, a)
	for c := range chunks {
		if _, err := v.WriteAt(bytes.Repeat([]byte{1}, chunk), c*chunk); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.SetReserve(v.Status().Free); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestAHeldWriteThatNobodyWaitsForEndsAtOnce(t *testing.T) {
	const chunk = 128 << 10
	v := openFull(t, 1)
	defer v.Close()
	v.SetHeldLimit(chunk)
	first, second := newHeldRequest(OpWrite, 4*chunk, make([]byte, chunk)), newHeldRequest(OpWrite, 8*chunk, make([]byte, chunk))
	for _, w := range []*heldRequest{first, second} {
		v.Submit(&w.r)
		<-w.held
	}
	v.EndHeld(&first.r)
	<-first.done
	if !errors.Is(first.r.Err, ErrAbandoned) {
		t.Errorf("ended with %v", first.r.Err)
	}
	if h := v.Status().Held; h.Count != 1 || h.Bytes != chunk {
		t.Errorf("%d writes of %d bytes are held, want 1 of %d", h.Count, h.Bytes, chunk)
	}
	v.EndHeld(&second.r)
	<-second.done
	if v.HeldFull() != nil {
		t.Error("the volume still says that it holds its limit")
	}
	if err := v.SetReserve(0); err != nil {
		t.Fatal(err)
	}
	if n := v.allocatedIn(0, v.Size()); n != 1 {
		t.Errorf("%d chunks are allocated, want 1", n)
	}
}

func TestAWriteThatNobodyWaitsForIsNotHeld(t *testing.T) {
	const chunk = 128 << 10
	v := openFull(t, 1)
	defer v.Close()
	w := newHeldRequest(OpWrite, chunk, make([]byte, chunk))
	w.refuse = true
	v.Submit(&w.r)
	<-w.done
	if h := v.Status().Held; !errors.Is(w.r.Err, ErrAbandoned) || h.Count != 0 || h.Bytes != 0 {
		t.Errorf("ended with %v, %d writes of %d bytes are held", w.r.Err, h.Count, h.Bytes)
	}
}

func TestAHeldWriteThatMayNotGoOnYetKeepsItsPlace(t *testing.T) {
	const chunk = 128 << 10
	v := openFull(t, 1)
	defer v.Close()
	first, second := newHeldRequest(OpWrite, chunk, make([]byte, chunk)), newHeldRequest(OpWrite, 2*chunk, make([]byte, chunk))
	for _, w := range []*heldRequest{first, second} {
		v.Submit(&w.r)
		<-w.held
	}
	first.mu.Lock()
	first.refuse = true
	first.mu.Unlock()
	free := v.Status().Free
	before := v.stats.commits.Load()
	if err := v.SetReserve(free - 1); err != nil { // room for one of them
		t.Fatal(err)
	}
	for v.stats.commits.Load() == before {
		runtime.Gosched()
	}
	select {
	case <-second.done:
		t.Error("a write that came later took the chunk of one that was to wait a little")
	default:
	}
	first.mu.Lock()
	first.refuse = false
	first.mu.Unlock()
	v.RetryHeld()
	<-first.done
	if first.r.Err != nil {
		t.Error(first.r.Err)
	}
}

// TestAHeldWriteLeavesAloneWhatLaterRequestsDid: whatever they cover of it, to
// the byte, with and without FUA, data and zeros.
func TestAHeldWriteLeavesAloneWhatLaterRequestsDid(t *testing.T) {
	t.Parallel()
	tb := t
	rapid.Check(t, func(t *rapid.T) {
		const chunk, allocated, size = 128 << 10, 4, 12 * 128 << 10
		v := openFull(tb, allocated)
		defer v.Close()
		model := make([]byte, size)
		copy(model, bytes.Repeat([]byte{1}, allocated*chunk))
		span := rapid.IntRange(0, size/512).Draw
		offset, end := 512*span(t, "from"), 512*span(t, "to")
		if offset > end {
			offset, end = end, offset
		}
		end = max(end, allocated*chunk+512) // so that it needs a chunk
		offset = min(offset, end-512)
		w := newHeldRequest(OpWrite, int64(offset), bytes.Repeat([]byte{2}, end-offset))
		if rapid.Bool().Draw(t, "zeroes") {
			w.r.Op, w.r.Flags, w.r.Data = OpWriteZeroes, NoHole, nil
			copy(model[offset:end], make([]byte, end-offset))
		} else {
			copy(model[offset:end], w.r.Data)
		}
		if rapid.Bool().Draw(t, "FUA") {
			w.r.Flags |= FUA
		}
		v.Submit(&w.r)
		<-w.held
		for i := range rapid.IntRange(0, 4).Draw(t, "later requests") {
			from := rapid.IntRange(0, size-1).Draw(t, "at")
			n := rapid.IntRange(1, min(2*chunk, size-from)).Draw(t, "bytes")
			b := bytes.Repeat([]byte{byte(10 + i)}, n)
			if from+n > allocated*chunk { // there is no chunk to write to: zeroes
				clear(b)
				if err := v.WriteZeroes(int64(from), int64(n), 0); err != nil {
					t.Fatal(err)
				}
			} else if _, err := v.WriteAt(b, int64(from)); err != nil {
				t.Fatal(err)
			}
			v.Supersede(&w.r, int64(from), int64(n))
			copy(model[from:], b)
		}
		if err := v.SetReserve(0); err != nil {
			t.Fatal(err)
		}
		<-w.done
		if w.r.Err != nil {
			t.Fatal(w.r.Err)
		}
		got := make([]byte, size)
		if _, err := v.ReadAt(got, 0); err != nil {
			t.Fatal(err)
		}
		if i := firstDifference(got, model); i >= 0 {
			t.Fatalf("byte %d is %d, want %d", i, got[i], model[i])
		}
	})
}

func firstDifference(a, b []byte) int {
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}
