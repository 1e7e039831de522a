package serve

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/gate"
	"github.com/gvirstor/gvirstor/geomlib/gate/gatetest"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
)

const sector = 512

// handDisk keeps every request until the test completes it.
type handDisk struct {
	mu      sync.Mutex
	changed sync.Cond
	pending []*virstor.Request
}

func newHandDisk() *handDisk {
	d := &handDisk{}
	d.changed.L = &d.mu
	return d
}

func (d *handDisk) Submit(r *virstor.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pending = append(d.pending, r)
	d.changed.Broadcast()
}

// wait returns the n requests that are submitted, when there are as many.
func (d *handDisk) wait(n int) []*virstor.Request {
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.pending) < n {
		d.changed.Wait()
	}
	return append([]*virstor.Request(nil), d.pending...)
}

// at waits until n requests are submitted and returns the one that begins at a
// sector. Several receivers submit in no order.
func (d *handDisk) at(t *testing.T, n int, first int64) *virstor.Request {
	t.Helper()
	rs := d.wait(n)
	for _, r := range rs {
		if r.Offset == first*sector {
			return r
		}
	}
	t.Fatalf("no request at sector %d among %v", first, rs)
	return nil
}

func (d *handDisk) complete(r *virstor.Request, err error) {
	d.mu.Lock()
	for i, other := range d.pending {
		if other == r {
			d.pending = append(d.pending[:i], d.pending[i+1:]...)
		}
	}
	d.mu.Unlock()
	r.Err = err
	r.Done.Complete(r)
}

func (d *handDisk) hold(r *virstor.Request)   { r.Done.(virstor.HeldNotifier).Held(r) }
func (d *handDisk) resume(r *virstor.Request) { r.Done.(virstor.ResumeNotifier).Resumed(r) }

// ramDisk completes everything inline.
type ramDisk struct {
	mu   sync.Mutex
	data []byte
	fail error
}

func (d *ramDisk) Submit(r *virstor.Request) {
	d.mu.Lock()
	r.Err = d.fail
	if r.Err == nil && r.Op != virstor.OpFlush {
		part := d.data[r.Offset:][:r.Length]
		switch r.Op {
		case virstor.OpRead:
			copy(r.Data, part)
		case virstor.OpWrite:
			copy(part, r.Data)
		case virstor.OpDelete:
			clear(part)
		}
	}
	d.mu.Unlock()
	r.Done.Complete(r)
}

// fixture is a unit of a kernel, published from a disk, and open.
type fixture struct {
	t    *testing.T
	k    *gatetest.Kernel
	g    *gate.Gate
	p    *Publication
	dev  *gatetest.Dev
	cfg  Config
	disk Disk

	straight bool
}

type setup struct {
	kernel  gatetest.Options
	cfg     Config
	size    int64
	prepare func(*fixture) // before the publication starts

	straight bool // as if the client had been seen to wait for each request
}

// lonesTurn is the turn of a publication whose client has long been seen to have one
// request under way at a time.
func lonesTurn() *turn {
	return &turn{policy: servePolicy{phase: alone, mode: inline, patience: lastPatience}}
}

func newFixture(t *testing.T, d Disk, s setup) *fixture {
	t.Helper()
	if s.size == 0 {
		s.size = 1 << 20
	}
	if s.cfg.BufferSize == 0 {
		s.cfg.BufferSize = 64 << 10
	}
	f := &fixture{t: t, k: gatetest.New(s.kernel), cfg: s.cfg, disk: d, straight: s.straight}
	t.Cleanup(f.k.Close)
	f.g = f.k.Open()
	if _, err := f.g.Create(gate.CreateOptions{Unit: 0, MediaSize: s.size, SectorSize: sector}); err != nil {
		t.Fatal(err)
	}
	f.open()
	if s.prepare != nil {
		s.prepare(f)
	}
	f.start()
	return f
}

func (f *fixture) open() {
	f.t.Helper()
	dev, err := f.k.OpenDev("ggate0", gatetest.Reader|gatetest.Writer)
	if err != nil {
		f.t.Fatal(err)
	}
	f.dev = dev
}

func (f *fixture) start() {
	f.t.Helper()
	first := new(turn)
	if f.straight {
		first = lonesTurn()
	}
	p, err := start(f.g, 0, f.disk, f.cfg, first)
	if err != nil {
		f.t.Fatal(err)
	}
	f.p = p
}

// successor takes over after the publication was abandoned.
func (f *fixture) successor(d Disk) {
	f.t.Helper()
	must(f.t, f.p.Abandon(timeout(f.t)))
	f.disk = d
	f.start()
}

func (f *fixture) issue(cmd gate.BIO, from, to int64) *gatetest.Call {
	c := gatetest.NewCall()
	c.Cmd, c.Offset, c.Length = cmd, from*sector, (to-from)*sector
	if cmd == gate.Read || cmd == gate.Write {
		c.Data = make([]byte, c.Length)
	}
	f.dev.Issue(c)
	return c
}

func (f *fixture) write(from, to int64, fill byte) *gatetest.Call {
	c := gatetest.NewCall()
	c.Cmd, c.Offset, c.Length = gate.Write, from*sector, (to-from)*sector
	c.Data = bytes.Repeat([]byte{fill}, int(c.Length))
	f.dev.Issue(c)
	return c
}

// idle waits until every request issued was taken and has its place.
func (f *fixture) idle(taken uint64) {
	f.t.Helper()
	eventually(f.t, "all requests are taken", func() bool {
		return f.p.Stats().Taken == taken && f.k.Sleeping(0) > 0
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got %v, want %v", err, want)
	}
}

func timeout(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits for a condition that has no event of its own.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
		time.Sleep(100 * time.Microsecond)
	}
}

// same reports whether rs are requests of these first sectors, in any order.
func same(rs []*virstor.Request, sectors ...int64) bool {
	if len(rs) != len(sectors) {
		return false
	}
	for _, s := range sectors {
		found := false
		for _, r := range rs {
			found = found || r.Offset == s*sector
		}
		if !found {
			return false
		}
	}
	return true
}
