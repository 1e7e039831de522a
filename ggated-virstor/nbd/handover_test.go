package nbd

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/internal/proto"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdclient"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdtest"
)

// handOver has the server hand its clients over, as many as there are to be.
func (r *rig) handOver(want int) []Handed {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	handed, err := r.HandOver(ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	if len(handed) != want {
		r.t.Fatalf("%d clients are handed over, not %d", len(handed), want)
	}
	return handed
}

// adopt has the server go on with clients.
func (r *rig) adopt(handed []Handed) {
	r.t.Helper()
	for _, h := range handed {
		if err := r.Adopt(h); err != nil {
			r.t.Fatal(err)
		}
	}
}

// next is another server with the same disks, and the clients of r.
func (r *rig) next(clients int, cfg Config, disks map[string]Disk) *rig {
	r.t.Helper()
	n := startServer(r.t, cfg, disks)
	n.adopt(r.handOver(clients))
	return n
}

func TestAClientGoesOnWithTheNextServerAsItWasAgreed(t *testing.T) {
	d := newDisk(t, nbdtest.Config{Size: 64 << 20})
	disks := map[string]Disk{"disk": d, "other": newDisk(t, nbdtest.Config{Size: 1 << 20})}
	for name, opt := range map[string]nbdclient.Options{
		"extended": {}, "structured": {Compact: true}, "simple": {Simple: true}, "export name": {ExportName: true, Simple: true},
	} {
		t.Run(name, func(t *testing.T) {
			r := startServer(t, Config{}, disks)
			c := r.dial("disk", opt)
			since := r.Clients()[0].Since
			for i := range 3 { // an idle one, too
				data := bytes.Repeat([]byte{byte(i + 1)}, 1<<20)
				if _, err := c.WriteAt(data, int64(i)<<20); err != nil {
					t.Fatal(err)
				}
				r = r.next(1, Config{}, disks)
				got := make([]byte, 1<<20)
				if _, err := c.ReadAt(got, int64(i)<<20); err != nil || !bytes.Equal(got, data) {
					t.Fatalf("after %d servers: %v, %x", i+1, err, got[:8])
				}
			}
			if !opt.Simple {
				extents, err := c.BlockStatus(0, 4<<20, 0)
				if err != nil || len(extents) != 2 || extents[0].Length != 3<<20 {
					t.Errorf("extents %v, %v", extents, err)
				}
			}
			if got := r.Clients(); len(got) != 1 || got[0].Export != "disk" || !got[0].Since.Equal(since) {
				t.Errorf("%+v; connected since %v", got, since)
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestADirtyBitmapIsTheSameAtTheNextServer(t *testing.T) {
	d := newDisk(t, nbdtest.Config{Size: 8 << 20})
	disks := map[string]Disk{"disk": withHistory(d, "a", "b")}
	r := startServer(t, Config{}, disks)
	p := r.connect()
	p.greet()
	if got := p.option(proto.OptExtendedHeaders, nil); got != proto.RepAck {
		t.Fatalf("%#x", got)
	}
	ids, _ := p.contexts(proto.OptSetMetaContext, meta("disk", "qemu:dirty-bitmap:b", "base:allocation"))
	if got := p.option(proto.OptGo, append(proto.AppendString(nil, "disk"), 0, 0)); got != proto.RepAck {
		t.Fatalf("%#x", got)
	}
	status := func() (all [][]byte) {
		h := proto.Request{Type: proto.CmdBlockStatus, Cookie: 1, Length: 8 << 20}
		p.send(h.AppendExt(nil))
		for {
			b := p.expect(proto.ExtChunkSize)
			chunk := proto.DecodeExtChunk(b)
			all = append(all, p.expect(int(chunk.Length)))
			if chunk.Flags&proto.ReplyFlagDone != 0 {
				return all
			}
		}
	}
	before := status()
	if len(before) != 2 || len(ids) != 2 {
		t.Fatalf("%d contexts, %d chosen", len(before), len(ids))
	}
	r.next(1, Config{}, disks)
	after := status()
	for i := range before {
		if !bytes.Equal(before[i], after[i]) {
			t.Errorf("context %d says % x, and said % x", i, after[i], before[i])
		}
	}
}

// TestWhatHasComeOfARequestIsNotLost: half of a header goes along, half of a payload is
// read to its end before.
func TestWhatHasComeOfARequestIsNotLost(t *testing.T) {
	d := newDisk(t, nbdtest.Config{Size: 64 << 20})
	disks := map[string]Disk{"disk": d}
	payload := bytes.Repeat([]byte{7}, 1<<20)
	write := append(proto.Request{Type: proto.CmdWrite, Cookie: 5, Offset: 4096, Length: uint64(len(payload))}.Append(nil), payload...)
	for _, sent := range []int{1, proto.RequestSize - 1, proto.RequestSize, proto.RequestSize + 1, proto.RequestSize + 200<<10, len(write) - 1} {
		t.Run(fmt.Sprint(sent), func(t *testing.T) {
			r := startServer(t, Config{}, disks)
			p := r.connect()
			p.enter("disk")
			p.request(proto.CmdRead, 4, 0, 1, nil)
			p.expectReply()
			p.expect(1)
			p.send(write[:sent])
			c := r.only()
			if sent < proto.RequestSize { // it is not known when it is read, but that it need not be
				n := startServer(t, Config{}, disks)
				n.adopt(r.handOver(1))
			} else {
				until(t, "the request is begun", func() bool { return c.counters.ops[proto.CmdWrite].Load() == 1 })
				handed := make(chan []Handed, 1)
				go func() { handed <- r.handOver(1) }()
				<-c.quit
				p.send(write[sent:])
				if errno, cookie := p.expectReply(); errno != 0 || cookie != 5 {
					t.Fatalf("error %d, cookie %d", errno, cookie)
				}
				startServer(t, Config{}, disks).adopt(<-handed)
				sent = 0
			}
			p.send(write[sent:])
			if errno, cookie := p.expectReply(); errno != 0 || cookie != 5 {
				t.Fatalf("error %d, cookie %d", errno, cookie)
			}
		})
	}
}

// TestRequestsThatWaitBehindOthersGoAlong: those that were read and not begun.
func TestRequestsThatWaitBehindOthersGoAlong(t *testing.T) {
	begun, goOn := make(chan struct{}, 10), make(chan struct{})
	d := newDisk(t, nbdtest.Config{Size: 1 << 20, Workers: 2, Before: func(*virstor.Request) error {
		begun <- struct{}{}
		<-goOn
		return nil
	}})
	disks := map[string]Disk{"disk": d}
	r := startServer(t, Config{MaxInFlight: 2}, disks)
	p := r.connect()
	p.enter("disk")
	const all = 8
	var b []byte
	for i := range all {
		b = proto.Request{Type: proto.CmdRead, Cookie: uint64(i), Length: 1}.Append(b)
	}
	p.send(b)
	<-begun
	<-begun
	c := r.only()
	until(t, "two are at work and the reader waits", c.readerWaits)
	handed := make(chan []Handed, 1)
	go func() { handed <- r.handOver(1) }()
	<-c.quit
	close(goOn)
	h := <-handed
	if n := len(h[0].Session.Unread); n == 0 {
		t.Error("nothing was read before it was begun: the test shows nothing")
	}
	startServer(t, Config{}, disks).adopt(h)
	answered := make(map[uint64]bool)
	for range all {
		errno, cookie := p.expectReply()
		if p.expect(1); errno != 0 || answered[cookie] {
			t.Fatalf("error %d, cookie %d", errno, cookie)
		}
		answered[cookie] = true
	}
}

func TestAClientThatNegotiatesMayEndThatFirst(t *testing.T) {
	disks := map[string]Disk{"disk": newDisk(t, nbdtest.Config{Size: 1 << 20})}
	r := startServer(t, Config{}, disks)
	p := r.connect()
	p.greet()
	until(t, "it negotiates", func() bool { return r.Stats().Conns == 1 })
	handed := make(chan []Handed, 1)
	go func() { handed <- r.handOver(1) }()
	until(t, "the server retires", r.isClosing)
	p.send(append(proto.AppendOption(nil, proto.OptExportName, 4), "disk"...))
	p.expect(proto.ExportInfoSize)
	startServer(t, Config{}, disks).adopt(<-handed)
	p.request(proto.CmdRead, 1, 0, 1, nil)
	if errno, _ := p.expectReply(); errno != 0 {
		t.Errorf("error %d", errno)
	}
}

// TestClientsThatCannotGoAlongAreClosed, and hold up no other: one over TLS, one whose
// write waits for space, one that stalls in the midst of a payload.
func TestClientsThatCannotGoAlongAreClosed(t *testing.T) {
	t.Run("TLS", func(t *testing.T) {
		a := newAuthority(t)
		disks := map[string]Disk{"disk": newDisk(t, nbdtest.Config{Size: 1 << 20})}
		r := startServer(t, Config{TLS: a.serving()}, disks)
		c, err := nbdclient.Dial(t.Context(), URI(r.serveTCP(), "disk", true), nbdclient.Options{TLS: a.trust("", "")})
		if err != nil {
			t.Fatal(err)
		}
		other := r.dial("disk", nbdclient.Options{})
		startServer(t, Config{}, disks).adopt(r.handOver(1))
		<-c.Done()
		if err := other.Flush(); err != nil {
			t.Error(err)
		}
	})
	t.Run("held", func(t *testing.T) {
		d, r := fullDisk(t, 64*heldChunk)
		p := r.connect()
		p.enter("disk")
		p.request(proto.CmdWrite, 1, heldChunk, 4, []byte("held"))
		until(t, "it is held", func() bool { return d.Held() == 1 })
		r.handOver(0)
		p.expectEnd()
		if d.Held() != 0 {
			t.Error("it is held still")
		}
	})
	t.Run("not flushed", func(t *testing.T) {
		r := startServer(t, Config{}, map[string]Disk{
			"lost": newDisk(t, nbdtest.Config{Size: 1 << 20, Before: func(r *virstor.Request) error {
				if r.Op == virstor.OpFlush {
					return syscall.EIO
				}
				return nil
			}}),
			"snapshot": newDisk(t, nbdtest.Config{Size: 1 << 20, ReadOnly: true, Before: func(*virstor.Request) error {
				return syscall.EROFS
			}}),
		})
		lost := r.dial("lost", nbdclient.Options{})
		if _, err := lost.WriteAt([]byte("acknowledged"), 0); err != nil {
			t.Fatal(err)
		}
		r.dial("snapshot", nbdclient.Options{})
		if h := r.handOver(1); h[0].Session.Export != "snapshot" {
			t.Errorf("a client of %q goes along", h[0].Session.Export)
		}
		<-lost.Done()
	})
	t.Run("stalled", func(t *testing.T) {
		disks := map[string]Disk{"disk": newDisk(t, nbdtest.Config{Size: 1 << 20})}
		r := startServer(t, Config{}, disks)
		p := r.connect()
		p.enter("disk")
		p.request(proto.CmdWrite, 1, 0, 4, []byte("x"))
		until(t, "it is begun", func() bool { return r.only().outstanding.Load() == 1 })
		other := r.dial("disk", nbdclient.Options{})
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		handed, err := r.HandOver(ctx)
		if err == nil || len(handed) != 1 {
			t.Fatalf("%d clients, %v", len(handed), err)
		}
		p.expectEnd()
		startServer(t, Config{}, disks).adopt(handed)
		if err := other.Flush(); err != nil {
			t.Error(err)
		}
	})
}

// TestAServerGoesOnOnlyWithWhatItWouldServe: what is said of a client gives it nothing.
func TestAServerGoesOnOnlyWithWhatItWouldServe(t *testing.T) {
	disk := newDisk(t, nbdtest.Config{Size: 1 << 20})
	a := newAuthority(t)
	for name, c := range map[string]struct {
		cfg  Config
		tcp  bool
		edit func(h *Handed)
		want string
	}{
		"another export":   {edit: func(h *Handed) { h.Session.Export = "x" }, want: "no such"},
		"no export":        {edit: func(h *Handed) { h.Session.Export = "" }, want: "another"},
		"a smaller one":    {edit: func(h *Handed) { h.Session.Size = 2 << 20 }, want: "another"},
		"unknown headers":  {edit: func(h *Handed) { h.Session.Headers = 9 }, want: "not known"},
		"much to read":     {edit: func(h *Handed) { h.Session.Unread = make([]byte, inputSize+1) }, want: "not known"},
		"many contexts":    {edit: func(h *Handed) { h.Session.Contexts = make([]Context, maxContexts+1) }, want: "not known"},
		"unknown context":  {edit: func(h *Handed) { h.Session.Contexts = []Context{{ID: 1, Name: "qemu:dirty-bitmap:x"}} }, want: "no metadata context"},
		"no grant":         {cfg: Config{Grants: grant(t, "other=rw:any")}, want: "for this client"},
		"no socket":        {edit: func(h *Handed) { h.Socket = fileOf(t) }, want: "go on with an NBD client"},
		"a listener":       {edit: func(h *Handed) { h.Socket = listenerOf(t) }, want: "go on with an NBD client"},
		"without its TLS":  {cfg: Config{TLS: a.serving(), RequireTLS: true}, tcp: true, want: "requires TLS"},
		"too many clients": {cfg: Config{MaxConns: 1}, edit: nil, want: "make room"},
	} {
		t.Run(name, func(t *testing.T) {
			r := startServer(t, Config{}, map[string]Disk{"disk": disk})
			if c.tcp {
				r.addr = r.serveTCP()
			}
			client := r.dial("disk", nbdclient.Options{})
			n := startServer(t, c.cfg, map[string]Disk{"disk": disk})
			if c.cfg.MaxConns == 1 {
				n.dial("disk", nbdclient.Options{})
			}
			h := r.handOver(1)[0]
			if c.edit != nil {
				before := h.Socket
				if c.edit(&h); h.Socket != before {
					before.Close()
				}
			}
			err := n.Adopt(h)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v", err)
			}
			<-client.Done()
		})
	}
}

// taken is a disk that is a snapshot, and has been compared with an older one.
type taken struct {
	*nbdtest.History
	self, older uint64
}

func (d *taken) GUID() uint64 { return d.self }

func (d *taken) ChangesSince(snapshot string) (virstor.Changes, error) {
	c, err := d.History.ChangesSince(snapshot)
	return since{c, d.older}, err
}

type since struct {
	virstor.Changes
	guid uint64
}

func (c since) GUID() uint64 { return c.guid }

// While nobody serves it, a snapshot may be deleted and another one be given its name.
func TestASnapshotMeansTheSameOneAfterTheNextServerTakesOver(t *testing.T) {
	const chunk = 4096
	d := withHistory(newDisk(t, nbdtest.Config{Size: 8 * chunk, ChunkSize: chunk}), "monday")
	for name, c := range map[string]struct {
		next taken
		want string
	}{
		"the same":           {taken{d, 7, 8}, ""},
		"another export":     {taken{d, 9, 8}, "the export is another one"},
		"another's contents": {taken{d, 7, 9}, `"qemu:dirty-bitmap:monday" is of another snapshot now`},
	} {
		t.Run(name, func(t *testing.T) {
			r := startServer(t, Config{}, map[string]Disk{"disk": &taken{d, 7, 8}})
			p := r.connect()
			p.greet()
			p.option(proto.OptStructuredReply, nil)
			if ids, _ := p.contexts(proto.OptSetMetaContext, meta("disk", "qemu:dirty-bitmap:monday")); len(ids) != 1 {
				t.Fatalf("selected: %v", ids)
			}
			p.option(proto.OptGo, append(proto.AppendString(nil, "disk"), 0, 0))
			n := startServer(t, Config{}, map[string]Disk{"disk": &c.next})
			err := n.Adopt(r.handOver(1)[0])
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
	until(t, "the snapshots are let go", func() bool { return d.Held.Load() <= 1 })
}

func grant(t *testing.T, text string) []Grant {
	t.Helper()
	g, err := ParseGrant(text)
	if err != nil {
		t.Fatal(err)
	}
	return []Grant{g}
}

// serving is the configuration of a server with a certificate.
func (a *authority) serving() *tls.Config {
	a.t.Helper()
	cert, key := a.leaf("server")
	cfg, err := LoadTLS(cert, key, "")
	if err != nil {
		a.t.Fatal(err)
	}
	return cfg
}

func fileOf(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func listenerOf(t *testing.T) *os.File {
	t.Helper()
	ln, err := Listen(t.Context(), Address{"unix", filepath.Join(t.TempDir(), "s")}, ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	f, err := ln.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestAClientMayDoWhatItMightAtMost: read, where that was all, and no more than the next
// server grants.
func TestAClientMayDoWhatItMightAtMost(t *testing.T) {
	disks := map[string]Disk{"disk": newDisk(t, nbdtest.Config{Size: 1 << 20})}
	read := grant(t, "disk=ro:any")
	for name, grants := range map[string][2][]Grant{"before": {read, nil}, "after": {nil, read}} {
		t.Run(name, func(t *testing.T) {
			r := startServer(t, Config{Grants: grants[0]}, disks)
			c := r.dial("disk", nbdclient.Options{})
			r.next(1, Config{Grants: grants[1]}, disks)
			if _, err := c.WriteAt([]byte("x"), 0); err == nil {
				t.Error("it writes")
			}
			if _, err := c.ReadAt(make([]byte, 1), 0); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestAClientThatHasAskedBeforeMayBeIdle: it is not taken for one that never asks.
func TestAClientThatHasAskedBeforeMayBeIdle(t *testing.T) {
	disks := map[string]Disk{"disk": newDisk(t, nbdtest.Config{Size: 1 << 20})}
	r := startServer(t, Config{}, disks)
	asked, mute := r.dial("disk", nbdclient.Options{}), r.dial("disk", nbdclient.Options{})
	if err := asked.Flush(); err != nil {
		t.Fatal(err)
	}
	r = r.next(2, Config{FirstRequest: time.Hour}, disks)
	for _, c := range r.idlers(time.Now().Add(2 * time.Hour)) {
		c.close(errIdle)
	}
	<-mute.Done()
	if err := asked.Flush(); err != nil {
		t.Error(err)
	}
}

// TestAHundredServersOneAfterTheOther: clients that write and verify over connections of
// all kinds, many requests at once, notice nothing.
func TestAHundredServersOneAfterTheOther(t *testing.T) {
	const lanes, block = 8, 256 << 10
	d := newDisk(t, nbdtest.Config{Size: 4 * lanes * block, Workers: 4})
	disks := map[string]Disk{"disk": d}
	r := startServer(t, Config{}, disks)
	kinds := []nbdclient.Options{{}, {Compact: true}, {Simple: true}}
	stop := make(chan struct{})
	var running sync.WaitGroup
	done := make([]int, len(kinds)*lanes)
	var mu sync.Mutex
	for k, opt := range kinds {
		c := r.dial("disk", opt)
		for lane := range lanes {
			running.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(k), uint64(lane)))
				want, got := make([]byte, block), make([]byte, block)
				off := int64(k*lanes+lane) * block
				for i := uint64(1); ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					n := 8 * (1 + rng.IntN(block/8))
					for at := 0; at < n; at += 8 {
						binary.BigEndian.PutUint64(want[at:], i<<16|uint64(lane))
					}
					if _, err := c.WriteAt(want[:n], off); err != nil {
						t.Errorf("write %d of lane %d: %v", i, lane, err)
						return
					}
					if _, err := c.ReadAt(got, off); err != nil || !bytes.Equal(got, want) {
						t.Errorf("read %d of lane %d: %v, same %v", i, lane, err, bytes.Equal(got, want))
						return
					}
					mu.Lock()
					done[k*lanes+lane]++
					mu.Unlock()
				}
			})
		}
	}
	moved := func(before []int) bool {
		mu.Lock()
		defer mu.Unlock()
		for i := range done {
			if done[i] <= before[i] {
				return t.Failed()
			}
		}
		return true
	}
	servers := 100
	if testing.Short() {
		servers = 20
	}
	for range servers {
		mu.Lock()
		before := append([]int(nil), done...)
		mu.Unlock()
		until(t, "every lane goes on", func() bool { return moved(before) })
		r = r.next(len(kinds), Config{}, disks)
	}
	close(stop)
	running.Wait()
	r.expectMemoryBack()
}

// TestARequestThatWaitsForMemoryIsAnsweredBefore: it was begun.
func TestARequestThatWaitsForMemoryIsAnsweredBefore(t *testing.T) {
	begun, goOn := make(chan struct{}, 2), make(chan struct{})
	d := newDisk(t, nbdtest.Config{Size: 64 << 20, Workers: 2, Before: func(*virstor.Request) error {
		begun <- struct{}{}
		<-goOn
		return nil
	}})
	disks := map[string]Disk{"disk": d}
	const much = 30 << 20
	r := startServer(t, Config{ReadMemory: maxPayload, ConnMemory: maxPayload}, disks)
	p := r.connect()
	p.enter("disk")
	p.request(proto.CmdRead, 1, 0, much, nil)
	<-begun
	p.request(proto.CmdRead, 2, 0, much, nil)
	c := r.only()
	until(t, "the second one is begun, and waits", func() bool { return c.outstanding.Load() == 2 && c.readerWaits() })
	handed := make(chan []Handed, 1)
	go func() { handed <- r.handOver(1) }()
	<-c.quit
	close(goOn)
	for range 2 {
		if errno, _ := p.expectReply(); errno != 0 {
			t.Errorf("error %d", errno)
		}
		p.expect(much)
	}
	startServer(t, Config{}, disks).adopt(<-handed)
}
