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

// BenchmarkReadCost tells what a mapped 4 KiB read costs beside pread(2) of the same bytes,
// in time of the processor: batches of both alternate, and what a quick one takes is compared.
func BenchmarkReadCost(b *testing.B) {
	const batch = 500
	v, f := benchFile(b)
	fd := int(f.Fd())
	var done noted
	r := Request{Op: OpRead, Length: 4096, Data: make([]byte, 4096), Done: &done}
	rng := rand.New(rand.NewPCG(1, 2))
	perRead := func(read func(off int64) error) float64 {
		begin := processorTime(b)
		for range batch {
			if err := read(rng.Int64N(benchSize/4096) * 4096); err != nil {
				b.Fatal(err)
			}
		}
		return float64(processorTime(b)-begin) / batch
	}
	var submits, preads []float64
	for b.Loop() {
		preads = append(preads, perRead(func(off int64) error {
			_, err := unix.Pread(fd, r.Data, 8<<20+off)
			return err
		}))
		submits = append(submits, perRead(func(off int64) error {
			r.Offset, r.Flags = off, MayBlock
			v.Submit(&r)
			return r.Err
		}))
	}
	b.ReportMetric(firstTenth(preads), "ns/pread")
	b.ReportMetric(firstTenth(submits), "ns/read")
	b.ReportMetric((firstTenth(submits)/firstTenth(preads)-1)*100, "%cost")
}

// firstTenth is what a tenth of times are below.
func firstTenth(times []float64) float64 {
	slices.Sort(times)
	return times[len(times)/10]
}

// processorTime is what this process has used, nanoseconds.
func processorTime(b *testing.B) int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
		b.Fatal(err)
	}
	return t.Nano()
}
