package nbd

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/internal/proto"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdclient"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdtest"
)

// withHistory gives a disk snapshots since which every other chunk, every third, and so on
// has changed.
func withHistory(d *nbdtest.Disk, snapshots ...string) *nbdtest.History {
	h := &nbdtest.History{Disk: d, Changed: make(map[string]func(int64) bool)}
	for i, name := range snapshots {
		h.Changed[name] = func(chunk int64) bool { return chunk%int64(i+2) == 0 }
	}
	return h
}

func TestContextsAreListedAndSelectedByTheirRules(t *testing.T) {
	all := []string{"base:allocation", "qemu:dirty-bitmap:a", "qemu:dirty-bitmap:a:b"}
	bitmaps := all[1:]
	for _, tt := range []struct{ queries, list, choose []string }{
		{nil, all, nil},
		{[]string{"base:allocation"}, all[:1], all[:1]},
		{[]string{"base:"}, all[:1], nil},
		{[]string{"qemu:"}, bitmaps, nil},
		{[]string{"qemu:dirty-bitmap:"}, bitmaps, nil},
		{[]string{"qemu:", "base:"}, all, nil},
		{[]string{"qemu:dirty-bitmap:a:"}, nil, nil}, // is no namespace, and might be a name
		{[]string{"qemu:dirty-bitmap:a"}, all[1:2], all[1:2]},
		{[]string{"qemu:dirty-bitmap:a:b", "x:y", "base:allocation"}, []string{all[0], all[2]}, []string{all[0], all[2]}},
		{[]string{"base:other", "qemu:dirty-bitmap:x", "qemu:allocation-depth", "", "qemu"}, nil, nil},
	} {
		if got := listed(slices.Clone(all), tt.queries); !slices.Equal(got, tt.list) {
			t.Errorf("list %q: %q", tt.queries, got)
		}
		if got := named(slices.Clone(all), tt.queries); !slices.Equal(got, tt.choose) {
			t.Errorf("select %q: %q", tt.queries, got)
		}
	}
}

// meta is the data of an option that asks for contexts.
func meta(export string, queries ...string) []byte {
	b := binary.BigEndian.AppendUint32(proto.AppendString(nil, export), uint32(len(queries)))
	for _, q := range queries {
		b = proto.AppendString(b, q)
	}
	return b
}

// contexts are what the server answers to an option, by name.
func (p peer) contexts(opt uint32, data []byte) (ids map[string]uint32, end uint32) {
	p.t.Helper()
	p.send(append(proto.AppendOption(nil, opt, len(data)), data...))
	ids = make(map[string]uint32)
	for {
		_, kind, b := p.expectOptReply()
		if kind != proto.RepMetaContext {
			return ids, kind
		}
		ids[string(b[4:])] = binary.BigEndian.Uint32(b)
	}
}

// described is what a block status says of each byte's state by context.
func (p peer) described(h headers) map[uint32][]string {
	p.t.Helper()
	all := make(map[uint32][]string)
	for {
		var c proto.Chunk
		if h == extended {
			c = proto.DecodeExtChunk(p.expect(proto.ExtChunkSize))
		} else {
			c = proto.DecodeChunk(p.expect(proto.ChunkSize))
		}
		b := p.expect(int(c.Length))
		id := binary.BigEndian.Uint32(b)
		if _, twice := all[id]; twice {
			p.t.Fatalf("context %d is told twice", id)
		}
		all[id] = []string{}
		switch {
		case h == extended && c.Type == proto.ReplyBlockStatusExt:
			if n := binary.BigEndian.Uint32(b[4:]); int(n)*16 != len(b)-8 {
				p.t.Fatalf("%d descriptors in %d bytes", n, len(b)-8)
			}
			for b = b[8:]; len(b) > 0; b = b[16:] {
				all[id] = append(all[id], fmt.Sprintf("%d:%d", binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])))
			}
		case h == structured && c.Type == proto.ReplyBlockStatus:
			for b = b[4:]; len(b) > 0; b = b[8:] {
				all[id] = append(all[id], fmt.Sprintf("%d:%d", binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])))
			}
		default:
			p.t.Fatalf("chunk %+v, % x", c, b)
		}
		if c.Flags&proto.ReplyFlagDone != 0 {
			return all
		}
	}
}

// ask sends a request of the connection's kind of header.
func (p peer) ask(h headers, flags, cmd uint16, off, n uint64) {
	p.t.Helper()
	r := proto.Request{Type: cmd, Flags: flags, Cookie: 7, Offset: off, Length: n}
	if h == extended {
		p.send(r.AppendExt(nil))
		return
	}
	p.send(r.Append(nil))
}

func TestEachContextIsToldInAChunkOfItsOwn(t *testing.T) {
	const chunk = 4096
	for h, opt := range map[headers]uint32{structured: proto.OptStructuredReply, extended: proto.OptExtendedHeaders} {
		d := withHistory(newDisk(t, nbdtest.Config{Size: 8*chunk + 100, ChunkSize: chunk}), "monday", "tuesday")
		r := startServer(t, Config{}, map[string]Disk{"disk": d})
		c := r.dial("disk", nbdclient.Options{})
		if _, err := c.WriteAt(make([]byte, chunk), 3*chunk); err != nil {
			t.Fatal(err)
		}
		p := r.connect()
		p.greet()
		p.option(opt, nil)
		if ids, end := p.contexts(proto.OptListMetaContext, meta("disk", "qemu:dirty-bitmap:")); len(ids) != 2 || end != proto.RepAck || d.Held.Load() != 0 {
			t.Errorf("listed: %v, %#x", ids, end)
		}
		ids, _ := p.contexts(proto.OptSetMetaContext, meta("disk", "qemu:dirty-bitmap:tuesday", proto.BaseAllocation, "qemu:dirty-bitmap:monday"))
		if len(ids) != 3 || d.Held.Load() != 2 {
			t.Fatalf("selected: %v, %d snapshots are held", ids, d.Held.Load())
		}
		p.option(proto.OptGo, append(proto.AppendString(nil, "disk"), 0, 0))
		p.ask(h, 0, proto.CmdBlockStatus, 1000, 5*chunk)
		got := p.described(h)
		for name, want := range map[string][]string{
			"base:allocation":           {"11288:3", "4096:0", "5096:3"},
			"qemu:dirty-bitmap:monday":  {"3096:1", "4096:0", "4096:1", "4096:0", "4096:1", "1000:0"},
			"qemu:dirty-bitmap:tuesday": {"3096:1", "8192:0", "4096:1", "5096:0"},
		} {
			if !slices.Equal(got[ids[name]], want) {
				t.Errorf("%s: %s, want %s", name, got[ids[name]], want)
			}
		}
		p.ask(h, proto.CmdFlagReqOne, proto.CmdBlockStatus, 0, 8*chunk+100)
		for id, list := range p.described(h) {
			if len(list) != 1 {
				t.Errorf("one extent was asked for, context %d has %s", id, list)
			}
		}
		p.Close()
		until(t, "the snapshots are let go", func() bool { return d.Held.Load() == 0 })
	}
}

// vast is a disk without contents, larger than a walk may go.
type vast struct{ *nbdtest.History }

func (vast) Size() int64 { return 1 << 50 }

func (vast) Extents(_, n int64, emit func(int64, bool) bool) { emit(n, false) }

func (vast) ChangesSince(string) (virstor.Changes, error) { return vast{}, nil }

func (vast) Ranges(_, n int64, emit func(int64, bool) bool) { emit(n, false) }

func (vast) Close() {}

// What is told of a very large range ends between two chunks, however many contexts share
// the walk.
func TestTheBeginningOfALargeRangeIsWholeChunks(t *testing.T) {
	const chunk = 4096
	d := vast{withHistory(newDisk(t, nbdtest.Config{Size: chunk, ChunkSize: chunk}), "a", "b")}
	r := startServer(t, Config{}, map[string]Disk{"disk": d})
	p := r.connect()
	p.greet()
	p.option(proto.OptExtendedHeaders, nil)
	p.option(proto.OptSetMetaContext, meta("disk", proto.BaseAllocation, "qemu:dirty-bitmap:a", "qemu:dirty-bitmap:b"))
	p.option(proto.OptGo, append(proto.AppendString(nil, "disk"), 0, 0))
	p.ask(extended, 0, proto.CmdBlockStatus, 0, 1<<50)
	told := p.described(extended)
	if len(told) != 3 {
		t.Errorf("%d contexts", len(told))
	}
	for id, list := range told {
		length, err := strconv.ParseInt(strings.Split(list[0], ":")[0], 10, 64)
		if err != nil || len(list) != 1 || length%chunk != 0 || length > maxWalk*chunk/3 {
			t.Errorf("context %d: %s, %v", id, list, err)
		}
	}
}

func TestSelectedSnapshotsAreLetGoWhenTheyAreOfNoUse(t *testing.T) {
	d := withHistory(newDisk(t, nbdtest.Config{Size: 1 << 20}), "a", "b")
	r := startServer(t, Config{}, map[string]Disk{"disk": d, "other": newDisk(t, nbdtest.Config{Size: 1 << 20})})
	held := func(when string, want int64) {
		t.Helper()
		if got := d.Held.Load(); got != want {
			t.Errorf("%s: %d are held, want %d", when, got, want)
		}
	}
	p := r.connect()
	p.greet()
	p.option(proto.OptStructuredReply, nil)
	p.option(proto.OptSetMetaContext, meta("disk", "qemu:dirty-bitmap:a", "qemu:dirty-bitmap:b"))
	held("selected", 2)
	p.option(proto.OptSetMetaContext, meta("disk", "qemu:dirty-bitmap:a"))
	held("selected anew", 1)
	p.option(proto.OptSetMetaContext, []byte("x"))
	held("an option that was wrong", 0)
	p.option(proto.OptSetMetaContext, meta("disk", "qemu:dirty-bitmap:a"))
	p.option(proto.OptGo, append(proto.AppendString(nil, "other"), 0, 0))
	held("another export", 0)

	leaves := r.connect()
	leaves.greet()
	leaves.option(proto.OptStructuredReply, nil)
	leaves.option(proto.OptSetMetaContext, meta("disk", "qemu:dirty-bitmap:a"))
	leaves.option(proto.OptAbort, nil)
	until(t, "who leaves before it has an export", func() bool { return d.Held.Load() == 0 })
}

func TestMoreContextsThanCanBeToldAreRefused(t *testing.T) {
	var snapshots, queries []string
	for i := range maxContexts {
		snapshots = append(snapshots, fmt.Sprintf("s%02d", i))
		queries = append(queries, proto.DirtyBitmap+snapshots[i])
	}
	const chunk = 512 // the most descriptors that there can be, of each
	d := withHistory(newDisk(t, nbdtest.Config{Size: 2 * maxDescriptors * chunk, ChunkSize: chunk}), snapshots...)
	for name := range d.Changed {
		d.Changed[name] = func(c int64) bool { return c%2 == 0 }
	}
	r := startServer(t, Config{}, map[string]Disk{"disk": d})
	p := r.connect()
	p.greet()
	p.option(proto.OptExtendedHeaders, nil)
	if got := p.option(proto.OptSetMetaContext, meta("disk", append(queries, proto.BaseAllocation)...)); got != proto.RepErrTooBig {
		t.Errorf("%d contexts: %#x", maxContexts+1, got)
	}
	if n := d.Held.Load(); n != 0 {
		t.Errorf("%d are held", n)
	}
	if got := p.option(proto.OptSetMetaContext, meta("disk", queries...)); got != proto.RepAck {
		t.Fatalf("%d contexts: %#x", maxContexts, got)
	}
	p.option(proto.OptGo, append(proto.AppendString(nil, "disk"), 0, 0))
	p.ask(extended, 0, proto.CmdBlockStatus, 0, 2*maxDescriptors*chunk)
	for id, list := range p.described(extended) {
		if len(list) != maxDescriptors || strings.Count(strings.Join(list, " "), "512:") != maxDescriptors {
			t.Errorf("context %d: %d descriptors", id, len(list))
		}
	}
	r.expectMemoryBack()
}
