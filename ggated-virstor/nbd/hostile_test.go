package nbd

import (
	"bytes"
	"encoding/binary"
	"io"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/internal/proto"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdclient"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdtest"
)

// newRig serves one disk of 64 MiB, named disk, which is written all over.
func newRig(t *testing.T, cfg Config) *rig {
	d := newDisk(t, nbdtest.Config{Size: 64 << 20, Lend: true})
	r := startServer(t, cfg, map[string]Disk{"disk": d})
	c := r.dial("disk", nbdclient.Options{})
	for off := int64(0); off < 64<<20; off += 1 << 20 {
		if _, err := c.WriteAt([]byte{1}, off); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	until(t, "the first client has left", func() bool { return r.Stats().Conns == 0 })
	return r
}

// works checks that the server serves.
func (r *rig) works() {
	r.t.Helper()
	c := r.dial("disk", nbdclient.Options{})
	if _, err := c.ReadAt(make([]byte, 100000), 5); err != nil {
		r.t.Errorf("another client: %v", err)
	}
	if _, err := c.WriteAt(make([]byte, 100000), 5); err != nil {
		r.t.Errorf("another client: %v", err)
	}
	if err := c.Close(); err != nil {
		r.t.Errorf("another client: %v", err)
	}
}

func TestHostileBytes(t *testing.T) {
	request := func(cmd uint16, off uint64, n uint32) []byte {
		return proto.Request{Type: cmd, Cookie: 1, Offset: off, Length: uint64(n)}.Append(nil)
	}
	option := func(opt uint32, announced int, data string) []byte {
		return append(proto.AppendOption(nil, opt, announced), data...)
	}
	flood := bytes.Repeat(option(99, 0, ""), maxOptions+1)
	for _, tt := range []struct {
		what string
		talk func(p peer)
	}{
		{"nothing but an end", func(p peer) { p.Close() }},
		{"unknown client flags", func(p peer) { p.expect(18); p.send([]byte{0xff, 0, 0, 3}) }},
		{"http", func(p peer) { p.send([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")) }},
		{"an option without magic", func(p peer) { p.greet(); p.send(make([]byte, 16)) }},
		{"an option without end", func(p peer) { p.greet(); p.send(option(proto.OptGo, 1<<31, "abc")) }},
		{"many options", func(p peer) {
			p.greet()
			go io.Copy(io.Discard, p)
			p.Write(flood) // fails at some point
		}},
		{"many bytes of options", func(p peer) {
			p.greet()
			go io.Copy(io.Discard, p)
			for range maxOptionTotal/maxOptionBytes + 2 {
				if _, err := p.Write(option(99, maxOptionBytes, string(make([]byte, maxOptionBytes)))); err != nil {
					return
				}
			}
		}},
		{"an option of a client that is not fixed newstyle", func(p peer) {
			p.expect(18)
			p.send([]byte{0, 0, 0, 0})
			p.send(option(proto.OptList, 0, ""))
		}},
		{"an unknown export by its name alone", func(p peer) { p.greet(); p.send(option(proto.OptExportName, 3, "abc")) }},
		{"data behind STARTTLS", func(p peer) {
			p.greet()
			p.send(append(option(proto.OptStartTLS, 0, ""), option(proto.OptAbort, 0, "")...))
		}},
		{"a request without magic", func(p peer) { p.enter("disk"); p.send(make([]byte, proto.RequestSize)) }},
		{"a write that is too long", func(p peer) { p.enter("disk"); p.send(request(proto.CmdWrite, 0, maxPayload+1)) }},
		{"a write of 4 GiB with a wrong flag", func(p peer) {
			p.enter("disk")
			b := request(proto.CmdWrite, 0, 1<<32-1)
			b[4] = 0x80
			p.send(b)
		}},
		{"garbage behind requests", func(p peer) {
			p.enter("disk")
			p.send(append(bytes.Repeat(request(proto.CmdRead, 0, 512), 10), "garbage garbage garbage garbage"...))
		}},
		{"half a write", func(p peer) {
			p.enter("disk")
			p.send(append(request(proto.CmdWrite, 0, 1<<20), 1, 2, 3))
			p.Close()
		}},
		{"an extended header without magic", func(p peer) { p.enterExtended("disk"); p.send(make([]byte, proto.ExtRequestSize)) }},
		{"a compact header among extended ones", func(p peer) { p.enterExtended("disk"); p.send(append(request(proto.CmdRead, 0, 1), 0, 0, 0, 0)) }},
		{"an extended header among compact ones", func(p peer) { p.enter("disk"); p.send(proto.Request{}.AppendExt(nil)) }},
		{"a payload that is too long", func(p peer) {
			p.enterExtended("disk")
			p.send(proto.Request{Type: proto.CmdWrite, Flags: proto.CmdFlagPayloadLen, Length: maxPayload + 1}.AppendExt(nil))
		}},
		{"a payload of all that there is, of a command that has none", func(p peer) {
			p.enterExtended("disk")
			p.send(proto.Request{Type: proto.CmdTrim, Flags: proto.CmdFlagPayloadLen, Length: 1<<64 - 1}.AppendExt(nil))
		}},
		{"half a payload of a command that has none", func(p peer) {
			p.enterExtended("disk")
			p.send(append(proto.Request{Type: proto.CmdTrim, Flags: proto.CmdFlagPayloadLen, Length: 100}.AppendExt(nil), 1, 2, 3))
			p.Close()
		}},
		{"the oldest way to an export after extended headers", func(p peer) {
			p.greet()
			p.option(proto.OptExtendedHeaders, nil)
			p.send(option(proto.OptExportName, 4, "disk"))
		}},
		{"half a header", func(p peer) { p.enter("disk"); p.send(request(proto.CmdRead, 0, 1)[:9]); p.Close() }},
	} {
		t.Run(tt.what, func(t *testing.T) {
			r := newRig(t, Config{})
			p := r.connect()
			p.t = t
			tt.talk(p)
			if tt.what != "many options" && tt.what != "many bytes of options" {
				p.expectEnd()
			}
			until(t, "the server lets go", func() bool { return r.Stats().Conns == 0 })
			r.works()
			r.expectMemoryBack()
		})
	}
}

// TestBadRequestsDoNotEndTheStream: what can be answered is, and the next
// request is understood.
func TestBadRequestsDoNotEndTheStream(t *testing.T) {
	r := newRig(t, Config{})
	p := r.connect()
	p.enter("disk")
	for i, tt := range []struct {
		cmd     uint16
		off     int64
		n       int
		payload int
		want    uint32
	}{
		{proto.CmdRead, 0, maxPayload + 1, 0, proto.EINVAL},
		{proto.CmdRead, 0, 1<<32 - 1, 0, proto.EINVAL},
		{proto.CmdRead, -1, 2, 0, proto.EINVAL},
		{proto.CmdRead, -1 << 63, 1, 0, proto.EINVAL},
		{proto.CmdRead, 1<<63 - 1, 1, 0, proto.EINVAL},
		{proto.CmdWrite, 64<<20 - 1, 300000, 300000, proto.ENOSPC},
		{proto.CmdWrite, -4096, 4096, 4096, proto.ENOSPC},
		{proto.CmdTrim, 1, 1<<32 - 1, 0, proto.EINVAL},
		{proto.CmdWriteZeroes, 1, 1<<32 - 1, 0, proto.ENOSPC},
		{proto.CmdFlush, 1, 0, 0, proto.EINVAL},
		{proto.CmdFlush, 0, 1, 0, proto.EINVAL},
		{proto.CmdBlockStatus, 0, 1, 0, proto.EINVAL},
		{8, 0, 0, 0, proto.EINVAL},
		{0xffff, 0, 1 << 20, 0, proto.EINVAL},
		{proto.CmdCache, 0, 64 << 20, 0, 0},
	} {
		p.request(tt.cmd, uint64(i), tt.off, tt.n, make([]byte, tt.payload))
		if errno, cookie := p.expectReply(); errno != tt.want || cookie != uint64(i) {
			t.Errorf("%d: command %d at %d, %d bytes: reply %d to %d, want %d", i, tt.cmd, tt.off, tt.n, errno, cookie, tt.want)
		}
	}
}

func TestOptionsThatAreRefused(t *testing.T) {
	r := newRig(t, Config{})
	p := r.connect()
	p.greet()
	str := func(s string) []byte { return proto.AppendString(nil, s) }
	cat := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	n16 := func(n uint16) []byte { return binary.BigEndian.AppendUint16(nil, n) }
	n32 := func(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
	for i, tt := range []struct {
		opt  uint32
		data []byte
		want uint32
	}{
		{99, []byte("x"), proto.RepErrUnsup},
		{4, nil, proto.RepErrUnsup},
		{12, nil, proto.RepErrUnsup},
		{99, make([]byte, maxOptionBytes+1), proto.RepErrTooBig},
		{proto.OptList, []byte("x"), proto.RepErrInvalid},
		{proto.OptStartTLS, nil, proto.RepErrUnsup},
		{proto.OptInfo, nil, proto.RepErrInvalid},
		{proto.OptInfo, n32(1 << 31), proto.RepErrInvalid},
		{proto.OptInfo, cat(str("disk"), n16(2), n16(0)), proto.RepErrInvalid},
		{proto.OptInfo, cat(str("disk"), n16(0), n16(0)), proto.RepErrInvalid},
		{proto.OptInfo, cat(str("none"), n16(0)), proto.RepErrUnknown},
		{proto.OptInfo, cat(str("disk"), n16(0)), proto.RepAck},
		{proto.OptGo, cat(str("none"), n16(0)), proto.RepErrUnknown},
		{proto.OptSetMetaContext, cat(str("disk"), n32(0)), proto.RepErrInvalid}, // needs structured replies
		{proto.OptStructuredReply, []byte("x"), proto.RepErrInvalid},
		{proto.OptStructuredReply, nil, proto.RepAck},
		{proto.OptSetMetaContext, cat(str("disk"), n32(1<<31)), proto.RepErrInvalid},
		{proto.OptSetMetaContext, cat(str("disk"), n32(1), n32(99)), proto.RepErrInvalid},
		{proto.OptSetMetaContext, cat(str("disk"), n32(0), []byte("x")), proto.RepErrInvalid},
		{proto.OptSetMetaContext, cat(str("none"), n32(1), str("base:allocation")), proto.RepErrUnknown},
		{proto.OptSetMetaContext, cat(str("disk"), n32(2), str("x-other:"), str("base:")), proto.RepAck},
		{proto.OptListMetaContext, cat(str("disk"), n32(0)), proto.RepAck},
		{proto.OptExtendedHeaders, []byte("x"), proto.RepErrInvalid},
		{proto.OptStructuredReply, nil, proto.RepAck}, // for that changed nothing
		{proto.OptExtendedHeaders, nil, proto.RepAck},
		{proto.OptExtendedHeaders, nil, proto.RepAck},
		{proto.OptStructuredReply, nil, proto.RepErrExtHeaderReqd},
		{proto.OptSetMetaContext, cat(str("disk"), n32(1), str("base:allocation")), proto.RepAck},
	} {
		if got := p.option(tt.opt, tt.data); got != tt.want {
			t.Errorf("%d: option %d: reply %#x, want %#x", i, tt.opt, got, tt.want)
		}
	}
	if got := p.option(proto.OptAbort, []byte("for reasons")); got != proto.RepAck {
		t.Errorf("abort: %#x", got)
	}
	p.expectEnd()
}

// TestContextOfAnotherExport: the context counts only for the export it was
// selected for.
func TestContextOfAnotherExport(t *testing.T) {
	r := newRig(t, Config{})
	if err := r.AddExport("other", newDisk(t, nbdtest.Config{Size: 1 << 20})); err != nil {
		t.Fatal(err)
	}
	p := r.connect()
	p.greet()
	p.option(proto.OptStructuredReply, nil)
	data := proto.AppendString(nil, "other")
	data = binary.BigEndian.AppendUint32(data, 1)
	data = proto.AppendString(data, proto.BaseAllocation)
	if got := p.option(proto.OptSetMetaContext, data); got != proto.RepAck {
		t.Fatalf("select: %#x", got)
	}
	if got := p.option(proto.OptGo, append(proto.AppendString(nil, "disk"), 0, 0)); got != proto.RepAck {
		t.Fatalf("go: %#x", got)
	}
	p.request(proto.CmdBlockStatus, 1, 0, 1, nil)
	h := proto.DecodeChunk(p.expect(proto.ChunkSize))
	if b := p.expect(int(h.Length)); h.Type != proto.ReplyError || binary.BigEndian.Uint32(b) != proto.EINVAL {
		t.Errorf("block status: chunk %+v, % x", h, b)
	}
}

func TestHandshakeHasADeadline(t *testing.T) {
	r := newRig(t, Config{HandshakeTimeout: time.Second})
	silent, chatty := r.connect(), r.connect()
	chatty.greet()
	chatty.send(proto.AppendOption(nil, proto.OptGo, 100))
	silent.expectEnd()
	chatty.expectEnd()
	r.works()
}

func TestSlowReaderIsDisconnectedAlone(t *testing.T) {
	r := newRig(t, Config{StallTimeout: 2 * time.Second, ReadMemory: 32 << 20})
	slow := r.connect()
	slow.enter("disk")
	for i := range 100 { // 100 MiB of replies
		slow.request(proto.CmdRead, uint64(i), 0, 1<<20, nil)
	}
	c := r.dial("disk", nbdclient.Options{})
	for r.Conns("disk") > 1 { // all the while
		if _, err := c.ReadAt(make([]byte, 4096), 0); err != nil {
			t.Fatalf("another client: %v", err)
		}
	}
	until(t, "the log tells why", func() bool { return r.log.count(errStalled.Error()) == 1 })
	r.expectMemoryBack()
	if _, err := c.ReadAt(make([]byte, maxPayload), 0); err != nil {
		t.Errorf("large read afterwards: %v", err)
	}
}

// TestSlowReaderLeavesMemoryToOthers: what it asked for and does not take may
// not be all the memory that there is for large reads.
func TestSlowReaderLeavesMemoryToOthers(t *testing.T) {
	r := newRig(t, Config{ReadMemory: 32 << 20})
	slow := r.connect()
	slow.enter("disk")
	for i := range 100 { // 100 MiB of replies
		slow.request(proto.CmdRead, uint64(i), 0, 1<<20, nil)
	}
	until(t, "the slow reader has what it may have", r.only().readerWaits)
	c := r.dial("disk", nbdclient.Options{})
	for range 10 { // of the time that the slow one has, these take little
		if _, err := c.ReadAt(make([]byte, 8<<20), 0); err != nil {
			t.Fatalf("large read of another client: %v", err)
		}
	}
	if n := r.Conns("disk"); n != 2 {
		t.Fatalf("%d clients are connected: the slow one was not there all the while", n)
	}
	for i := range 100 { // it gets everything when it reads
		if errno, cookie := slow.expectReply(); errno != 0 || cookie != uint64(i) {
			t.Fatalf("reply %d to %d, want one to %d", errno, cookie, i)
		}
		slow.expect(1 << 20)
	}
	r.expectMemoryBack()
}

// TestIdleClientsStay: only a client that is in the middle of something has a
// deadline.
func TestIdleClientsStay(t *testing.T) {
	r := newRig(t, Config{StallTimeout: time.Second})
	idle := r.connect()
	idle.enter("disk")
	idle.request(proto.CmdWrite, 1, 0, 4, nil) // payload to follow, so that there is a deadline
	idle.send([]byte("abcd"))
	idle.expectReply()
	stalled := r.connect()
	stalled.enter("disk")
	stalled.request(proto.CmdWrite, 1, 0, maxPayload, make([]byte, 100000))
	stalled.expectEnd() // several timeouts later than the deadline of the idle one
	idle.request(proto.CmdRead, 2, 0, 4, nil)
	if errno, cookie := idle.expectReply(); errno != 0 || cookie != 2 || string(idle.expect(4)) != "abcd" {
		t.Errorf("reply %d to %d", errno, cookie)
	}
	r.expectMemoryBack()
}

// TestTricklingWriterIsDisconnected: a byte now and then is not enough, the
// memory for the whole write is kept all the while.
func TestTricklingWriterIsDisconnected(t *testing.T) {
	for what, flags := range map[string]uint16{"taken": 0, "refused": 1 << 15} {
		t.Run(what, func(t *testing.T) {
			const stall = 400 * time.Millisecond
			r := newRig(t, Config{StallTimeout: stall})
			p := r.connect()
			p.enter("disk")
			p.SetDeadline(never)
			p.send(proto.Request{Type: proto.CmdWrite, Flags: flags, Length: maxPayload}.Append(nil))
			tick := time.NewTicker(stall / 40)
			defer tick.Stop()
			for end := time.Now().Add(patience); ; {
				<-tick.C
				if _, err := p.Write([]byte{1}); err != nil {
					break
				}
				if time.Now().After(end) {
					t.Fatal("still connected")
				}
			}
			until(t, "the log tells why", func() bool { return r.log.count(errStalled.Error()) == 1 })
			r.expectMemoryBack()
			r.works()
		})
	}
}

func TestRequestsInFlightAreBounded(t *testing.T) {
	const most = 8
	before, entered, open := gate()
	d := newDisk(t, nbdtest.Config{Size: 1 << 20, Workers: most + 4, Before: before})
	defer open()
	r := startServer(t, Config{MaxInFlight: most}, map[string]Disk{"disk": d})
	p := r.connect()
	p.enter("disk")
	for i := range most + 4 {
		p.request(proto.CmdFlush, uint64(i), 0, 0, nil)
	}
	for range most {
		<-entered
	}
	until(t, "the reader waits", r.only().readerWaits)
	if n := r.Stats().Exports["disk"].Flushes; n != most {
		t.Errorf("%d requests are in flight, want %d", n, most)
	}
	open()
	for range most + 4 {
		if errno, _ := p.expectReply(); errno != 0 {
			t.Errorf("reply %d", errno)
		}
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	r := newRig(t, Config{MaxConns: 3, MaxPerPeer: 3})
	first, second := r.connect(), r.connect()
	first.enter("disk")
	second.greet() // and no further
	third := r.connect()
	third.enter("disk")
	fourth := r.connect() // takes the place of the second
	second.expectEnd()
	fourth.enter("disk")
	fifth := r.connect()
	fifth.expectEnd()
	for i, p := range []peer{first, third, fourth} {
		p.request(proto.CmdFlush, 1, 0, 0, nil)
		if errno, _ := p.expectReply(); errno != 0 {
			t.Errorf("client %d: reply %d", i, errno)
		}
	}
	if n := r.log.count("too many NBD connections"); n != 1 {
		t.Errorf("the log speaks of too many connections %d times, want once", n)
	}
	if st := r.Stats(); st.Refused != 1 || st.Conns != 3 {
		t.Errorf("stats: %+v", st)
	}
}
