package space

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
)

// someHost is a volume of one chunk a MiB, nine tenths of which are allocated.
type someHost struct {
	disks map[string]*disktest.Disk
	grower

	mu     sync.Mutex
	used   int64
	size   int64
	added  []string
	told   []Alert
	refuse error // from MayAdd
}

// grower makes the disks that it is given.
type grower struct {
	makes  []string
	undone []string
}

func (g *grower) Has(string) bool { return true }

func (g *grower) Grow(context.Context, string) (string, error) {
	if len(g.makes) == 0 {
		return "", ErrLimit
	}
	name := g.makes[0]
	g.makes = g.makes[1:]
	return name, nil
}

func (g *grower) Undo(_ context.Context, _, provider string) error {
	g.undone = append(g.undone, provider)
	return nil
}

const volumeID = 7

func newSomeHost(disks ...string) *someHost {
	h := &someHost{disks: make(map[string]*disktest.Disk), used: 90, size: 100}
	for _, name := range disks {
		h.disks[name] = disktest.New(name, 16*mib, 512)
	}
	return h
}

func (h *someHost) Name() string { return "mydata" }
func (h *someHost) ID() uint32   { return volumeID }

func (h *someHost) SpareOptions() SpareOptions {
	return SpareOptions{Percent: 90, Margin: 2, Grower: &h.grower}
}

func (h *someHost) Figures() Figures {
	h.mu.Lock()
	defer h.mu.Unlock()
	return Figures{Volume: "mydata", ID: volumeID, ChunkSize: mib, Physical: h.size, Free: h.size - h.used, Writable: true}
}

func (h *someHost) Open(name string, _ int) (geomlib.Provider, error) {
	d := h.disks[name]
	if d == nil {
		return nil, errors.New("no medium")
	}
	return d, nil
}

func (h *someHost) MayAdd(context.Context, geomlib.Provider) error { return h.refuse }

// Add makes the volume eleven chunks larger.
func (h *someHost) Add(p geomlib.Provider) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.added = append(h.added, p.Name())
	h.size += 11
	return nil
}

func (h *someHost) Publish(a Alert) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.told = append(h.told, a)
	return 1
}

// write allocates n chunks.
func (h *someHost) write(n int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.used += n
}

func (h *someHost) levels() []Level {
	h.mu.Lock()
	defer h.mu.Unlock()
	var ls []Level
	for _, a := range h.told {
		ls = append(ls, a.Level)
	}
	return ls
}

func spareOf(t *testing.T, d *disktest.Disk, id uint32) {
	t.Helper()
	if err := geomlib.StoreSpare(d, "mydata", id); err != nil {
		t.Fatal(err)
	}
}

// startWatch watches h until the end of the test, with no level but what spares tell.
func startWatch(t *testing.T, h *someHost, spares ...string) (*Watch, *Spares) {
	t.Helper()
	w, s := New(h, AlertOptions{Levels: Thresholds{SpareComponents: -1}}, slog.New(slog.DiscardHandler))
	w.Start()
	s.Start(spares)
	t.Cleanup(func() {
		s.Stop(context.Background())
		w.Stop(context.Background())
	})
	synctest.Wait()
	return w, s
}

func TestASpareIsAddedBeforeAFileIsMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newSomeHost("spare", "file")
		h.makes = []string{"file"}
		spareOf(t, h.disks["spare"], volumeID)
		w, s := startWatch(t, h, "spare")
		if !slices.Equal(h.added, []string{"spare"}) || !slices.Equal(h.levels(), []Level{SpareAdded}) {
			t.Fatalf("added %q, told %q", h.added, h.levels())
		}
		h.write(10)
		w.Look()
		synctest.Wait()
		if spares, added, failed := s.Report(); len(spares) != 0 || added != 2 || failed != 0 || !slices.Equal(h.added, []string{"spare", "file"}) {
			t.Fatalf("added %q, report %v, %d, %d", h.added, spares, added, failed)
		}
		h.write(11)
		for range 3 { // the limit is told of once, and so is that nothing is left
			w.Look()
			synctest.Wait()
		}
		if want := []Level{SpareAdded, SpareAdded, SpareFailed, SparesOut}; !slices.Equal(h.levels(), want) {
			t.Errorf("told %q, want %q", h.levels(), want)
		}
	})
}

func TestAFileThatCannotBeAddedIsRemovedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newSomeHost("file")
		h.makes, h.refuse = []string{"file"}, errors.New("lies on the volume")
		startWatch(t, h)
		if len(h.added) != 0 || !slices.Equal(h.undone, []string{"file"}) {
			t.Errorf("added %q, undone %q", h.added, h.undone)
		}
	})
}

func TestASpareThatIsAnothersIsNamedAndKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newSomeHost("spare")
		spareOf(t, h.disks["spare"], volumeID+1)
		_, s := startWatch(t, h, "spare", "away")
		spares, _, failed := s.Report()
		if len(spares) != 2 || spares[0].Err == nil || spares[1].Err == nil || failed < 2 || s.Holds("spare") || s.Count() != 2 {
			t.Fatalf("%+v, %d failed", spares, failed)
		}
		if got := h.told[0]; got.Component != "spare" || !strings.Contains(got.Text, "Spare spare of mydata can't be used") {
			t.Errorf("%+v", got)
		}
		if err := s.Remove("spare"); err != nil || s.Count() != 1 {
			t.Errorf("%v, %d left", err, s.Count())
		}
		if err := s.Remove("other"); !errors.Is(err, ErrNoSpare) {
			t.Errorf("%v", err)
		}
	})
}

func TestATestGoesThroughEveryChannel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newSomeHost()
		h.used = 0
		w, _ := startWatch(t, h)
		w.Post(virstor.Event{Kind: virstor.EventFull}) // is told, and is no test
		synctest.Wait()
		r := w.Test(t.Context())
		if r.Watching != 1 || r.Count != 1 || r.Runs || r.Err != nil || !strings.Contains(r.Text, "this is a test of alerts") {
			t.Errorf("%+v", r)
		}
		w.SetCommand(failing{}, 0)
		if r := w.Test(t.Context()); !r.Runs || r.Err == nil || r.Count != 2 || w.HookFailures() != 1 {
			t.Errorf("with a command that fails: %+v", r)
		}
		if _, _, counts := w.Report(); counts[Test] != 2 {
			t.Errorf("counted %v", counts)
		}
	})
}

// failing is a Runner of nothing.
type failing struct{}

func (failing) Run(context.Context, []string, []byte) ([]byte, error) {
	return nil, errors.New("no pager")
}
