package virstor

import (
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

// BenchmarkSnapshotWhole takes a snapshot of a volume of 64 TiB that is all allocated, while 8
// clients write 4 KiB each, one after the other, for some time before and after it. It tells
// what the bytes of the map alone take to be written and flushed, how long the snapshot took,
// and what the clients waited: each of them once for a copy of its chunk, too.
func BenchmarkSnapshotWhole(b *testing.B) {
	names := fullVolume(b)
	v, err := Open(Assemble(openMembers(b, names, true))[0], Config{})
	if err != nil {
		b.Fatal(err)
	}
	defer v.Close()
	const mapBytes = 128 << 20
	alone := filepath.Join(b.TempDir(), "map")
	var mapTimes, times, waits []time.Duration
	for b.Loop() {
		b.StopTimer()
		mapTimes = append(mapTimes, writeAlone(b, alone, mapBytes))
		w := writersOf(v, 8)
		time.Sleep(300 * time.Millisecond)
		b.StartTimer()
		began := time.Now()
		err := v.Snapshot("s")
		times = append(times, time.Since(began))
		b.StopTimer()
		time.Sleep(300 * time.Millisecond)
		waits = append(waits, w.stop(b)...)
		if err == nil {
			err = v.DeleteSnapshot("s")
		}
		if err == nil {
			err = v.Flush()
		}
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	slices.Sort(mapTimes)
	slices.Sort(times)
	slices.Sort(waits)
	ms := func(of []time.Duration, part float64) float64 {
		return of[int(part*float64(len(of)-1))].Seconds() * 1000
	}
	b.ReportMetric(ms(mapTimes, .5), "map-alone-ms")
	b.ReportMetric(ms(times, .5), "snapshot-ms")
	b.ReportMetric(ms(times, 1), "longest-snapshot-ms")
	b.ReportMetric(ms(waits, .5)*1000, "p50-us")
	b.ReportMetric(ms(waits, .999), "p99.9-ms")
	b.ReportMetric(ms(waits, 1), "longest-write-ms")
}

// writeAlone writes n bytes to a file, flushes them, and tells how long that took.
func writeAlone(b *testing.B, path string, n int) time.Duration {
	b.Helper()
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	buf := make([]byte, 1<<20)
	began := time.Now()
	for at := 0; at < n; at += len(buf) {
		if _, err := f.Write(buf); err != nil {
			b.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
	return time.Since(began)
}

// latencyWriters write, each to a chunk of its own, and note how long each write took.
type latencyWriters struct {
	wg    sync.WaitGroup
	ended chan struct{}
	waits [][]time.Duration
	errs  []error
}

func writersOf(v *Volume, n int) *latencyWriters {
	w := &latencyWriters{ended: make(chan struct{}), waits: make([][]time.Duration, n), errs: make([]error, n)}
	for i := range n {
		w.wg.Go(func() {
			block := make([]byte, 4096)
			for at := int64(0); w.errs[i] == nil; at = (at + 4096) % v.chunk {
				select {
				case <-w.ended:
					return
				default:
				}
				began := time.Now()
				_, w.errs[i] = v.WriteAt(block, int64(i)*v.Size()/int64(n)/v.chunk*v.chunk+at)
				w.waits[i] = append(w.waits[i], time.Since(began))
			}
		})
	}
	return w
}

// stop ends them, and gives how long their writes took.
func (w *latencyWriters) stop(b *testing.B) []time.Duration {
	b.Helper()
	close(w.ended)
	w.wg.Wait()
	for _, err := range w.errs {
		if err != nil {
			b.Error(err)
		}
	}
	return slices.Concat(w.waits...)
}
