package virstor

import (
	"bytes"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib/disktest"
)

func TestZeroesThatAreToStayAllocateUnlessZerosAreDetected(t *testing.T) {
	for _, detect := range []bool{false, true} {
		a := disktest.New("a", 16*crashChunk, 512).FillJunk(1)
		labelled(t, 64, a)
		v, err := openDisks(Config{DetectZeroes: detect}, []*disktest.Disk{a})
		mustDo(t, err)
		data := bytes.Repeat([]byte{7}, crashChunk)
		_, err = v.WriteAt(data, 0)
		mustDo(t, err)
		mustDo(t, v.WriteZeroes(0, 2*crashChunk, NoHole))
		got := make([]byte, 2*crashChunk)
		_, err = v.ReadAt(got, 0)
		mustDo(t, err)
		want := int64(2)
		if detect {
			want = 0
		}
		if n := v.allocatedIn(0, v.Size()); n != want || !isZero(got) {
			t.Errorf("detected: %v: %d chunks are allocated, want %d; zeros: %v", detect, n, want, isZero(got))
		}
		mustDo(t, v.Close())
	}
}
