package nbd

import (
	"bytes"
	"sync"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/internal/proto"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdclient"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdtest"
)

// slowDisk keeps what it is told to until it is let go.
type slowDisk struct {
	Disk

	mu    sync.Mutex
	slow  func(*virstor.Request) bool
	stuck []*virstor.Request
}

func (d *slowDisk) Submit(r *virstor.Request) {
	d.mu.Lock()
	if d.slow != nil && d.slow(r) {
		d.stuck = append(d.stuck, r)
		d.mu.Unlock()
		return
	}
	d.mu.Unlock()
	d.Disk.Submit(r)
}

// keep has the disk keep the requests that slow chooses.
func (d *slowDisk) keep(slow func(*virstor.Request) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.slow = slow
}

func (d *slowDisk) kept() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.stuck)
}

// letGo has the disk carry out what it kept, in order.
func (d *slowDisk) letGo() {
	d.mu.Lock()
	d.slow = nil
	stuck := d.stuck
	d.stuck = nil
	d.mu.Unlock()
	for _, r := range stuck {
		d.Disk.Submit(r)
	}
}

// newSlow serves a disk of 64 MiB, the first of which is written with ones.
func newSlow(t *testing.T, cfg Config) (*slowDisk, *rig) {
	d := &slowDisk{Disk: newDisk(t, nbdtest.Config{Size: 64 << 20, Hold: true, HeldLimit: 64 << 20})}
	r := startServer(t, cfg, map[string]Disk{"disk": d})
	t.Cleanup(d.letGo)
	c := r.dial("disk", nbdclient.Options{})
	if _, err := c.WriteAt(bytes.Repeat([]byte{1}, 1<<20), 0); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	until(t, "the first client has left", func() bool { return r.Stats().Conns == 0 })
	return d, r
}

func writes(r *virstor.Request) bool { return r.Op == virstor.OpWrite }

// barrier returns when the server has taken what p sent before, and no answer
// was waiting.
func (p peer) barrier() {
	p.t.Helper()
	p.request(proto.CmdCache, 77, 0, 1, nil)
	if _, cookie := p.expectReply(); cookie != 77 {
		p.t.Fatalf("request %d was answered, and was to wait", cookie)
	}
}

// orphan leaves a write of twos at work whose client is gone.
func (d *slowDisk) orphan(r *rig, off int64, n int) {
	r.t.Helper()
	d.keep(writes)
	p := r.connect()
	p.enter("disk")
	had := d.kept()
	p.request(proto.CmdWrite, 1, off, n, bytes.Repeat([]byte{2}, n))
	until(r.t, "the write is at work", func() bool { return d.kept() == had+1 })
	p.Close()
	until(r.t, "the client is gone", func() bool { return r.exports["disk"].order.orphans.Load() == int64(had+1) })
	d.keep(nil)
}

func TestWhateverOverlapsAnOrphanWaitsForIt(t *testing.T) {
	for _, tt := range []struct {
		what    string
		cmd     uint16
		payload []byte
		after   byte // what is there then
	}{
		{"read", proto.CmdRead, nil, 2},
		{"write", proto.CmdWrite, bytes.Repeat([]byte{3}, 512), 3},
		{"write of zeros", proto.CmdWriteZeroes, nil, 0},
		{"trim", proto.CmdTrim, nil, 2}, // of less than a chunk
	} {
		t.Run(tt.what, func(t *testing.T) {
			d, r := newSlow(t, Config{})
			d.orphan(r, 4096, 4096)
			p := r.connect()
			p.enter("disk")
			p.request(tt.cmd, 1, 5120, 512, tt.payload)
			p.barrier()
			p.request(proto.CmdRead, 2, 8192, 512, nil) // beside it
			if _, cookie := p.expectReply(); cookie != 2 {
				t.Fatalf("reply to %d", cookie)
			}
			p.expect(512)
			p.request(proto.CmdFlush, 3, 0, 0, nil)
			if _, cookie := p.expectReply(); cookie != 3 {
				t.Fatalf("reply to %d: a flush waits for no orphan", cookie)
			}
			d.letGo()
			if errno, cookie := p.expectReply(); errno != 0 || cookie != 1 {
				t.Fatalf("reply %d to %d", errno, cookie)
			}
			if tt.cmd == proto.CmdRead && !bytes.Equal(p.expect(512), bytes.Repeat([]byte{2}, 512)) {
				t.Error("the read came before the orphan")
			}
			b := make([]byte, 512)
			if _, err := r.dial("disk", nbdclient.Options{}).ReadAt(b, 5120); err != nil || b[0] != tt.after {
				t.Errorf("%d is there, %v; want %d", b[0], err, tt.after)
			}
			r.expectMemoryBack()
		})
	}
}

func TestBlockStatusWaitsForAnOrphan(t *testing.T) {
	d, r := newSlow(t, Config{})
	d.orphan(r, 8<<20, 4096)
	c := r.dial("disk", nbdclient.Options{})
	told := make(chan bool)
	go func() {
		e, err := c.BlockStatus(8<<20, 1<<20, 0)
		told <- err == nil && !e[0].Hole
	}()
	o := r.exports["disk"].order
	until(t, "block status waits", func() bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		return o.waiting.first != nil
	})
	d.letGo()
	if !<-told {
		t.Error("block status does not tell of what the orphan wrote")
	}
}

func TestChangesOfTwoClientsAreMadeInTheirOrder(t *testing.T) {
	d, r := newSlow(t, Config{})
	a, b := r.connect(), r.connect()
	a.enter("disk")
	b.enter("disk")
	d.keep(writes)
	a.request(proto.CmdWrite, 1, 0, 8192, bytes.Repeat([]byte{2}, 8192))
	until(t, "the write is at work", func() bool { return d.kept() == 1 })
	d.keep(nil)
	b.request(proto.CmdWriteZeroes, 1, 4096, 8192, nil)
	b.barrier()
	b.request(proto.CmdRead, 2, 0, 512, nil) // nothing is promised of what is unanswered
	if _, cookie := b.expectReply(); cookie != 2 {
		t.Fatalf("reply to %d", cookie)
	}
	b.expect(512)
	d.letGo()
	for _, p := range []peer{a, b} {
		if errno, cookie := p.expectReply(); errno != 0 || cookie != 1 {
			t.Fatalf("reply %d to %d", errno, cookie)
		}
	}
	got := make([]byte, 8192)
	if _, err := r.dial("disk", nbdclient.Options{}).ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	if got[4095] != 2 || got[4096] != 0 {
		t.Errorf("%d before and %d in the range of the later change", got[4095], got[4096])
	}
}

func TestAClientThatIsGoneBeforeItsTurnChangesNothing(t *testing.T) {
	d, r := newSlow(t, Config{})
	d.orphan(r, 0, 4096)
	p := r.connect()
	p.enter("disk")
	p.request(proto.CmdWrite, 1, 0, 4096, bytes.Repeat([]byte{3}, 4096))
	p.request(proto.CmdRead, 2, 0, 4096, nil)
	p.barrier()
	p.Close()
	until(t, "the client is gone", func() bool { return r.Conns("disk") == 0 && r.Stats().Conns == 0 })
	d.letGo()
	r.expectMemoryBack()
	b := make([]byte, 1)
	if _, err := r.dial("disk", nbdclient.Options{}).ReadAt(b, 0); err != nil || b[0] != 2 {
		t.Errorf("%d is there, %v; want 2", b[0], err)
	}
}

// latest is the connection that came last.
func (r *rig) latest() (last *conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.conns {
		if last == nil || c.number > last.number {
			last = c
		}
	}
	return last
}

func TestNewClientsWaitWhileOrphansUseTheirLimit(t *testing.T) {
	d, r := newSlow(t, Config{OrphanMemory: 1 << 20})
	d.orphan(r, 0, 1<<20)
	p := r.connect()
	p.enter("disk")
	p.request(proto.CmdRead, 1, 32<<20, 512, nil)
	until(t, "the new client's reader waits", func() bool { return r.latest().readerWaits() })
	if n := r.Stats().Exports["disk"].Reads; n != 0 {
		t.Errorf("%d reads were taken", n)
	}
	d.letGo()
	if errno, cookie := p.expectReply(); errno != 0 || cookie != 1 {
		t.Errorf("reply %d to %d", errno, cookie)
	}
}

// TestLaterChangesOfOthersStayWhenAHeldWriteGoesOn: they do not wait for it, and
// count as later.
func TestLaterChangesOfOthersStayWhenAHeldWriteGoesOn(t *testing.T) {
	for _, slow := range []bool{false, true} { // the later change is at work when space comes
		d, r := fullDisk(t, 64*heldChunk)
		s := &slowDisk{Disk: d}
		r.exports["disk"].disk, r.exports["disk"].order.disk = s, s
		a, b := r.connect(), r.connect()
		a.enter("disk")
		b.enter("disk")
		a.request(proto.CmdWrite, 1, heldChunk-8192, 16384, bytes.Repeat([]byte{2}, 16384))
		until(t, "the write is held", func() bool { return d.Held() == 1 })
		if slow {
			s.keep(writes)
		}
		b.request(proto.CmdWrite, 1, heldChunk-4096, 2048, bytes.Repeat([]byte{3}, 2048))
		b.request(proto.CmdTrim, 2, heldChunk+4096, 2048, nil)
		b.expectReply()
		if slow {
			until(t, "the later write is at work", func() bool { return s.kept() == 1 })
			d.AddCapacity(1)
			if d.Held() != 1 {
				t.Error("the held write goes on beside one that came later")
			}
			s.letGo()
			b.expectReply()
		} else {
			b.expectReply()
			d.AddCapacity(1)
		}
		if errno, cookie := a.expectReply(); errno != 0 || cookie != 1 {
			t.Fatalf("reply %d to %d", errno, cookie)
		}
		got := make([]byte, 16384)
		if _, err := r.dial("disk", nbdclient.Options{}).ReadAt(got, heldChunk-8192); err != nil {
			t.Fatal(err)
		}
		want := bytes.Repeat([]byte{2}, 16384)
		copy(want[4096:], bytes.Repeat([]byte{3}, 2048))
		clear(want[12288:14336])
		if !bytes.Equal(got, want) {
			t.Errorf("slow %t: the held write is over what came later", slow)
		}
		r.expectMemoryBack()
	}
}
