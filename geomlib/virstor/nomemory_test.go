package virstor

import (
	"testing"

	"github.com/gvirstor/gvirstor/geomlib/disktest"
)

// openFilled is a volume with chunks 0 to 7 allocated.
func openFilled(t testing.TB) *Volume {
	d := disktest.New("a", 16*crashChunk, 512).SetBuffered(true)
	labelled(t, 64, d)
	v, err := openDisks(Config{}, []*disktest.Disk{d})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.WriteAt(make([]byte, 8*crashChunk), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	return v
}

func TestRequestsAllocateNoMemory(t *testing.T) {
	v := openFilled(t)
	b := make([]byte, 4096)
	done := make(doneCounter, 1)
	r := &Request{Offset: 8192, Length: 4096, Data: b, Done: done}
	for name, f := range map[string]func(){
		"read":                   func() { r.Op = OpRead; r.Offset = 8192; v.Submit(r); <-done },
		"read of a hole":         func() { r.Op = OpRead; r.Offset = 20 * crashChunk; v.Submit(r); <-done },
		"read of two chunks":     func() { r.Op = OpRead; r.Offset = crashChunk - 2048; v.Submit(r); <-done },
		"flush of what is clean": func() { r.Op, r.Length, r.Data = OpFlush, 0, nil; v.Submit(r); <-done; r.Length, r.Data = 4096, b },
	} {
		f()
		if n := testing.AllocsPerRun(200, f); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}

type doneCounter chan struct{}

func (d doneCounter) Complete(*Request) { d <- struct{}{} }
