package nbd

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"syscall"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/internal/proto"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdclient"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdtest"
)

const heldChunk = 1 << 20

// fullDisk is a disk of several chunks of which the first is written and there
// is no room for another.
func fullDisk(t *testing.T, limit int64) (*nbdtest.Disk, *rig) {
	d := newDisk(t, nbdtest.Config{
		Size: 64 * heldChunk, ChunkSize: heldChunk, Capacity: 1, Hold: true, HeldLimit: limit,
	})
	r := startServer(t, Config{}, map[string]Disk{"disk": d})
	c := r.dial("disk", nbdclient.Options{})
	if _, err := c.WriteAt([]byte("here"), 0); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	until(t, "the first client has left", func() bool { return r.Stats().Conns == 0 })
	return d, r
}

func TestHeldWritesLetEverythingElsePass(t *testing.T) {
	d, r := fullDisk(t, 64*heldChunk) // far from the limit
	p := r.connect()
	p.enter("disk")
	payload := bytes.Repeat([]byte{5}, heldChunk)
	p.request(proto.CmdWrite, 1, heldChunk, len(payload), payload)
	p.request(proto.CmdWrite, 2, 2*heldChunk, len(payload), payload)
	p.request(proto.CmdRead, 3, 0, 4, nil)
	if errno, cookie := p.expectReply(); errno != 0 || cookie != 3 || string(p.expect(4)) != "here" {
		t.Errorf("a read behind held writes: reply %d to %d", errno, cookie)
	}
	p.request(proto.CmdWrite, 4, 0, 4, []byte("over"))
	if errno, cookie := p.expectReply(); errno != 0 || cookie != 4 {
		t.Errorf("an overwrite behind held writes: reply %d to %d", errno, cookie)
	}
	p.request(proto.CmdFlush, 5, 0, 0, nil)
	if errno, cookie := p.expectReply(); errno != 0 || cookie != 5 {
		t.Errorf("a flush behind held writes: reply %d to %d", errno, cookie)
	}
	if n := d.Held(); n != 2 {
		t.Fatalf("%d writes are held, want 2", n)
	}
	d.AddCapacity(2)
	for range 2 {
		if errno, cookie := p.expectReply(); errno != 0 || cookie > 2 {
			t.Errorf("held write: reply %d to %d", errno, cookie)
		}
	}
	r.expectMemoryBack()
}

func TestConnectionWithHeldWritesIsNotReadAtTheLimit(t *testing.T) {
	d, r := fullDisk(t, heldChunk)
	reads := r.Stats().Exports["disk"].Reads
	p := r.connect()
	p.enter("disk")
	payload := bytes.Repeat([]byte{5}, heldChunk)
	p.request(proto.CmdWrite, 1, heldChunk, len(payload), payload)
	p.request(proto.CmdRead, 2, 0, 4, nil)
	c := r.only()
	until(t, "the reader waits", c.readerWaits)
	if n := r.Stats().Exports["disk"].Reads; n != reads {
		t.Error("the connection is read although the volume holds its limit")
	}

	other := r.dial("disk", nbdclient.Options{})
	b := make([]byte, 4)
	if _, err := other.ReadAt(b, 0); err != nil || string(b) != "here" {
		t.Errorf("a read of another client: %q, %v", b, err)
	}
	if _, err := other.WriteAt([]byte("over"), 0); err != nil {
		t.Errorf("an overwrite of another client: %v", err)
	}
	if err := other.Flush(); err != nil {
		t.Errorf("a flush of another client: %v", err)
	}

	d.AddCapacity(1)
	for range 2 { // in any order
		errno, cookie := p.expectReply()
		if errno != 0 || cookie == 2 && string(p.expect(4)) != "over" {
			t.Errorf("reply %d to %d", errno, cookie)
		}
	}
	r.expectMemoryBack()
}

// TestHeldWritesEndWithTheirClient: however it ends, behind unread input or not.
// What it was never told of is not done later, and its memory is free at once.
func TestHeldWritesEndWithTheirClient(t *testing.T) {
	for _, tt := range []struct {
		what string
		read bool // the server must read it
		end  func(r *rig, p peer)
	}{
		{"client dies", false, func(_ *rig, p peer) { p.Close() }},
		{"client is kicked", false, func(r *rig, _ peer) { r.Kick(t.Context(), "disk") }},
		{"client says goodbye", true, func(_ *rig, p peer) { p.request(proto.CmdDisc, 9, 0, 0, nil) }},
		{"client sends no more", false, func(_ *rig, p peer) { p.Conn.(*net.UnixConn).CloseWrite() }},
		{"client breaks the protocol", true, func(_ *rig, p peer) { p.send(make([]byte, proto.RequestSize)) }},
		{"administrator disconnects it", false, func(r *rig, _ peer) { r.only().close(errKicked) }},
	} {
		for _, limit := range []int64{heldChunk, 64 * heldChunk} { // its reader waits for space, or for input
			if tt.read && limit == heldChunk {
				continue
			}
			t.Run(fmt.Sprint(tt.what, " ", limit), func(t *testing.T) {
				d, r := fullDisk(t, limit)
				p := r.connect()
				p.enter("disk")
				payload := bytes.Repeat([]byte{5}, heldChunk)
				p.request(proto.CmdWrite, 1, heldChunk, len(payload), payload)
				until(t, "the write is held", func() bool { return d.Held() == 1 })
				tt.end(r, p)
				until(t, "nothing is held", func() bool { return d.Held() == 0 })
				r.expectMemoryBack()
				d.AddCapacity(1)
				b := make([]byte, heldChunk)
				if _, err := r.dial("disk", nbdclient.Options{}).ReadAt(b, heldChunk); err != nil || !bytes.Equal(b, make([]byte, heldChunk)) {
					t.Errorf("a held write of a client that is gone was done: %v", err)
				}
			})
		}
	}
}

func TestHeldWritesFailWhenTheVolumeCloses(t *testing.T) {
	d, r := fullDisk(t, heldChunk)
	c := r.dial("disk", nbdclient.Options{})
	written := make(chan error)
	go func() {
		_, err := c.WriteAt(make([]byte, heldChunk), heldChunk)
		written <- err
	}()
	until(t, "the write is held", func() bool { return d.Held() == 1 })
	d.Close()
	if err := <-written; !errors.Is(err, syscall.ESHUTDOWN) {
		t.Errorf("held write: %v", err)
	}
	r.expectMemoryBack()
}

// TestTheServerEndsWithoutHeldWrites: nobody knows when space comes.
func TestTheServerEndsWithoutHeldWrites(t *testing.T) {
	for _, limit := range []int64{heldChunk, 64 * heldChunk} { // the reader waits for space, or for input
		d, r := fullDisk(t, limit)
		p := r.connect()
		p.enter("disk")
		p.request(proto.CmdWrite, 1, heldChunk, heldChunk, make([]byte, heldChunk))
		until(t, "the write is held", func() bool { return d.Held() == 1 })
		if err := r.Shutdown(t.Context()); err != nil { // returns though no time is up
			t.Error(err)
		}
		d.AddCapacity(1)
		r.expectMemoryBack()
	}
}

// TestWritesThatAreGivenUpAreAnsweredBeforeTheClientIsKicked: with ENOSPC, so
// that the client knows.
func TestWritesThatAreGivenUpAreAnsweredBeforeTheClientIsKicked(t *testing.T) {
	for _, limit := range []int64{heldChunk, 64 * heldChunk} {
		d, r := fullDisk(t, limit)
		p := r.connect()
		p.enter("disk")
		payload := make([]byte, heldChunk)
		p.request(proto.CmdWrite, 1, heldChunk, heldChunk, payload)
		until(t, "the write is held", func() bool { return d.Held() == 1 })
		d.FailHeld()
		if n := r.Kick(t.Context(), "disk"); n != 1 {
			t.Errorf("kicked %d", n)
		}
		if errno, cookie := p.expectReply(); errno != proto.ENOSPC || cookie != 1 {
			t.Errorf("reply %d to %d", errno, cookie)
		}
		p.expectEnd()
		r.expectMemoryBack()
	}
}

// TestMemoryOfHeldWritesIsNotThatOfReads: writes use up all the memory of their
// export; reads, and writes to another export, go on.
func TestMemoryOfHeldWritesIsNotThatOfReads(t *testing.T) {
	full := newDisk(t, nbdtest.Config{Size: 64 << 20, Capacity: 1, Hold: true, HeldLimit: 1 << 40})
	ok := newDisk(t, nbdtest.Config{Size: 64 << 20})
	r := startServer(t, Config{WriteMemory: 32 << 20, ReadMemory: 32 << 20}, map[string]Disk{"full": full, "ok": ok})
	ok.Submit(&virstor.Request{Op: virstor.OpWrite, Length: 1, Data: []byte{1}, Done: ignore{}}) // so that it is no hole
	full.Submit(&virstor.Request{Op: virstor.OpWrite, Length: 1, Data: []byte{1}, Done: ignore{}})

	big := make([]byte, 32<<20)
	for range 3 { // one is held, the others wait for memory
		c := r.dial("full", nbdclient.Options{})
		go c.WriteAt(big, 1<<20)
	}
	until(t, "a write is held", func() bool { return full.Held() == 1 })
	until(t, "the others wait", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.exports["full"].writes.waiting.Load() == 2
	})
	b := make([]byte, 32<<20)
	if _, err := r.dial("full", nbdclient.Options{}).ReadAt(b, 0); err != nil {
		t.Errorf("large read: %v", err)
	}
	if _, err := r.dial("full", nbdclient.Options{}).WriteAt([]byte("small"), 0); err != nil {
		t.Errorf("small overwrite: %v", err)
	}
	if _, err := r.dial("ok", nbdclient.Options{}).WriteAt(big, 0); err != nil {
		t.Errorf("large write to another export: %v", err)
	}
	full.AddCapacity(64)
	r.expectMemoryBack()
}

type ignore struct{}

func (ignore) Complete(*virstor.Request) {}
