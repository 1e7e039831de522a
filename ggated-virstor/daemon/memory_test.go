package daemon

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/state"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ondisk"
)

// remembered is a Memory that keeps what it was told.
type remembered struct {
	mu    sync.Mutex
	notes []state.Volume
}

func (r *remembered) Recall(uint32) (state.Volume, bool, error) { return state.Volume{}, false, nil }
func (r *remembered) BeginAnew(uint32) error                    { return nil }
func (r *remembered) Remember(v state.Volume) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notes = append(r.notes, v)
	return nil
}

func (r *remembered) knows(generation uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.notes, func(v state.Volume) bool { return v.Generation == generation })
}

// labelFiles makes a volume called vol of files in a folder of its own.
func labelFiles(t *testing.T, sizes ...int64) (names []string) {
	t.Helper()
	dir := t.TempDir()
	req := ondisk.LabelRequest{Name: "vol", VirtualSize: 64 << 20, ChunkSize: 1 << 20, ID: 7}
	var ps []geomlib.Provider
	for i, size := range sizes {
		name := filepath.Join(dir, string(rune('a'+i)))
		p := fileOf(t, name, size)
		req.Providers = append(req.Providers, ondisk.LabelProvider{Name: name, Size: size, SectorSize: p.SectorSize()})
		names, ps = append(names, name), append(ps, p)
	}
	l, err := ondisk.Plan(req)
	must(t, err)
	must(t, virstor.Label(t.Context(), ps, l, virstor.LabelOptions{}))
	for _, p := range ps {
		must(t, p.Close())
	}
	return names
}

// A copy that was made before a volume's generation rose is told to be old by the host's
// note as soon as it rose, and not only once the volume was closed.
func TestADailyRiseOfTheGenerationIsNotedAtOnce(t *testing.T) {
	names := labelFiles(t, 16<<20, 16<<20)
	memory := new(remembered)
	d := New(Options{Version: "test", Memory: memory}, Direct{LockDir: t.TempDir()}, nil, slog.New(slog.DiscardHandler))
	if n := d.ServeAll(names); n != 1 {
		t.Fatalf("%d volumes", n)
	}
	s, err := d.findVolume("virstor/vol") // as status prints it
	must(t, err)
	vol := s.vol
	must(t, vol.RaiseGeneration())
	now, _ := vol.Generation()
	eventually(t, "the generation that rose is noted", func() bool { return memory.knows(now) })
	must(t, d.Close())
}

// fileOf is a sparse file of that size, opened.
func fileOf(t *testing.T, name string, size int64) geomlib.Provider {
	t.Helper()
	f, err := os.Create(name)
	must(t, err)
	must(t, f.Truncate(size))
	must(t, f.Close())
	p, err := geomlib.Open(name, geomlib.OpenOptions{})
	must(t, err)
	return p
}

func TestOfWhatIsMissingItIsSaidWhereItWas(t *testing.T) {
	names := labelFiles(t, 16<<20, 16<<20, 16<<20)
	opt, locks := Options{Version: "test", Memory: state.Dir{Path: t.TempDir()}}, t.TempDir()
	for _, round := range []struct {
		given   []string
		missing []control.MissingComponent
	}{
		{names, nil},
		{names[:1], []control.MissingComponent{{Index: 1, LastName: names[1]}, {Index: 2, LastName: names[2]}}},
		{names[1:], []control.MissingComponent{{Index: 0, LastName: names[0]}}},
	} {
		d := New(opt, Direct{LockDir: locks}, nil, slog.New(slog.DiscardHandler))
		for _, m := range round.missing { // it is not there
			must(t, os.Rename(m.LastName, m.LastName+".away"))
		}
		d.ServeAll(round.given)
		for _, m := range round.missing {
			must(t, os.Rename(m.LastName+".away", m.LastName))
		}
		st, err := d.Status(t.Context())
		must(t, err)
		if n := len(st.Problems); (n > 0) != (round.missing != nil) {
			t.Fatalf("%d given: %+v", len(round.given), st.Problems)
		}
		for _, p := range st.Problems {
			if !slices.Equal(p.Missing, round.missing) {
				t.Errorf("%d given: %+v", len(round.given), p.Missing)
			}
			for _, m := range round.missing {
				if !strings.Contains(p.Reason, "when this host last served it") || !strings.Contains(p.Reason, m.LastName) || strings.Contains(p.Reason, "stale") {
					t.Errorf("%d given: %s", len(round.given), p.Reason)
				}
			}
		}
		must(t, d.Close())
	}
}

// A component that add brought is named by nobody at the next start.
func TestWhatIsMissingIsOpenedWhereItWas(t *testing.T) {
	for name, given := range map[string]func([]string) []string{
		"the map's component": func(names []string) []string { return names[:1] },
		"another":             func(names []string) []string { return names[2:] },
	} {
		t.Run(name, func(t *testing.T) {
			names := labelFiles(t, 16<<20, 16<<20, 16<<20)
			opt, locks := Options{Version: "test", Memory: state.Dir{Path: t.TempDir()}}, t.TempDir()
			for _, given := range [][]string{names, given(names)} {
				d := New(opt, Direct{LockDir: locks}, nil, slog.New(slog.DiscardHandler))
				if n := d.ServeAll(given); n != 1 {
					t.Errorf("%d given: %d volumes", len(given), n)
				}
				must(t, d.Close())
			}
		})
	}
}

func TestWhatIsSomethingElseByNowStaysMissing(t *testing.T) {
	names := labelFiles(t, 16<<20, 16<<20)
	opt, locks := Options{Version: "test", Memory: state.Dir{Path: t.TempDir()}}, t.TempDir()
	d := New(opt, Direct{LockDir: locks}, nil, slog.New(slog.DiscardHandler))
	if n := d.ServeAll(names); n != 1 {
		t.Fatalf("%d volumes", n)
	}
	must(t, d.Close())
	p := fileOf(t, names[1], 16<<20)
	must(t, geomlib.StoreMetadata(p, ondisk.Metadata{Version: ondisk.Version, Name: "theirs", ID: 1, Count: 1, ChunkSize: 1 << 20, ProviderSize: 16 << 20}))
	must(t, p.Close())
	d = New(opt, Direct{LockDir: locks}, nil, slog.New(slog.DiscardHandler))
	if n := d.ServeAll(names[:1]); n != 0 {
		t.Errorf("%d volumes", n)
	}
	p, err := geomlib.Open(names[1], geomlib.OpenOptions{})
	if err != nil {
		t.Errorf("what is another volume's is held: %v", err)
	} else {
		must(t, p.Close())
	}
	must(t, d.Close())
}
