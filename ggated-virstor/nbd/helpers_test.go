package nbd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/internal/proto"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdclient"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdtest"
)

// patience is how long a test waits for what must happen.
const patience = time.Minute

// never turns a deadline off.
var never time.Time

// rig is a server on a Unix socket.
type rig struct {
	*Server
	t    testing.TB
	addr Address
	log  *logBuffer
}

// logBuffer collects log lines.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Count(l.b.Bytes(), []byte(s))
}

// startServer serves disks under their names until the test ends.
func startServer(t testing.TB, cfg Config, disks map[string]Disk) *rig {
	t.Helper()
	log := new(logBuffer)
	cfg.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s, err := NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for name, d := range disks {
		if err := s.AddExport(name, d); err != nil {
			t.Fatal(err)
		}
	}
	r := &rig{Server: s, t: t, log: log}
	r.addr = Address{"unix", filepath.Join(t.TempDir(), "s")}
	ln, err := Listen(t.Context(), r.addr, ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(context.Background(), ln) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		s.Shutdown(ctx)
		if err := <-served; err != nil && !errors.Is(err, ErrServerClosed) { // by a test that ends before it begins
			t.Errorf("Serve: %v", err)
		}
		if t.Failed() {
			t.Log(log.b.String())
		}
	})
	return r
}

// dial connects a client.
func (r *rig) dial(export string, opt nbdclient.Options) *nbdclient.Conn {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	c, err := nbdclient.Dial(ctx, URI(r.addr, export, false), opt)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Abort() })
	return c
}

// peer is a client made by hand.
type peer struct {
	net.Conn
	t testing.TB
}

// connect opens a socket to the server.
func (r *rig) connect() peer {
	r.t.Helper()
	nc, err := net.Dial(r.addr.Network, r.addr.Addr)
	if err != nil {
		r.t.Fatal(err)
	}
	nc.SetDeadline(time.Now().Add(patience))
	r.t.Cleanup(func() { nc.Close() })
	return peer{nc, r.t}
}

// greet exchanges greetings.
func (p peer) greet() {
	p.t.Helper()
	p.expect(18)
	p.send(binary.BigEndian.AppendUint32(nil, proto.FlagFixedNewstyle|proto.FlagNoZeroes))
}

// enter goes to an export in the simplest way.
func (p peer) enter(export string) {
	p.t.Helper()
	p.greet()
	p.send(append(proto.AppendOption(nil, proto.OptExportName, len(export)), export...))
	p.expect(proto.ExportInfoSize)
}

func (p peer) send(b []byte) {
	p.t.Helper()
	if _, err := p.Write(b); err != nil {
		p.t.Fatal(err)
	}
}

// enterExtended goes to an export with extended headers and base:allocation.
func (p peer) enterExtended(export string) {
	p.t.Helper()
	p.greet()
	name := proto.AppendString(nil, export)
	context := binary.BigEndian.AppendUint32(bytes.Clone(name), 1)
	for _, o := range []struct {
		opt  uint32
		data []byte
	}{
		{proto.OptExtendedHeaders, nil},
		{proto.OptSetMetaContext, proto.AppendString(context, proto.BaseAllocation)},
		{proto.OptGo, append(name, 0, 0)},
	} {
		if got := p.option(o.opt, o.data); got != proto.RepAck {
			p.t.Fatalf("option %d: %#x", o.opt, got)
		}
	}
}

// expectChunk reads an extended reply of one chunk.
func (p peer) expectChunk() (proto.Chunk, []byte) {
	p.t.Helper()
	b := p.expect(proto.ExtChunkSize)
	if binary.BigEndian.Uint32(b) != proto.MagicExtReply {
		p.t.Fatalf("reply starts with % x", b)
	}
	h := proto.DecodeExtChunk(b)
	if h.Flags != proto.ReplyFlagDone {
		p.t.Errorf("more is to follow: %+v", h)
	}
	return h, p.expect(int(h.Length))
}

// request sends a request.
func (p peer) request(cmd uint16, cookie uint64, off int64, n int, payload []byte) {
	p.t.Helper()
	h := proto.Request{Type: cmd, Cookie: cookie, Offset: uint64(off), Length: uint64(n)}
	p.send(append(h.Append(nil), payload...))
}

// expect reads n bytes.
func (p peer) expect(n int) []byte {
	p.t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(p, b); err != nil {
		p.t.Fatal(err)
	}
	return b
}

// expectReply reads a simple reply.
func (p peer) expectReply() (errno uint32, cookie uint64) {
	p.t.Helper()
	b := p.expect(proto.SimpleSize)
	if binary.BigEndian.Uint32(b) != proto.MagicSimple {
		p.t.Fatalf("reply starts with % x", b)
	}
	return binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint64(b[8:])
}

// expectEnd reads until the server closes the connection.
func (p peer) expectEnd() {
	p.t.Helper()
	p.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.Copy(io.Discard, p); err != nil {
		if ne, ok := err.(net.Error); ok && ne.Timeout() {
			p.t.Fatal("the server does not close the connection")
		}
	}
}

// expectOptReply reads a reply to an option.
func (p peer) expectOptReply() (opt, kind uint32, data []byte) {
	p.t.Helper()
	b := p.expect(proto.OptReplySize)
	if binary.BigEndian.Uint64(b) != proto.MagicOptReply {
		p.t.Fatalf("reply starts with % x", b)
	}
	data = p.expect(int(binary.BigEndian.Uint32(b[16:])))
	return binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint32(b[12:]), data
}

// option sends an option and returns the final reply to it.
func (p peer) option(opt uint32, data []byte) uint32 {
	p.t.Helper()
	p.send(append(proto.AppendOption(nil, opt, len(data)), data...))
	for {
		got, kind, _ := p.expectOptReply()
		if got != opt {
			p.t.Fatalf("reply to option %d, want %d", got, opt)
		}
		if kind == proto.RepAck || kind&proto.RepErr != 0 {
			return kind
		}
	}
}

// until polls for what no event tells.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("timeout: %s", what)
		}
	}
}

// expectMemoryBack waits until no connection uses memory for payload.
func (r *rig) expectMemoryBack() {
	r.t.Helper()
	r.mu.Lock()
	exports := make([]*export, 0, len(r.exports))
	for _, e := range r.exports {
		exports = append(exports, e)
	}
	r.mu.Unlock()
	until(r.t, "memory of reads is given back", func() bool { return r.reads.free.Load() == r.cfg.ReadMemory })
	for _, e := range exports {
		until(r.t, "memory of writes is given back", func() bool { return e.writes.free.Load() == r.cfg.WriteMemory })
	}
}

// only returns the server's one connection to an export.
func (r *rig) only() *conn {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.conns) != 1 {
		r.t.Fatalf("%d connections", len(r.conns))
	}
	for c := range r.conns {
		return c
	}
	return nil
}

// readerWaits says whether the reader of c waits for something other than input.
func (c *conn) readerWaits() bool {
	c.sender.mu.Lock()
	defer c.sender.mu.Unlock()
	return c.sender.waiting
}

// newDisk makes a disk that is closed when the test ends.
func newDisk(t *testing.T, cfg nbdtest.Config) *nbdtest.Disk {
	d := nbdtest.New(cfg)
	t.Cleanup(d.Close)
	return d
}
