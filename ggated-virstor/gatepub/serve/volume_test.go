package serve

import (
	"bytes"
	"sync"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/gate"
	"github.com/gvirstor/gvirstor/geomlib/gate/gatetest"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ondisk"
)

// memProvider is a disk in memory, full of what others left there.
type memProvider struct {
	name string
	mu   sync.RWMutex
	b    []byte
}

func newMemProvider(name string, size int) *memProvider {
	return &memProvider{name: name, b: bytes.Repeat([]byte{0xa5}, size)}
}

func (d *memProvider) Name() string     { return d.name }
func (d *memProvider) MediaSize() int64 { return int64(len(d.b)) }
func (d *memProvider) SectorSize() int  { return sector }
func (d *memProvider) ReadAt(p []byte, off int64) (int, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return copy(p, d.b[off:]), nil
}
func (d *memProvider) WriteAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return copy(d.b[off:], p), nil
}
func (d *memProvider) Flush() error              { return nil }
func (d *memProvider) Delete(off, n int64) error { return geomlib.ErrNotSupported }
func (d *memProvider) Close() error              { return nil }

const chunkSize = 128 << 10

// newVolume labels and opens a volume of 32 chunks on one provider.
func newVolume(t *testing.T, p *memProvider, cfg virstor.Config) *virstor.Volume {
	t.Helper()
	l, err := ondisk.Plan(ondisk.LabelRequest{Name: "mydata", VirtualSize: 32 * chunkSize, ChunkSize: chunkSize,
		ID: 7, ChunkMultiple: ondisk.MinChunkMultiple,
		Providers: []ondisk.LabelProvider{{Name: p.name, Size: p.MediaSize(), SectorSize: sector}}})
	must(t, err)
	clear(p.b[:l.MapBytes])
	must(t, geomlib.StoreMetadata(p, l.Metadata[0]))
	v, err := virstor.Open(virstor.Assemble([]virstor.Member{{Provider: p, Metadata: l.Metadata[0]}})[0], cfg)
	must(t, err)
	return v
}

func TestAFullVolumeHoldsWritesAndReadsGoOn(t *testing.T) {
	a, b := newMemProvider("a", 1<<20), newMemProvider("b", 4<<20)
	v := newVolume(t, a, virstor.Config{HeldLimit: 20 * sector})
	f := newFixture(t, v, setup{size: v.Size(), cfg: Config{Slots: 4, Receivers: 2, MayBlock: true}})

	const each = chunkSize / sector
	var calls []*gatetest.Call
	full := func() bool {
		s := f.p.Stats()
		return s.Held > 0
	}
	for n := int64(0); !full(); n++ { // one sector of every chunk until one is held
		c := f.write(n*each, n*each+1, byte(n+1))
		calls = append(calls, c)
		eventually(t, "answered or held", func() bool { return len(c.Done()) > 0 || full() })
	}
	for n := int64(len(calls)); n < 25; n++ {
		calls = append(calls, f.write(n*each, n*each+1, byte(n+1)))
	}
	// As much as the limit allows is held, far more than there are slots; the
	// rest is refused at once.
	eventually(t, "the limit is reached", func() bool { return f.p.Stats().Unanswered == 0 && f.p.Stats().Taken >= 25 })
	s := f.p.Stats()
	if s.HeldBytes > 20*sector || s.Held < 10 {
		t.Fatalf("%+v", s)
	}
	refused := 0
	for _, c := range calls {
		if len(c.Done()) > 0 && c.Err == gate.ENOSPC {
			refused++
		}
	}
	// Reads, overwrites and flushes pass.
	for range 20 {
		got := make([]byte, 2*sector)
		_, err := f.dev.ReadAt(got, 0)
		must(t, err)
		if got[0] != 1 || got[sector] != 0 {
			t.Fatalf("read %d, %d", got[0], got[sector])
		}
		_, err = f.dev.ReadAt(got, 20*chunkSize)
		must(t, err)
		_, err = f.dev.WriteAt(bytes.Repeat([]byte{1}, sector), 0)
		must(t, err)
		must(t, f.dev.Flush())
	}

	must(t, v.Add([]geomlib.Provider{b}, virstor.AddOptions{}))
	written := 0
	for n, c := range calls {
		if err := c.Wait(); err == gate.ENOSPC {
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		written++
		got := make([]byte, sector)
		_, err := f.dev.ReadAt(got, int64(n)*chunkSize)
		must(t, err)
		if !bytes.Equal(got, bytes.Repeat([]byte{byte(n + 1)}, sector)) {
			t.Fatalf("write %d came out as %d", n, got[0])
		}
	}
	if written+refused != len(calls) {
		t.Fatalf("%d written, %d refused of %d", written, refused, len(calls))
	}
	must(t, f.p.Stop(timeout(t)))
	must(t, v.Close())
}

func TestHeldWritesSurviveTheDaemon(t *testing.T) {
	a, b := newMemProvider("a", 1<<20), newMemProvider("b", 4<<20)
	v := newVolume(t, a, virstor.Config{})
	f := newFixture(t, v, setup{size: v.Size()})
	var calls []*gatetest.Call
	for n := int64(0); n < 20; n++ {
		calls = append(calls, f.write(n*chunkSize/sector, n*chunkSize/sector+1, byte(n+1)))
	}
	f.idle(20)
	must(t, f.p.Stop(timeout(t)))
	if f.p.Stats().Held == 0 {
		t.Fatal("nothing is held")
	}
	must(t, v.Close())
	unanswered := 0
	for _, c := range calls {
		if len(c.Done()) == 0 {
			unanswered++
		} else if c.Err != 0 {
			t.Fatalf("answered with %v", c.Err)
		}
	}
	if unanswered == 0 {
		t.Fatal("nothing is left to the next daemon")
	}

	m, err := geomlib.ReadMetadata(a)
	must(t, err)
	v, err = virstor.Open(virstor.Assemble([]virstor.Member{{Provider: a, Metadata: m}})[0], virstor.Config{})
	must(t, err)
	f.disk = v
	f.start()
	must(t, v.Add([]geomlib.Provider{b}, virstor.AddOptions{}))
	for n, c := range calls {
		must(t, c.Wait())
		got := make([]byte, sector)
		_, err := f.dev.ReadAt(got, int64(n)*chunkSize)
		must(t, err)
		if got[0] != byte(n+1) {
			t.Fatalf("write %d came out as %d", n, got[0])
		}
	}
	must(t, f.p.Stop(timeout(t)))
	must(t, v.Close())
}
