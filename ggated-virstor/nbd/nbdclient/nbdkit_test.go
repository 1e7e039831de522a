package nbdclient

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/internal/proto"
)

// nbdkit starts a reference server and returns its socket. The test skips where
// nbdkit is missing, and fails if GVIRSTOR_REQUIRE_TOOLS=1.
func nbdkit(t *testing.T, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("nbdkit")
	if err != nil && os.Getenv("GVIRSTOR_REQUIRE_TOOLS") == "1" {
		t.Fatal("nbdkit is missing, and GVIRSTOR_REQUIRE_TOOLS=1")
	}
	if err != nil {
		t.Skip("nbdkit is missing")
	}
	dir := t.TempDir()
	socket, pid := filepath.Join(dir, "s"), filepath.Join(dir, "pid")
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, path, append([]string{"-f", "-P", pid, "-U", socket}, args...)...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		cmd.Wait()
	})
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(pid); err == nil { // it is written when the server is ready
			return socket
		}
		if time.Now().After(end) {
			t.Fatal("nbdkit does not start")
		}
	}
}

func dial(t *testing.T, socket string, opt Options) *Conn {
	t.Helper()
	c, err := Dial(t.Context(), "nbd+unix:///?socket="+socket, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Abort() })
	return c
}

func TestClientOfNbdkit(t *testing.T) {
	socket := nbdkit(t, "memory", "64M")
	for _, opt := range []Options{{}, {Simple: true}, {ExportName: true}} {
		c := dial(t, socket, opt)
		if n := c.Info().Size; n != 64<<20 {
			t.Errorf("size %d", n)
		}
		var all sync.WaitGroup
		for i := range int64(16) {
			all.Go(func() {
				want := bytes.Repeat([]byte{byte(i + 1)}, 1<<20+int(i))
				got := make([]byte, len(want))
				off := i * 2 << 20
				if _, err := c.Write(want, off, FUA); err != nil {
					t.Error(err)
				}
				if _, err := c.ReadAt(got, off); err != nil || !bytes.Equal(got, want) {
					t.Errorf("read %d: %v", i, err)
				}
				if err := c.WriteZeroes(off, 4096, 0); err != nil {
					t.Error(err)
				}
				if _, err := c.ReadAt(got[:5000], off); err != nil || got[4095] != 0 || got[4096] != byte(i+1) {
					t.Errorf("read behind zeroes %d: %v", i, err)
				}
			})
		}
		all.Wait()
		if err := c.Flush(); err != nil {
			t.Error(err)
		}
		if err := c.Trim(0, 64<<20, 0); err != nil {
			t.Error(err)
		}
		if _, err := c.WriteAt(make([]byte, 2), 64<<20-1); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("write past the end: %v", err)
		}
		if !opt.Simple {
			extents, err := c.BlockStatus(0, 64<<20, 0)
			if err != nil || len(extents) == 0 || !extents[0].Hole || !extents[0].Zero {
				t.Errorf("block status: %v, %v", extents, err)
			}
		}
		if err := c.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if err := c.Flush(); !errors.Is(err, ErrClosed) {
			t.Errorf("flush after close: %v", err)
		}
	}
}

func TestServerDeathFailsWhatIsInFlight(t *testing.T) {
	server, client := net.Pipe()
	go func() {
		server.Write([]byte("NBDMAGICIHAVEOPT\x00\x03"))
		b := make([]byte, 4+16)
		server.Read(b[:4])
		server.Read(b)
		server.Write([]byte{0, 0, 0, 0, 0, 0, 16, 0, 0, 1})
		server.Read(make([]byte, 28))
		server.Close()
	}()
	c, err := New(t.Context(), client, Options{Simple: true, ExportName: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.ReadAt(make([]byte, 10), 0); !errors.Is(err, ErrClosed) {
		t.Errorf("read: %v", err)
	}
	<-c.Done()
}

func TestListOfNbdkit(t *testing.T) {
	socket := nbdkit(t, "memory", "1M")
	nc, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	if names, err := List(nc); err != nil || len(names) != 1 {
		t.Errorf("list: %q, %v", names, err)
	}
}

func TestDialFailsInWords(t *testing.T) {
	for _, uri := range []string{"http://x/", "nbd+unix:///x", "nbd+unix:///x?socket=/nowhere/at/all", "::"} {
		if _, err := Dial(t.Context(), uri, Options{}); err == nil {
			t.Errorf("%s: no error", uri)
		}
	}
	server, client := net.Pipe()
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := New(ctx, client, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("negotiation after its context ended: %v", err)
	}
}

// FuzzClient feeds a client what a server may send in answer to a read and a block
// status, with the headers that speaks chooses.
func FuzzClient(f *testing.F) {
	const simple, structured, extended = 0, 1, 2
	f.Add([]byte("\x67\x44\x66\x98\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x010123456789"), uint8(simple))
	f.Add([]byte("\x66\x8e\x33\xef\x00\x01\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x12"+
		"\x00\x00\x00\x00\x00\x00\x00\x000123456789"), uint8(structured))
	f.Add([]byte("\x66\x8e\x33\xef\x00\x01\x00\x02\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x0c"+
		"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x0a"), uint8(structured))
	f.Add([]byte("\x66\x8e\x33\xef\x00\x01\x80\x01\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x06"+
		"\x00\x00\x00\x05\x00\x00"), uint8(structured))
	chunk := func(kind uint16, cookie, off uint64, payload string) string {
		h := proto.Chunk{Flags: proto.ReplyFlagDone, Type: kind, Cookie: cookie, Offset: off, Length: uint64(len(payload))}
		return string(h.AppendExt(nil)) + payload
	}
	read := chunk(proto.ReplyOffsetData, 1, 0, "\x00\x00\x00\x00\x00\x00\x00\x000123456789")
	status := "\x00\x00\x00\x01\x00\x00\x00\x01" + "\x00\x00\x00\x01\x00\x00\x00\x00" + "\x00\x00\x00\x00\x00\x00\x00\x03"
	f.Add([]byte(read+chunk(proto.ReplyBlockStatusExt, 2, 0, status)), uint8(extended))
	f.Add([]byte(read+chunk(proto.ReplyBlockStatus, 2, 0, status[:12])), uint8(extended))
	f.Add([]byte(chunk(proto.ReplyError, 1, 0, "\x00\x00\x00\x05\x00\x00")+chunk(proto.ReplyNone, 2, 7, "")), uint8(extended))
	f.Fuzz(func(t *testing.T, b []byte, speaks uint8) {
		speaks %= 3
		server, client := net.Pipe()
		ack := func(opt uint32, data string) {
			server.Read(make([]byte, 100))
			if data != "" {
				server.Write(append(proto.AppendOptReply(nil, opt, proto.RepMetaContext, len(data)), data...))
			}
			server.Write(proto.AppendOptReply(nil, opt, proto.RepAck, 0))
		}
		go func() {
			defer server.Close()
			server.Write([]byte("NBDMAGICIHAVEOPT\x00\x03"))
			in := make([]byte, 100)
			server.Read(in[:4])
			switch speaks {
			case structured:
				ack(proto.OptStructuredReply, "")
				ack(proto.OptSetMetaContext, "\x00\x00\x00\x01base:allocation")
			case extended:
				ack(proto.OptExtendedHeaders, "")
				ack(proto.OptSetMetaContext, "\x00\x00\x00\x01base:allocation")
			}
			server.Read(in)
			info := "\x00\x00" + "\x00\x00\x00\x00\x00\x00\x10\x00" + "\x00\x01"
			server.Write(append(proto.AppendOptReply(nil, proto.OptGo, proto.RepInfo, len(info)), info...))
			server.Write(proto.AppendOptReply(nil, proto.OptGo, proto.RepAck, 0))
			server.Read(in)
			server.Write(b)
		}()
		c, err := New(t.Context(), client, Options{Simple: speaks == simple, Compact: speaks == structured})
		if err != nil {
			t.Fatal(err)
		}
		c.ReadAt(make([]byte, 10), 0)
		extents, _ := c.BlockStatus(0, 4096, 0)
		for _, e := range extents {
			if e.Length <= 0 {
				t.Errorf("extents %v", extents)
			}
		}
		c.Abort()
		<-c.Done()
	})
}

// FuzzNegotiation feeds a client what a server may send before transmission: it
// comes to an end, and believes nothing that it did not ask for.
func FuzzNegotiation(f *testing.F) {
	reply := func(opt, kind uint32, data string) string {
		return string(proto.AppendOptReply(nil, opt, kind, len(data))) + data
	}
	const greeting = "NBDMAGICIHAVEOPT\x00\x03"
	size := "\x00\x00" + "\x00\x00\x00\x00\x00\x10\x00\x00" + "\x00\x01"
	old := reply(proto.OptExtendedHeaders, proto.RepErrUnsup, "")
	structured := old + reply(proto.OptStructuredReply, proto.RepAck, "")
	context := reply(proto.OptSetMetaContext, proto.RepMetaContext, "\x00\x00\x00\x01base:allocation") + reply(proto.OptSetMetaContext, proto.RepAck, "")
	f.Add([]byte(greeting + structured + context + reply(proto.OptGo, proto.RepInfo, size) + reply(proto.OptGo, proto.RepAck, "")))
	f.Add([]byte(greeting + old + reply(proto.OptStructuredReply, proto.RepErrUnsup, "no") + reply(proto.OptGo, proto.RepErrUnknown, "none")))
	f.Add([]byte(greeting + structured + reply(proto.OptSetMetaContext, proto.RepErrInvalid, "") + reply(proto.OptGo, proto.RepInfo, "\x00\x03"+"\x00\x00\x00\x01\x00\x00\x10\x00\x02\x00\x00\x00")))
	f.Add([]byte(greeting + reply(proto.OptExtendedHeaders, proto.RepAck, "") + context + reply(proto.OptGo, proto.RepInfo, size) + reply(proto.OptGo, proto.RepAck, "")))
	f.Add([]byte("NBDMAGIC\x00\x00\x42\x02\x81\x86\x12\x53"))
	f.Fuzz(func(t *testing.T, b []byte) {
		server, client := net.Pipe()
		go io.Copy(io.Discard, server)
		go func() {
			server.Write(b) // fails when the client has had enough
			server.Close()
		}()
		c, err := New(t.Context(), client, Options{Export: "disk", LiesOn: len(b)%2 == 0})
		if err != nil {
			return
		}
		if c.Info().Size < 0 || len(c.LiesOn()) > maxLayers {
			t.Errorf("%+v", c.Info())
		}
		c.Abort()
		<-c.Done()
	})
}
