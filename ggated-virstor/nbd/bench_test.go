package nbd

import (
	"fmt"
	"io"
	"testing"

	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/internal/proto"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdclient"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdtest"
)

// burst is a client that sends depth requests at once and then reads all
// replies, without allocating.
type burst struct {
	nc      io.ReadWriter
	out, in []byte
}

func (b *burst) do() error {
	if _, err := b.nc.Write(b.out); err != nil {
		return err
	}
	_, err := io.ReadFull(b.nc, b.in)
	return err
}

// newBurst connects a burst of one command of n bytes to a disk in memory.
func newBurst(t testing.TB, r *rig, cmd uint16, n, depth int) *burst {
	var requests []proto.Request
	for i := range depth {
		requests = append(requests, proto.Request{Type: cmd, Offset: uint64(i * n), Length: uint64(n)})
	}
	return newMixedBurst(t, r, requests...)
}

// newMixedBurst connects a burst of any requests.
func newMixedBurst(t testing.TB, r *rig, requests ...proto.Request) *burst {
	p := r.connect()
	p.SetDeadline(never)
	p.enter("disk")
	b := &burst{nc: p.Conn}
	for _, q := range requests {
		b.out = q.Append(b.out)
		reply := proto.SimpleSize
		switch q.Type {
		case proto.CmdWrite:
			b.out = append(b.out, make([]byte, q.Length)...)
		case proto.CmdRead:
			reply += int(q.Length)
		}
		b.in = append(b.in, make([]byte, reply)...)
	}
	for range 10 + qd1Enough { // warm up
		if err := b.do(); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func TestRequestsAllocateNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	r := newRig(t, Config{})
	for _, tt := range []struct {
		what  string
		cmd   uint16
		n     int
		depth int
	}{
		{"4 KiB read", proto.CmdRead, 4096, 32},
		{"4 KiB write", proto.CmdWrite, 4096, 32},
		{"64 KiB read", proto.CmdRead, 64 << 10, 32},
		{"64 KiB write", proto.CmdWrite, 64 << 10, 32},
		{"zeroes", proto.CmdWriteZeroes, 4096, 32},
		{"trim", proto.CmdTrim, 4096, 32},
		{"flush of a lone client", proto.CmdFlush, 0, 1},
	} {
		b := newBurst(t, r, tt.cmd, tt.n, tt.depth)
		if n := testing.AllocsPerRun(200, func() {
			if err := b.do(); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %d requests allocate %v times", tt.what, tt.depth, n)
		}
	}
}

func TestTheClientAllocatesNothingForARequest(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	r := newRig(t, Config{})
	p := make([]byte, 64<<10)
	extents := make([]nbdclient.Extent, 0, 16)
	for _, opt := range []nbdclient.Options{{}, {Compact: true}, {Simple: true}} {
		c := r.dial("disk", opt)
		for what, do := range map[string]func() error{
			"read":   func() error { return second(c.ReadAt(p, 0)) },
			"write":  func() error { return second(c.WriteAt(p, 0)) },
			"zeroes": func() error { return c.WriteZeroes(0, 4096, 0) },
			"trim":   func() error { return c.Trim(0, 4096, 0) },
			"flush":  c.Flush,
			"block status": func() (err error) {
				if !opt.Simple {
					extents, err = c.AppendStatus(extents[:0], 0, 64<<20, 0)
				}
				return err
			},
		} {
			for range 10 {
				if err := do(); err != nil {
					t.Fatalf("%+v: %s: %v", opt, what, err)
				}
			}
			if n := testing.AllocsPerRun(200, func() { do() }); n != 0 {
				t.Errorf("%+v: a %s allocates %v times", opt, what, n)
			}
		}
	}
}

func BenchmarkRequests(b *testing.B) {
	for _, workers := range []int{0, 2} {
		for _, cmd := range []uint16{proto.CmdRead, proto.CmdWrite} {
			for _, depth := range []int{1, 32} {
				name := fmt.Sprintf("cmd=%d/depth=%d/workers=%d", cmd, depth, workers)
				b.Run(name, func(b *testing.B) {
					d := nbdtest.New(nbdtest.Config{Size: 1 << 20, Workers: workers})
					defer d.Close()
					benchmark(b, d, cmd, depth)
				})
			}
		}
	}
}

func benchmark(b *testing.B, d *nbdtest.Disk, cmd uint16, depth int) {
	r := startServer(b, Config{}, map[string]Disk{"disk": d})
	c := r.dial("disk", nbdclient.Options{})
	if _, err := c.WriteAt([]byte{1}, 0); err != nil {
		b.Fatal(err)
	}
	u := newBurst(b, r, cmd, 4096, depth)
	b.SetBytes(4096)
	b.ReportAllocs()
	b.ResetTimer()
	for range (b.N + depth - 1) / depth {
		if err := u.do(); err != nil {
			b.Fatal(err)
		}
	}
}
