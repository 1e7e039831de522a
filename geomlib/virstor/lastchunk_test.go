package virstor

import (
	"bytes"
	"errors"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/ondisk"
)

// onLastChunk is a volume of 16 chunks on one disk of 64, as the kernel class leaves one
// that it filled to the end: virtual chunk 0 lies on the chunk that ends in the metadata
// sector.
func onLastChunk(t *testing.T) (*disktest.Disk, *Volume) {
	t.Helper()
	const chunks = 64
	d := disktest.New("a", chunks*crashChunk, 512)
	labelled(t, 16, d)
	m, err := geomlib.ReadMetadata(d)
	mustDo(t, err)
	m.ChunkCount, m.ChunkNext = chunks, chunks
	mustDo(t, geomlib.StoreMetadata(d, m))
	b := make([]byte, 512)
	ondisk.Entry{Flags: ondisk.FlagAllocated, Chunk: chunks - 1}.Encode(b, ondisk.LittleEndian)
	_, err = d.WriteAt(b, 0)
	mustDo(t, err)
	v, err := openDisks(Config{serial: true, WhenFull: Fail}, []*disktest.Disk{d})
	mustDo(t, err)
	return d, v
}

func TestAChunkThatEndsInTheMetadataIsNotGivenOutWhenItWasFreed(t *testing.T) {
	_, v := onLastChunk(t)
	defer v.Close()
	mustDo(t, v.Discard(0, crashChunk))
	mustDo(t, v.Flush())
	for vc := range int64(16) {
		_, err := v.WriteAt(make([]byte, 512), vc*crashChunk)
		if err != nil && !errors.Is(err, ErrNoSpace) {
			t.Fatal(err)
		}
	}
	grants, _ := v.alloc.Take(nil, int(v.Status().Free), true)
	for _, g := range grants {
		if g.At.Chunk >= v.component(0).usable() {
			t.Errorf("chunk %d is given out", g.At.Chunk)
		}
	}
}

func TestASnapshotKeepsAChunkThatEndsInTheMetadata(t *testing.T) {
	d, v := onLastChunk(t)
	want, got := bytes.Repeat([]byte{7}, 512), make([]byte, 512)
	_, err := v.WriteAt(want, 0)
	mustDo(t, err)
	mustDo(t, v.Snapshot("monday"))
	_, err = v.WriteAt([]byte{1}, 0) // elsewhere
	mustDo(t, err)
	for range 2 {
		mustDo(t, v.Close())
		v, err = openDisks(Config{serial: true, WhenFull: Fail}, []*disktest.Disk{d})
		mustDo(t, err)
		w, err := v.OpenSnapshot("monday")
		mustDo(t, err)
		_, err = w.ReadAt(got, 0)
		mustDo(t, err)
		if !bytes.Equal(got, want) {
			t.Errorf("it holds %d", got[0])
		}
		w.Close()
	}
	mustDo(t, v.DeleteSnapshot("monday"))
	mustDo(t, v.Flush())
	mustDo(t, v.Close())
	if m, err := geomlib.ReadMetadata(d); err != nil || m.ChunkCount != 64 {
		t.Errorf("%d chunks, %v", m.ChunkCount, err)
	}
	for range 2 {
		v, err = openDisks(Config{serial: true}, []*disktest.Disk{d})
		mustDo(t, err)
		if n := v.component(0).meta().ChunkCount; n != 63 {
			t.Errorf("%d chunks when nothing names the last", n)
		}
		mustDo(t, v.Close())
	}
}
