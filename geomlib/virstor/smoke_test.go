package virstor

import (
	"bytes"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ondisk"
)

type memDisk struct {
	name   string
	sector int
	mu     sync.RWMutex
	b      []byte
}

func newMem(name string, size int64, sector int) *memDisk {
	d := &memDisk{name: name, sector: sector, b: make([]byte, size)}
	for i := range d.b {
		d.b[i] = 0xA5
	}
	return d
}

func (d *memDisk) Name() string     { return d.name }
func (d *memDisk) MediaSize() int64 { return int64(len(d.b)) }
func (d *memDisk) SectorSize() int  { return d.sector }
func (d *memDisk) ReadAt(p []byte, off int64) (int, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return copy(p, d.b[off:]), nil
}
func (d *memDisk) WriteAt(p []byte, off int64) (int, error) {
	if (off|int64(len(p)))%int64(d.sector) != 0 {
		panic("unaligned")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return copy(d.b[off:], p), nil
}
func (d *memDisk) Flush() error              { return nil }
func (d *memDisk) Delete(off, n int64) error { return geomlib.ErrNotSupported }
func (d *memDisk) Close() error              { return nil }

func label(t testing.TB, vsize, chunk int64, disks ...*memDisk) {
	req := ondisk.LabelRequest{Name: "t", VirtualSize: vsize, ChunkSize: chunk, ID: 77, ChunkMultiple: ondisk.MinChunkMultiple}
	for _, d := range disks {
		req.Providers = append(req.Providers, ondisk.LabelProvider{Name: d.name, Size: d.MediaSize(), SectorSize: d.sector})
	}
	l, err := ondisk.Plan(req)
	if err != nil {
		t.Fatal(err)
	}
	clear(disks[0].b[:l.MapBytes])
	for i, d := range disks {
		if err := geomlib.StoreMetadata(d, l.Metadata[i]); err != nil {
			t.Fatal(err)
		}
	}
}

func open(t testing.TB, cfg Config, disks ...*memDisk) *Volume {
	var ms []Member
	for _, d := range disks {
		m, err := geomlib.ReadMetadata(d)
		if err != nil {
			t.Fatal(err)
		}
		ms = append(ms, Member{d, m})
	}
	as := Assemble(ms)
	v, err := Open(as[0], cfg)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestSmoke(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		a, b, c := newMem("a", 4<<20, sector), newMem("b", 3<<20, sector), newMem("c", 4<<20, sector)
		label(t, 64<<20, 128<<10, a, b)
		v := open(t, Config{}, a, b)
		rng := rand.New(rand.NewPCG(1, 2))
		ref := make([]byte, 64<<20)
		step := func() {
			off := rng.Int64N(20) * (1 << 20)
			off += rng.Int64N(300000)
			n := rng.Int64N(200000) + 1
			if rng.IntN(2) == 0 {
				off, n = off&^4095, n&^4095+4096
			}
			switch rng.IntN(6) {
			case 0, 1, 2:
				p := make([]byte, n)
				for i := range p {
					p[i] = byte(rng.Uint32())
				}
				copy(ref[off:], p)
				if _, err := v.WriteAt(p, off); err != nil {
					t.Fatal(err)
				}
			case 3:
				got := make([]byte, n)
				if _, err := v.ReadAt(got, off); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, ref[off:off+n]) {
					t.Fatalf("sector %d: differs at %d+%d", sector, off, n)
				}
			case 4:
				clear(ref[off : off+n])
				if err := v.WriteZeroes(off, n, Flags(rng.IntN(2))*NoHole); err != nil {
					t.Fatal(err)
				}
			case 5:
				if err := v.Flush(); err != nil {
					t.Fatal(err)
				}
			}
		}
		for range 20 {
			step()
		}
		if err := v.Add([]geomlib.Provider{c}, AddOptions{}); err != nil {
			t.Fatal(err)
		}
		for range 30 {
			step()
		}
		t.Logf("%+v", v.Status())
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
		v = open(t, Config{}, a, b, c)
		for range 50 {
			step()
		}
		err := v.Stop()
		t.Log(err)
		v = open(t, Config{ReadOnly: true}, a, b, c)
		got := make([]byte, len(ref))
		if _, err := v.ReadAt(got, 0); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, ref) {
			t.Fatal("differs after reopen")
		}
		v.Close()
	}
}
