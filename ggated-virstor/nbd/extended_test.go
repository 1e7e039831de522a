package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"syscall"
	"testing"

	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/internal/proto"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdclient"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdtest"
)

// TestRangesBeyond4GiBAreOneRequest: with extended headers. Without, the client does not
// even send them.
func TestRangesBeyond4GiBAreOneRequest(t *testing.T) {
	const chunk, size = 1 << 20, 40 << 30
	d := newDisk(t, nbdtest.Config{Size: size, ChunkSize: chunk})
	r := startServer(t, Config{}, map[string]Disk{"disk": d})
	c := r.dial("disk", nbdclient.Options{})
	if !c.Extended() {
		t.Fatal("extended headers were not granted")
	}
	for _, off := range []int64{0, 10 << 30, 20<<30 + 5, size - 1} {
		if _, err := c.WriteAt([]byte{1}, off); err != nil {
			t.Fatal(err)
		}
	}
	got, err := c.BlockStatus(chunk, size-2*chunk, 0)
	want := []nbdclient.Extent{
		{Length: 10<<30 - chunk, Hole: true, Zero: true}, {Length: chunk},
		{Length: 10<<30 - chunk, Hole: true, Zero: true}, {Length: chunk},
		{Length: 20<<30 - 2*chunk, Hole: true, Zero: true},
	}
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("block status: %v, %v", got, err)
	}
	if err := c.WriteZeroes(5, size-6, nbdclient.FastZero); !errors.Is(err, syscall.ENOTSUP) {
		t.Errorf("fast zeroes of parts of chunks: %v", err)
	}
	if err := c.WriteZeroes(chunk, size-2*chunk, nbdclient.FastZero); err != nil {
		t.Error(err)
	}
	if n := d.Allocated(); n != 2 {
		t.Errorf("%d chunks are left of 4, want the first and the last", n)
	}
	if err := c.Trim(0, size, 0); err != nil {
		t.Error(err)
	}
	if n := d.Allocated(); n != 0 {
		t.Errorf("%d chunks are left after a trim of all", n)
	}
	if err := c.WriteZeroes(1, size, 0); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("zeroes beyond the end: %v", err)
	}
	if err := c.Trim(1<<62, math.MaxInt64, 0); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("trim of what no disk has: %v", err)
	}
	if _, err := c.ReadAt(make([]byte, maxPayload+1), 0); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("a read of more than is answered: %v", err)
	}
	compact := r.dial("disk", nbdclient.Options{Compact: true})
	if compact.Extended() || compact.Trim(0, 1<<32, 0) == nil {
		t.Error("4 GiB in a compact header")
	}
}

// TestBlockStatusLooksSoFarAndNoFurther: a client that asks for all of a huge disk is
// told of its beginning, and fast zeros of all that are not looked for.
func TestBlockStatusLooksSoFarAndNoFurther(t *testing.T) {
	const chunk = 512
	d := newDisk(t, nbdtest.Config{Size: 5 << 30, ChunkSize: chunk})
	r := startServer(t, Config{}, map[string]Disk{"disk": d})
	c := r.dial("disk", nbdclient.Options{})
	got, err := c.BlockStatus(0, d.Size(), 0)
	if err != nil || len(got) != 1 || got[0].Length != maxWalk*chunk || !got[0].Hole {
		t.Errorf("block status: %v, %v", got, err)
	}
	if err := c.WriteZeroes(0, d.Size(), nbdclient.FastZero); !errors.Is(err, syscall.ENOTSUP) {
		t.Errorf("fast zeroes of all: %v", err)
	}
	if err := c.WriteZeroes(0, maxWalk*chunk, nbdclient.FastZero); err != nil {
		t.Errorf("fast zeroes of what is looked at: %v", err)
	}
}

// TestExtendedReplies: each has the long header with the offset of its request, also
// where nothing is to be told, and payload that nobody wants is read all the same.
func TestExtendedReplies(t *testing.T) {
	r := newRig(t, Config{})
	p := r.connect()
	p.enterExtended("disk")
	const withPayload = proto.CmdFlagPayloadLen
	for i, tt := range []struct {
		what       string
		cmd, flags uint16
		off, n     uint64
		payload    int
		kind       uint16
		length     uint64 // of the reply; 0 = any, of an error
		errno      uint32
	}{
		{"a write", proto.CmdWrite, withPayload, 512, 1000, 1000, proto.ReplyNone, 0, 0},
		{"a write with FUA", proto.CmdWrite, withPayload | proto.CmdFlagFUA, 512, 1000, 1000, proto.ReplyNone, 0, 0},
		{"a write without the flag, as QEMU's", proto.CmdWrite, 0, 512, 1000, 1000, proto.ReplyNone, 0, 0},
		{"a write of nothing", proto.CmdWrite, withPayload, 512, 0, 0, proto.ReplyNone, 0, 0},
		{"a write past the end", proto.CmdWrite, withPayload, 1 << 63, 3000, 3000, proto.ReplyError, 0, proto.ENOSPC},
		{"a read", proto.CmdRead, 0, 513, 1000, 0, proto.ReplyOffsetData, 1008, 0},
		{"a read of nothing", proto.CmdRead, 0, 513, 0, 0, proto.ReplyNone, 0, 0},
		{"a read with payload", proto.CmdRead, withPayload, 513, 1000, 1000, proto.ReplyError, 0, proto.EINVAL},
		{"a read of 4 GiB and one byte", proto.CmdRead, 0, 0, 1<<32 + 1, 0, proto.ReplyError, 0, proto.EINVAL},
		{"a read of what no length is", proto.CmdRead, 0, 0, 1<<64 - 1, 0, proto.ReplyError, 0, proto.EINVAL},
		{"a flush", proto.CmdFlush, 0, 0, 0, 0, proto.ReplyNone, 0, 0},
		{"a flush with payload", proto.CmdFlush, withPayload, 0, 5, 5, proto.ReplyError, 0, proto.EINVAL},
		{"a trim", proto.CmdTrim, 0, 1 << 20, 1 << 20, 0, proto.ReplyNone, 0, 0},
		{"a trim of 2^64-1", proto.CmdTrim, 0, 1 << 20, 1<<64 - 1, 0, proto.ReplyError, 0, proto.EINVAL},
		{"a trim from 2^64-1", proto.CmdTrim, 0, 1<<64 - 1, 1, 0, proto.ReplyError, 0, proto.EINVAL},
		{"a read of a hole", proto.CmdRead, 0, 1 << 20, 4096, 0, proto.ReplyOffsetHole, 12, 0},
		{"zeroes", proto.CmdWriteZeroes, 0, 5 << 20, 1 << 20, 0, proto.ReplyNone, 0, 0},
		{"cache", proto.CmdCache, 0, 0, 64 << 20, 0, proto.ReplyNone, 0, 0},
		{"block status", proto.CmdBlockStatus, 0, 0, 2 << 20, 0, proto.ReplyBlockStatusExt, 8 + 2*16, 0},
		{"block status of one", proto.CmdBlockStatus, proto.CmdFlagReqOne, 1 << 20, 3 << 20, 0, proto.ReplyBlockStatusExt, 8 + 16, 0},
		{"block status of contexts in a payload", proto.CmdBlockStatus, withPayload, 0, 12, 12, proto.ReplyError, 0, proto.EINVAL},
		{"an unknown command with payload", 99, withPayload, 7, 100, 100, proto.ReplyError, 0, proto.EINVAL},
	} {
		q := proto.Request{Type: tt.cmd, Flags: tt.flags, Cookie: uint64(i), Offset: tt.off, Length: tt.n}
		p.send(append(q.AppendExt(nil), make([]byte, tt.payload)...))
		h, b := p.expectChunk()
		if h.Type != tt.kind || h.Cookie != uint64(i) || h.Offset != tt.off || tt.kind != proto.ReplyError && h.Length != tt.length {
			t.Errorf("%s: answered with %+v", tt.what, h)
		}
		if h.Type == proto.ReplyError && binary.BigEndian.Uint32(b) != tt.errno {
			t.Errorf("%s: error %d, want %d", tt.what, binary.BigEndian.Uint32(b), tt.errno)
		}
		if h.Type == proto.ReplyBlockStatusExt && uint64(binary.BigEndian.Uint32(b[4:]))*16+8 != h.Length {
			t.Errorf("%s: % x", tt.what, b)
		}
	}
	p.send(proto.Request{Type: proto.CmdDisc}.AppendExt(nil))
	p.expectEnd()
	r.expectMemoryBack()
}

func TestExtendedRequestsAllocateNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	r := newRig(t, Config{})
	for _, tt := range []struct {
		what  string
		cmd   uint16
		n     int
		reply int // bytes of payload of the reply
	}{
		{"read", proto.CmdRead, 4096, 8 + 4096},
		{"write", proto.CmdWrite, 4096, 0},
		{"zeroes", proto.CmdWriteZeroes, 4096, 0},
		{"trim", proto.CmdTrim, 4096, 0},
		{"block status", proto.CmdBlockStatus, 1 << 20, 8 + 16},
	} {
		p := r.connect()
		p.SetDeadline(never)
		p.enterExtended("disk")
		b := &burst{nc: p.Conn, in: make([]byte, 32*(proto.ExtChunkSize+tt.reply))}
		for i := range 32 {
			q := proto.Request{Type: tt.cmd, Offset: uint64(i * tt.n), Length: uint64(tt.n)}
			if tt.cmd == proto.CmdWrite {
				q.Flags = proto.CmdFlagPayloadLen
			}
			b.out = q.AppendExt(b.out)
			if tt.cmd == proto.CmdWrite {
				b.out = append(b.out, make([]byte, tt.n)...)
			}
		}
		for range 10 {
			if err := b.do(); err != nil {
				t.Fatal(err)
			}
		}
		if n := testing.AllocsPerRun(200, func() {
			if err := b.do(); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: 32 requests allocate %v times", tt.what, n)
		}
		p.Close()
	}
}
