package blackbox

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ondisk"
)

// What a daemon keeps in memory depends on what is allocated, not on how large
// the volume is.
func TestMemoryOfLargeVolumes(t *testing.T) {
	const (
		base      = 10 << 20
		perChunk  = 10   // bytes, where chunks follow each other
		perPage   = 4096 // bytes, for 512 chunks of which any is allocated
		pageChunk = 512
	)
	for _, tt := range []struct {
		what   string
		chunks int // allocated
		every  uint64
		limit  int
	}{
		{"empty", 0, 1, base},
		{"filled in sequence", 1 << 20, 1, base + perChunk<<20},
		{"scattered", 1 << 14, pageChunk, base + perPage<<14},
	} {
		t.Run(tt.what, func(t *testing.T) {
			s := newSite(t, 8<<40)
			s.label("-s", "64t")
			allocate(t, s.files[0], tt.chunks, tt.every)
			s.start()
			got := memoryKB(t, s.cmd.Process.Pid, "RssAnon") << 10
			t.Logf("64 TiB, %d chunks allocated: %.1f MiB of memory, limit %.1f", tt.chunks, float64(got)/(1<<20), float64(tt.limit)/(1<<20))
			if got > tt.limit {
				t.Errorf("%d bytes of memory with %d chunks allocated, limit %d", got, tt.chunks, tt.limit)
			}
		})
	}
}

// allocate writes a map that has every n-th virtual chunk allocated.
func allocate(t *testing.T, name string, chunks int, n uint64) {
	t.Helper()
	p, err := geomlib.Open(name, geomlib.OpenOptions{NoLock: true})
	if err != nil {
		t.Fatal(err)
	}
	m, err := geomlib.ReadMetadata(p)
	if err = errors.Join(err, p.Close()); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var run []byte
	for i := range uint64(chunks) {
		var b [ondisk.EntrySize]byte
		ondisk.Entry{Flags: ondisk.FlagAllocated, Chunk: uint32(m.ChunkReserved) + uint32(i)}.Encode(b[:], ondisk.LittleEndian)
		if run = append(run, b[:]...); n == 1 && i+1 < uint64(chunks) {
			continue
		}
		at := (i + 1) * n * ondisk.EntrySize
		if _, err := f.WriteAt(run, int64(at)-int64(len(run))); err != nil {
			t.Fatal(fmt.Errorf("write the map: %w", err))
		}
		run = run[:0]
	}
}
