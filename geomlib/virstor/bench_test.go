package virstor

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/ondisk"
)

const benchSize = 256 << 20

// benchFile is a volume on one sparse file, its first benchSize bytes
// written, and the same file opened a second time.
func benchFile(b *testing.B) (*Volume, *os.File) {
	b.Helper()
	path := filepath.Join(b.TempDir(), "component")
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	if err := f.Truncate(benchSize + 64<<20); err != nil {
		b.Fatal(err)
	}
	p, err := geomlib.Open(path, geomlib.OpenOptions{})
	if err != nil {
		b.Fatal(err)
	}
	l, err := ondisk.Plan(ondisk.LabelRequest{Name: "vol", VirtualSize: 1 << 40, ChunkSize: 4 << 20, ID: 3,
		Providers: []ondisk.LabelProvider{{Name: "component", Size: p.MediaSize(), SectorSize: 512}}})
	if err != nil {
		b.Fatal(err)
	}
	if err := Label(b.Context(), []geomlib.Provider{p}, l, LabelOptions{}); err != nil {
		b.Fatal(err)
	}
	m, err := geomlib.ReadMetadata(p)
	if err != nil {
		b.Fatal(err)
	}
	v, err := Open(Assemble([]Member{{p, m}})[0], Config{})
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 1<<20)
	for i := range buf {
		buf[i] = byte(i)
	}
	for off := int64(0); off < benchSize; off += int64(len(buf)) {
		if _, err := v.WriteAt(buf, off); err != nil {
			b.Fatal(err)
		}
	}
	b.Cleanup(func() { _ = errors.Join(v.Close(), f.Close()) })
	return v, f
}

func BenchmarkMapped4K(b *testing.B) {
	v, f := benchFile(b)
	buf := make([]byte, 4096)
	offsets := make([]int64, 4096)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range offsets {
		offsets[i] = rng.Int64N(benchSize/4096) * 4096
	}
	for _, c := range []struct {
		name string
		op   func(off int64) (int, error)
	}{
		{"pread", func(off int64) (int, error) { return f.ReadAt(buf, 8<<20+off) }},
		{"read", func(off int64) (int, error) { return v.ReadAt(buf, off) }},
		{"pwrite", func(off int64) (int, error) { return f.WriteAt(buf, 8<<20+off) }},
		{"write", func(off int64) (int, error) { return v.WriteAt(buf, off) }},
		{"unmapped", func(off int64) (int, error) { return v.ReadAt(buf, 1<<39+off) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(4096)
			for i := 0; b.Loop(); i++ {
				if _, err := c.op(offsets[i%len(offsets)]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkAllocate writes to new chunks on a disk whose flush takes 1 ms.
func BenchmarkAllocate(b *testing.B) {
	for _, writers := range []int{1, 32} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			d := disktest.New("a", 1<<40, 512)
			labelled(b, 1<<22, d)
			v, err := openDisks(Config{}, []*disktest.Disk{d})
			if err != nil {
				b.Fatal(err)
			}
			d.SetFlushDelay(time.Millisecond)
			b.ResetTimer()
			var wg sync.WaitGroup
			for w := range writers {
				wg.Go(func() {
					buf := make([]byte, 4096)
					for i := w; i < b.N; i += writers {
						if _, err := v.WriteAt(buf, int64(i)*crashChunk); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			d.SetFlushDelay(0)
			_ = v.Close()
		})
	}
}

// BenchmarkFlush writes 4 KiB to a chunk that is there and flushes, on a disk whose
// flush takes 1 ms. Callers that wait together share the device's flushes.
func BenchmarkFlush(b *testing.B) {
	for _, callers := range []int{1, 32} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			d := disktest.New("a", 1<<30, 512)
			labelled(b, 64, d)
			v, err := openDisks(Config{}, []*disktest.Disk{d})
			if err != nil {
				b.Fatal(err)
			}
			if _, err := v.WriteAt(make([]byte, 4096), 0); err != nil {
				b.Fatal(err)
			}
			d.SetFlushDelay(time.Millisecond)
			d.ResetCounts()
			b.ResetTimer()
			var wg sync.WaitGroup
			for w := range callers {
				wg.Go(func() {
					buf := make([]byte, 4096)
					for i := w; i < b.N; i += callers {
						if _, err := v.WriteAt(buf, 0); err != nil {
							b.Error(err)
							return
						}
						if err := v.Flush(); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			b.ReportMetric(float64(d.Count(disktest.Flush))/float64(b.N), "device-flushes/op")
			d.SetFlushDelay(0)
			_ = v.Close()
		})
	}
}
