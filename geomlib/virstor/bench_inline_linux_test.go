package virstor

import (
	"math/rand/v2"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// noted is a Completer that needs nobody to wake.
type noted struct{ done int }

func (n *noted) Complete(*Request) { n.done++ }

// BenchmarkInline reads 4 KiB as a front does, which takes the completion within
// Submit, and the same bytes by pread(2).
func BenchmarkInline(b *testing.B) {
	v, f := benchFile(b)
	fd := int(f.Fd())
	buf := make([]byte, 4096)
	if _, err := unix.Preadv2(fd, [][]byte{buf}, 0, unix.RWF_NOWAIT); err != nil {
		// A submitted request would be another worker's, and b.Loop would reuse it.
		b.Skipf("this file system reads nothing at once: %v; set TMPDIR to one that does", err)
	}
	offsets := make([]int64, 4096)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range offsets {
		offsets[i] = rng.Int64N(benchSize/4096) * 4096
	}
	var done noted
	r := Request{Op: OpRead, Length: 4096, Data: buf, Done: &done}
	for _, c := range []struct {
		name string
		op   func(off int64) error
	}{
		{"pread", func(off int64) error { _, err := unix.Pread(fd, buf, 8<<20+off); return err }},
		{"preadv2", func(off int64) error {
			_, err := unix.Preadv2(fd, [][]byte{buf}, 8<<20+off, unix.RWF_NOWAIT)
			return err
		}},
		{"submit", func(off int64) error { r.Offset, r.Flags = off, 0; v.Submit(&r); return r.Err }},
		{"submit may block", func(off int64) error { r.Offset, r.Flags = off, MayBlock; v.Submit(&r); return r.Err }},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(4096)
			done.done = 0
			n := 0
			for ; b.Loop(); n++ {
				if err := c.op(offsets[n%len(offsets)]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkOpStats tells what OpStats cost a 4 KiB read, as a front does it, in
// time of the processor, which other programs do not take away: batches with
// and without them alternate, and medians are compared.
func BenchmarkOpStats(b *testing.B) {
	const batch = 500
	v, _ := benchFile(b)
	var done noted
	r := Request{Op: OpRead, Length: 4096, Data: make([]byte, 4096), Done: &done}
	rng := rand.New(rand.NewPCG(1, 2))
	perRead := func(uncounted bool) float64 {
		v.cfg.uncounted = uncounted
		begin := processorTime(b)
		for range batch {
			r.Offset, r.Flags = rng.Int64N(benchSize/4096)*4096, MayBlock
			if v.Submit(&r); r.Err != nil {
				b.Fatal(r.Err)
			}
		}
		return float64(processorTime(b)-begin) / batch
	}
	var with, without []float64
	for b.Loop() {
		without = append(without, perRead(true))
		with = append(with, perRead(false))
	}
	quick := func(times []float64) float64 {
		slices.Sort(times)
		return times[len(times)/10]
	}
	b.ReportMetric(quick(without), "ns/read")
	b.ReportMetric(quick(with), "ns/read-counted")
	b.ReportMetric((quick(with)/quick(without)-1)*100, "%cost")
}

// processorTime is what this process has used, nanoseconds.
func processorTime(b *testing.B) int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
		b.Fatal(err)
	}
	return t.Nano()
}
