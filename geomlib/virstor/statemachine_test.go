package virstor

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/ondisk"
)

// machine is a volume, what it must read as, and what is known to be durable.
type machine struct {
	cfg     Config
	disks   []*disktest.Disk
	vol     *Volume
	chunk   int64
	sector  int64
	now     []byte
	durable []byte
	// dirty are the sectors that may be as in durable, as in now, or as in between.
	dirty map[int64][][]byte
}

// drawMachine labels a volume on one to five components, with chunks that need not
// divide them.
func drawMachine(t *rapid.T) *machine {
	m := &machine{
		sector: int64(rapid.SampledFrom([]int{512, 4096}).Draw(t, "sector")),
		chunk:  ondisk.MinChunkMultiple * rapid.Int64Range(1, 3).Draw(t, "chunk"),
		dirty:  make(map[int64][][]byte),
	}
	m.cfg = Config{WhenFull: Fail, Workers: 4,
		Alloc: rapid.SampledFrom([]AllocOrder{Fill, Spread}).Draw(t, "alloc")}
	req := ondisk.LabelRequest{Name: "vol", VirtualSize: 12 * m.chunk, ChunkSize: m.chunk, ID: 11, ChunkMultiple: ondisk.MinChunkMultiple}
	var ps []geomlib.Provider
	for i := range rapid.IntRange(1, 5).Draw(t, "components") {
		size := m.chunk*rapid.Int64Range(4, 7).Draw(t, "chunks") + m.sector*rapid.Int64Range(0, 9).Draw(t, "rest")
		d := disktest.New(fmt.Sprintf("d%d", i), size, int(m.sector)).FillJunk(uint64(i) + 1).
			SetBuffered(rapid.Bool().Draw(t, "buffered"))
		m.disks = append(m.disks, d)
		ps = append(ps, d)
		req.Providers = append(req.Providers, ondisk.LabelProvider{Name: d.Name(), Size: size, SectorSize: int(m.sector)})
	}
	l, err := ondisk.Plan(req)
	if err != nil {
		t.Fatal(err)
	}
	if err := Label(t.Context(), ps, l, LabelOptions{}); err != nil {
		t.Fatal(err)
	}
	// The first twelve chunks are used, of however many the map makes room for.
	m.now = make([]byte, 12*m.chunk)
	m.durable = make([]byte, len(m.now))
	m.open(t)
	return m
}

func (m *machine) open(t *rapid.T) {
	var err error
	if m.vol, err = openDisks(m.cfg, m.disks); err != nil {
		t.Fatal(err)
	}
}

// change puts b at off in the model.
func (m *machine) change(off int64, b []byte) {
	copy(m.now[off:], b)
	for s := off / m.sector; s*m.sector < off+int64(len(b)); s++ {
		m.dirty[s] = append(m.dirty[s], bytes.Clone(m.now[s*m.sector:(s+1)*m.sector]))
	}
}

func (m *machine) drawRange(t *rapid.T) (off, n int64) {
	off = rapid.Int64Range(0, int64(len(m.now))-1).Draw(t, "offset")
	n = rapid.Int64Range(1, min(int64(len(m.now))-off, m.chunk+m.chunk/2)).Draw(t, "length")
	if rapid.Bool().Draw(t, "aligned") {
		off = off / m.sector * m.sector
		n = min((n+m.sector-1)/m.sector*m.sector, int64(len(m.now))-off)
	}
	return off, n
}

func (m *machine) write(t *rapid.T) {
	off, n := m.drawRange(t)
	b := bytes.Repeat([]byte{rapid.ByteRange(1, 255).Draw(t, "byte")}, int(n))
	m.settle(t, off, b, func() error {
		_, err := m.vol.WriteAt(b, off)
		return err
	})
}

func (m *machine) zero(t *rapid.T) {
	off, n := m.drawRange(t)
	fl := rapid.SampledFrom([]Flags{0, NoHole}).Draw(t, "flags")
	m.settle(t, off, make([]byte, n), func() error { return m.vol.WriteZeroes(off, n, fl) })
}

// settle does a change and brings the model in step. A change that failed for
// want of space left each sector as it was or as it should be.
func (m *machine) settle(t *rapid.T, off int64, b []byte, do func() error) {
	before := bytes.Clone(m.now[off : off+int64(len(b))])
	m.change(off, b)
	err := do()
	if err == nil {
		return
	}
	if !errors.Is(err, ErrNoSpace) {
		t.Fatal(err)
	}
	got := make([]byte, len(b))
	if _, err := m.vol.ReadAt(got, off); err != nil {
		t.Fatal(err)
	}
	for i := range got {
		if got[i] != b[i] && got[i] != before[i] {
			t.Fatalf("byte %d after a failed write is %d, was %d, should become %d", off+int64(i), got[i], before[i], b[i])
		}
	}
	copy(m.now[off:], got)
}

func (m *machine) read(t *rapid.T) {
	off, n := m.drawRange(t)
	got := make([]byte, n)
	if _, err := m.vol.ReadAt(got, off); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, m.now[off:off+n]) {
		t.Fatalf("read of %d bytes at %d differs", n, off)
	}
}

func (m *machine) flush(t *rapid.T) {
	if err := m.vol.Flush(); err != nil {
		t.Fatal(err)
	}
	copy(m.durable, m.now)
	clear(m.dirty)
}

func (m *machine) reopen(t *rapid.T) {
	if err := m.vol.Stop(); err != nil && !errors.Is(err, ErrNotHandedBack) {
		t.Fatal(err)
	}
	copy(m.durable, m.now)
	clear(m.dirty)
	m.open(t)
}

// kill is the death of the process: nothing acknowledged is lost, and what is in
// the disks' caches stays there.
func (m *machine) kill(t *rapid.T) {
	for i, d := range m.disks {
		m.disks[i] = d.Survivor()
	}
	old := m.vol
	m.open(t)
	_ = old.Close() // of the disks that nobody looks at any more
}

// crash is a loss of power: each sector is what was flushed, or something newer.
func (m *machine) crash(t *rapid.T) {
	rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "crash"), 1))
	old := m.vol
	for i, d := range m.disks {
		m.disks[i] = d.Crash(rng)
	}
	m.open(t)
	_ = old.Close()
	got := make([]byte, len(m.now))
	if _, err := m.vol.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	for s := int64(0); s*m.sector < int64(len(got)); s++ {
		at := got[s*m.sector : (s+1)*m.sector]
		ok := bytes.Equal(at, m.durable[s*m.sector:(s+1)*m.sector])
		for _, b := range m.dirty[s] {
			ok = ok || bytes.Equal(at, b)
		}
		if !ok {
			t.Fatalf("sector %d holds what it never held after the last flush", s)
		}
	}
	copy(m.now, got)
	copy(m.durable, got)
	clear(m.dirty)
	m.flush(t)
}

func TestAVolumeIsWhatWasWrittenThroughCrashesAndReopenings(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawMachine(t)
		defer func() { _ = m.vol.Close() }()
		t.Repeat(map[string]func(*rapid.T){
			"write": m.write, "write again": m.write, "zero": m.zero, "read": m.read, "flush": m.flush,
			"reopen": m.reopen, "kill": m.kill, "crash": m.crash,
		})
	})
}
