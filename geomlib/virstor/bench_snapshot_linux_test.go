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
// clients write 4 KiB each and 8 discard as much, each a thousand times a second, for some time
// before and after it. It tells what the bytes of the map alone take to be written and flushed,
// how long the snapshot took, and what the clients waited: those that write each once for a copy
// of a chunk of 4 MiB, too, and those that discard for the snapshot alone.
func BenchmarkSnapshotWhole(b *testing.B) {
	names := fullVolume(b)
	v, err := Open(Assemble(openMembers(b, names, true))[0], Config{})
	if err != nil {
		b.Fatal(err)
	}
	defer v.Close()
	const mapBytes = 128 << 20
	alone := filepath.Join(b.TempDir(), "map")
	var mapTimes, times, writes, discards []time.Duration
	for b.Loop() {
		b.StopTimer()
		mapTimes = append(mapTimes, writeAlone(b, alone, mapBytes))
		block := make([]byte, 4096)
		w := clientsOf(v, 0, func(off int64) error { _, err := v.WriteAt(block, off); return err })
		d := clientsOf(v, 1, func(off int64) error { return v.Discard(off, 4096) })
		time.Sleep(300 * time.Millisecond)
		b.StartTimer()
		began := time.Now()
		err := v.Snapshot("s")
		times = append(times, time.Since(began))
		b.StopTimer()
		time.Sleep(300 * time.Millisecond)
		writes = append(writes, w.stop(b)...)
		discards = append(discards, d.stop(b)...)
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
	for _, of := range [][]time.Duration{mapTimes, times, writes, discards} {
		slices.Sort(of)
	}
	ms := func(of []time.Duration, part float64) float64 {
		return of[int(part*float64(len(of)-1))].Seconds() * 1000
	}
	b.ReportMetric(ms(mapTimes, .5), "map-alone-ms")
	b.ReportMetric(ms(times, .5), "snapshot-ms")
	b.ReportMetric(ms(times, 1), "longest-snapshot-ms")
	b.ReportMetric(ms(writes, .999), "write-p99.9-ms")
	b.ReportMetric(ms(writes, 1), "longest-write-ms")
	b.ReportMetric(ms(discards, .999), "discard-p99.9-ms")
	b.ReportMetric(ms(discards, 1), "longest-discard-ms")
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

// pacedClients each do requests to a chunk of their own, and note how long each took.
type pacedClients struct {
	wg    sync.WaitGroup
	ended chan struct{}
	waits [8][]time.Duration
	errs  [8]error
}

// clientsOf have do called with offsets in chunks of which those with another nth have none.
func clientsOf(v *Volume, nth int64, do func(off int64) error) *pacedClients {
	c := &pacedClients{ended: make(chan struct{})}
	for i := range c.waits {
		first := (int64(i)*v.Size()/int64(len(c.waits))/v.chunk + nth) * v.chunk
		c.wg.Go(func() {
			pace := time.NewTicker(time.Millisecond)
			defer pace.Stop()
			for at := int64(0); c.errs[i] == nil; at = (at + 4096) % v.chunk {
				select {
				case <-c.ended:
					return
				case <-pace.C:
				}
				began := time.Now()
				c.errs[i] = do(first + at)
				c.waits[i] = append(c.waits[i], time.Since(began))
			}
		})
	}
	return c
}

// stop ends them, and gives how long their requests took.
func (c *pacedClients) stop(b *testing.B) []time.Duration {
	b.Helper()
	close(c.ended)
	c.wg.Wait()
	for _, err := range c.errs {
		if err != nil {
			b.Error(err)
		}
	}
	return slices.Concat(c.waits[:]...)
}
