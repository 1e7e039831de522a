package virstor

import (
	"errors"
	"runtime"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
)

func TestTheReserveStaysUntilItIsReleased(t *testing.T) {
	const chunk = 128 << 10
	a := newMem("a", 2<<20, 512)
	label(t, 8<<20, chunk, a)
	v := open(t, Config{Reserve: 3}, a)
	t.Cleanup(func() { v.Close() })
	b := make([]byte, chunk)
	var held *toldRequest
	for off := int64(0); held == nil; off += chunk {
		q := newToldRequest(OpWrite, off, b)
		v.Submit(&q.r)
		select {
		case <-q.done:
		case <-q.held:
			held = q
		}
	}
	if s := v.Status(); s.Free != 3 || s.Reserved != 3 || s.Held.Count != 1 {
		t.Fatalf("free %d, reserved %d, held %d", s.Free, s.Reserved, s.Held.Count)
	}
	if err := v.SetReserve(-2); !errors.Is(err, ErrRequest) {
		t.Errorf("a negative reserve: %v", err)
	}
	if err := v.SetReserve(1000); !errors.Is(err, ErrRequest) {
		t.Errorf("a reserve beyond the volume: %v", err)
	}
	if err := v.SetReserve(0); err != nil {
		t.Fatal(err)
	}
	<-held.done
	if held.r.Err != nil {
		t.Fatal(held.r.Err)
	}
	if s := v.Status(); s.Free != 2 || s.Reserved != 0 || s.Held.Count != 0 {
		t.Errorf("free %d, reserved %d, held %d", s.Free, s.Reserved, s.Held.Count)
	}
}

func TestAReserveBySizeFollowsTheComponents(t *testing.T) {
	const chunk = 128 << 10
	for physical, want := range map[int64]int64{0: 0, 3: 0, 4: 1, 13: 3, 16: 4, 100: 4, 250: 5, 1000: 20, 3200: 64, 1 << 30: 64} {
		if got := autoReserve(physical); got != want {
			t.Errorf("of %d chunks %d are kept, want %d", physical, got, want)
		}
	}
	a, b := newMem("a", 65*chunk, 512), newMem("b", 301*chunk, 512)
	label(t, 64<<20, chunk, a)
	v := open(t, Config{Reserve: ReserveAuto}, a)
	t.Cleanup(func() { v.Close() })
	kept := func(want int64) {
		t.Helper()
		if s := v.Status(); s.Reserved != want || s.Reserved != autoReserve(s.PhysicalChunks) {
			t.Errorf("of %d chunks %d are kept, want %d", s.PhysicalChunks, s.Reserved, want)
		}
	}
	kept(4)
	if err := v.Add([]geomlib.Provider{b}, AddOptions{}); err != nil {
		t.Fatal(err)
	}
	kept(7)
	if err := v.SetReserve(0); err != nil {
		t.Fatal(err)
	}
	if err := v.Remove("b"); err != nil {
		t.Fatal(err)
	}
	if s := v.Status(); s.Reserved != 0 { // released, and stays so
		t.Errorf("%d chunks are kept", s.Reserved)
	}
	if err := v.SetReserve(ReserveAuto); err != nil {
		t.Fatal(err)
	}
	kept(4)
}

func TestHeldWritesGoOnInTheirOrder(t *testing.T) {
	const chunk, writes = 128 << 10, 8
	a := newMem("a", 4<<20, 512)
	label(t, 8<<20, chunk, a)
	v := open(t, Config{}, a)
	t.Cleanup(func() { v.Close() })
	room := v.Status().Free
	if err := v.SetReserve(room); err != nil {
		t.Fatal(err)
	}
	var held []*toldRequest
	for i := range int64(writes) {
		n := int64(1)
		if i == 3 {
			n = 3 // what it needs is not taken by the smaller ones behind it
		}
		q := newToldRequest(OpWrite, 4*i*chunk, make([]byte, n*chunk))
		v.Submit(&q.r)
		<-q.held
		held = append(held, q)
	}
	for i, q := range held {
		free, need := v.Status().Free, q.r.Length/chunk
		for n := int64(1); n <= need; n++ { // one more chunk at a time
			before := v.stats.commits.Load()
			if err := v.SetReserve(free - n); err != nil {
				t.Fatal(err)
			}
			for v.stats.commits.Load() == before { // until they were tried
				runtime.Gosched()
			}
		}
		<-q.done
		if q.r.Err != nil {
			t.Fatal(q.r.Err)
		}
		for n, other := range held[i+1:] {
			select {
			case <-other.done:
				t.Fatalf("held write %d goes on before write %d", i+1+n, i+1)
			default:
			}
		}
	}
	if s := v.Status(); s.Held.Count != 0 || s.Allocated != writes+2 {
		t.Errorf("%d writes are held, %d chunks allocated", s.Held.Count, s.Allocated)
	}
}

func TestAVolumeWithHeldWritesIsFlushedAndStoppedWithoutAHang(t *testing.T) {
	const chunk = 128 << 10
	for _, end := range []struct {
		name string
		do   func(v *Volume) error
	}{
		{"close", (*Volume).Close},
		{"stop", (*Volume).Stop},
		{"fail held, then stop", func(v *Volume) error {
			if n := v.FailHeld(); n != 1 {
				t.Errorf("%d writes given up", n)
			}
			return v.Stop()
		}},
	} {
		t.Run(end.name, func(t *testing.T) {
			a := newMem("a", 2<<20, 512)
			label(t, 8<<20, chunk, a)
			v := open(t, Config{}, a)
			b := make([]byte, chunk)
			var held *toldRequest
			for off := int64(0); held == nil; off += chunk {
				q := newToldRequest(OpWrite, off, b)
				v.Submit(&q.r)
				select {
				case <-q.done:
				case <-q.held:
					held = q
				}
			}
			if err := v.Flush(); err != nil {
				t.Errorf("flush beside a held write: %v", err)
			}
			if _, err := v.ReadAt(b, 0); err != nil {
				t.Errorf("read beside a held write: %v", err)
			}
			if _, err := v.WriteAt(b, 0); err != nil {
				t.Errorf("overwrite beside a held write: %v", err)
			}
			if err := end.do(v); err != nil {
				t.Errorf("%s: %v", end.name, err)
			}
			<-held.done
			if !errors.Is(held.r.Err, ErrNoSpace) && !errors.Is(held.r.Err, ErrClosed) {
				t.Errorf("the held write ended with %v", held.r.Err)
			}
		})
	}
}
