package nbd

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"net/url"
	"runtime"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/internal/proto"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdtest"
)

func FuzzParseGo(f *testing.F) {
	f.Add(append(proto.AppendString(nil, "disk"), 0, 2, 0, 1, 0, 3))
	f.Add([]byte{0, 0, 0, 0, 0, 0})
	f.Add([]byte{255, 255, 255, 255, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		name, infos, err := parseGo(b)
		if err != nil {
			return
		}
		again := proto.AppendString(nil, name)
		again = binary.BigEndian.AppendUint16(again, uint16(len(infos)))
		for _, i := range infos {
			again = binary.BigEndian.AppendUint16(again, i)
		}
		if !bytes.Equal(again, b) {
			t.Errorf("% x is taken for % x", b, again)
		}
	})
}

func FuzzParseMeta(f *testing.F) {
	b := binary.BigEndian.AppendUint32(proto.AppendString(nil, "disk"), 2)
	f.Add(proto.AppendString(proto.AppendString(b, "base:"), "x-y:z"))
	f.Add([]byte{0, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		name, queries, err := parseMeta(b)
		if err != nil {
			return
		}
		again := proto.AppendString(nil, name)
		again = binary.BigEndian.AppendUint32(again, uint32(len(queries)))
		for _, q := range queries {
			again = proto.AppendString(again, q)
		}
		if !bytes.Equal(again, b) {
			t.Errorf("% x is taken for % x", b, again)
		}
	})
}

// FuzzParseListen: what is taken for an address is printed as one that is taken for
// the same.
func FuzzParseListen(f *testing.F) {
	for _, s := range []string{"unix:/a:b", "tcp:localhost", "tcp::0", "tcp:[::1]:7", "tcp:[fe80::1%x]", "udp:x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseListen(s)
		if err != nil {
			return
		}
		if again, err := ParseListen(a.String()); err != nil || again != a {
			t.Errorf("%q is %v, which is %v, %v", s, a, again, err)
		}
	})
}

// FuzzURI: whatever an export is called, its URI is one, and names it.
func FuzzURI(f *testing.F) {
	f.Add("/tmp/s", "vol", false)
	f.Add("h:1", "a/b c?d#e%", true)
	f.Fuzz(func(t *testing.T, addr, export string, tcp bool) {
		a := Address{"unix", addr}
		if tcp {
			a = Address{"tcp", "localhost:1"}
		}
		u, err := url.Parse(URI(a, export, false))
		if err != nil {
			t.Fatalf("%q: %v", export, err)
		}
		if u.Path != "/"+export || !tcp && u.Query().Get("socket") != addr {
			t.Errorf("%q on %q became %v", export, addr, u)
		}
	})
}

func FuzzDecodeRequest(f *testing.F) {
	f.Add(proto.Request{Flags: 1, Type: 2, Cookie: 3, Offset: 4, Length: 5}.Append(nil))
	f.Add(proto.Request{Flags: 1, Type: 2, Cookie: 3, Offset: 4, Length: 1 << 40}.AppendExt(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < proto.RequestSize {
			return
		}
		h, err := proto.DecodeRequest(b)
		if err == nil && !bytes.Equal(h.Append(nil), b[:proto.RequestSize]) {
			t.Errorf("% x is taken for %+v", b, h)
		}
		if len(b) < proto.ExtRequestSize {
			return
		}
		h, err = proto.DecodeExtRequest(b)
		if err == nil && !bytes.Equal(h.AppendExt(nil), b[:proto.ExtRequestSize]) {
			t.Errorf("% x is taken for %+v", b, h)
		}
	})
}

// FuzzConnection feeds a server all that a client may send, from its flags on
// or, with inside set, from the first request on, with the headers that speaks
// chooses. The server must come to an end, with all memory given back.
func FuzzConnection(f *testing.F) {
	request := func(flags, cmd uint16, off uint64, n uint32, payload string) []byte {
		return append(proto.Request{Flags: flags, Type: cmd, Cookie: off, Offset: off, Length: uint64(n)}.Append(nil), payload...)
	}
	option := func(opt uint32, data []byte) []byte {
		return append(proto.AppendOption(nil, opt, len(data)), data...)
	}
	var all []byte
	for cmd := range uint16(9) {
		if cmd != proto.CmdDisc {
			payload := ""
			if cmd == proto.CmdWrite {
				payload = "0123456789"
			}
			all = append(all, request(0, cmd, 100, 10, payload)...)
		}
	}
	f.Add(all, true, uint8(structured))
	f.Add(append(all, request(0, proto.CmdDisc, 0, 0, "")...), true, uint8(simple))
	f.Add(request(0, proto.CmdRead, 0, 1<<20, ""), true, uint8(structured))
	f.Add(request(0, proto.CmdWrite, 0, 1<<25, "short"), true, uint8(structured))
	f.Add(request(1<<4, proto.CmdWriteZeroes, 0, 1<<20, ""), true, uint8(structured))
	var wide []byte
	for cmd := range uint16(9) {
		for _, n := range []uint64{10, 1 << 20, 1 << 40, 1<<64 - 1} {
			if cmd != proto.CmdDisc {
				wide = proto.Request{Type: cmd, Cookie: n, Offset: 100, Length: n}.AppendExt(wide)
			}
		}
		wide = proto.Request{Type: cmd &^ 2, Flags: proto.CmdFlagPayloadLen, Length: 4}.AppendExt(wide)
		wide = append(wide, "1234"...)
	}
	f.Add(wide, true, uint8(extended))
	f.Add(proto.Request{Type: proto.CmdWrite, Flags: proto.CmdFlagPayloadLen, Length: 1 << 40}.AppendExt(wide), true, uint8(extended))
	hello := []byte{0, 0, 0, 3}
	name := proto.AppendString(nil, "disk")
	hello = append(hello, option(proto.OptStructuredReply, nil)...)
	hello = append(hello, option(proto.OptExtendedHeaders, nil)...)
	hello = append(hello, option(proto.OptList, nil)...)
	hello = append(hello, option(proto.OptSetMetaContext, proto.AppendString(append(bytes.Clone(name), 0, 0, 0, 1), "base:allocation"))...)
	hello = append(hello, option(proto.OptInfo, append(bytes.Clone(name), 0, 1, 0, 3))...)
	f.Add(append(bytes.Clone(hello), option(proto.OptAbort, nil)...), false, uint8(simple))
	f.Add(append(append(bytes.Clone(hello), option(proto.OptGo, append(bytes.Clone(name), 0, 0))...), wide...), false, uint8(simple))
	f.Add(append(append([]byte{0, 0, 0, 3}, option(proto.OptExportName, []byte("disk"))...), all...), false, uint8(simple))
	f.Add(append(bytes.Clone(hello), option(proto.OptStartTLS, nil)...), false, uint8(simple))

	f.Add(append(append(bytes.Clone(hello), option(proto.OptListMetaContext, proto.AppendString(append(bytes.Clone(name), 0, 0, 0, 1), "qemu:"))...),
		option(proto.OptGo, append(bytes.Clone(name), 0, 0))...), false, uint8(simple))
	d := withHistory(nbdtest.New(nbdtest.Config{Size: 1<<20 + 100, ChunkSize: 4096}), "a", "b:c")
	s, err := NewServer(Config{ReadMemory: 32 << 20, WriteMemory: 32 << 20, MaxInFlight: 64})
	if err != nil {
		f.Fatal(err)
	}
	if err := s.AddExport("disk", d); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte, inside bool, speaks uint8) {
		if inside {
			start := []byte{0, 0, 0, 3}
			switch headers(speaks % 3) {
			case structured:
				start = append(start, option(proto.OptStructuredReply, nil)...)
			case extended:
				start = append(start, option(proto.OptExtendedHeaders, nil)...)
			}
			start = append(start, option(proto.OptSetMetaContext, proto.AppendString(proto.AppendString(append(bytes.Clone(name), 0, 0, 0, 2), proto.BaseAllocation), "qemu:dirty-bitmap:b:c"))...)
			start = append(start, option(proto.OptGo, append(bytes.Clone(name), 0, 0))...)
			b = append(start, b...)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		server, client := net.Pipe()
		s.start(server)
		client.SetDeadline(time.Now().Add(patience))
		received := make(chan error)
		go func() {
			_, err := io.Copy(io.Discard, client)
			received <- err
		}()
		client.Write(b) // fails when the server has had enough
		client.Close()
		<-received
		s.goroutines.Wait()
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 80<<20 {
			t.Errorf("%d bytes of input made the server allocate %d", len(b), n)
		}
		if s.reads.free.Load() != 32<<20 || s.exports["disk"].writes.free.Load() != 32<<20 {
			t.Error("memory was not given back")
		}
	})
}
