package virstor

import (
	"errors"
	"sync"
	"testing"
)

func TestAHistogramLosesNothingThatManyAddAtOnce(t *testing.T) {
	var h histogram
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range uint64(1000) {
				h.add(i)
			}
		})
	}
	wg.Wait()
	got := h.read()
	if got.Count() != 8000 || got.Sum != 8*999*1000/2 {
		t.Errorf("count %d, sum %d", got.Count(), got.Sum)
	}
	// 0; 1; 2,3; 4-7; …; 512-999.
	for i, want := range []uint64{1, 1, 2, 4, 8, 16, 32, 64, 128, 256, 488} {
		if got.Buckets[i] != 8*want {
			t.Errorf("bucket %d: %d, want %d", i, got.Buckets[i], 8*want)
		}
	}
	h.add(1 << 60)
	if n := h.read().Buckets[HistogramBuckets-1]; n != 1 {
		t.Errorf("the last bucket has %d of what is beyond it", n)
	}
}

func TestOperationsAreCountedByKindBytesAndErrors(t *testing.T) {
	const chunk = 128 << 10
	a := newMem("a", 2<<20, 512)
	label(t, 8<<20, chunk, a)
	v := open(t, Config{WhenFull: Fail}, a)
	t.Cleanup(func() { v.Close() })
	b := make([]byte, chunk)
	var failed uint64
	for off := int64(0); off < 4<<20; off += chunk {
		if _, err := v.WriteAt(b, off); errors.Is(err, ErrNoSpace) {
			failed++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := v.ReadAt(b[:4096], 0); err != nil {
		t.Fatal(err)
	}
	if err := v.Flush(); err != nil {
		t.Fatal(err)
	}
	w := v.OpStats(OpWrite)
	if failed == 0 || w.Count != 32 || w.Errors != failed || w.Bytes != (32-failed)*chunk || w.Latency.Count() > 32 {
		t.Errorf("writes: %d, %d errors of %d, %d bytes, %d ns", w.Count, w.Errors, failed, w.Bytes, w.Latency.Sum)
	}
	if r := v.OpStats(OpRead); r.Count != 1 || r.Bytes != 4096 || r.Errors != 0 {
		t.Errorf("reads: %+v", r)
	}
	if f := v.OpStats(OpFlush); f.Count != 1 || f.Latency.Count() != 1 || f.Latency.Sum == 0 || f.Bytes != 0 {
		t.Errorf("flushes: %+v", f)
	}
	sizes := v.CommitSizes()
	if sizes.Sum != 32-failed || sizes.Count() == 0 || sizes.Buckets[0] != 0 {
		t.Errorf("commit sizes: %+v", sizes)
	}
}
