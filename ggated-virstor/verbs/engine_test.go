package verbs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ondisk"
)

// labelled is a volume called vol of the components a, b and c, which is not open.
func labelled(t *testing.T) *virstor.Assembly {
	t.Helper()
	const chunk, size = 1 << 20, 16<<20 + 4096
	req := ondisk.LabelRequest{Name: "vol", VirtualSize: 64 << 20, ChunkSize: chunk, ID: 7}
	var ps []geomlib.Provider
	for _, name := range []string{"a", "b", "c"} {
		ps = append(ps, disktest.New(name, size, 512))
		req.Providers = append(req.Providers, ondisk.LabelProvider{Name: name, Size: size, SectorSize: 512})
	}
	layout, err := ondisk.Plan(req)
	if err != nil {
		t.Fatal(err)
	}
	if err := virstor.Label(t.Context(), ps, layout, virstor.LabelOptions{}); err != nil {
		t.Fatal(err)
	}
	var ms []virstor.Member
	for _, p := range ps {
		m, err := geomlib.ReadMetadata(p)
		if err != nil {
			t.Fatal(err)
		}
		ms = append(ms, virstor.Member{Provider: p, Metadata: m})
	}
	return virstor.Assemble(ms)[0]
}

// closable is a disk that knows how often it was closed.
type closable struct {
	geomlib.Provider
	closed int
}

func (c *closable) Close() error {
	c.closed++
	return c.Provider.Close()
}

// shelf is a Host whose providers are disks by their names.
type shelf map[string]*closable

func (s shelf) Open(name string, _ int) (geomlib.Provider, error) {
	if p := s[name]; p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("open %s: %w", name, fs.ErrNotExist)
}

func (s shelf) MayAdd(context.Context, []geomlib.Provider) error { return nil }
func (s shelf) Drain(context.Context) error                      { return nil }

func TestAnAddThatIsRefusedHasACodeAndClosesWhatItOpened(t *testing.T) {
	s := shelf{
		"good":  {Provider: disktest.New("good", 16<<20+4096, 512)},
		"small": {Provider: disktest.New("small", 1<<20, 512)},
		"4k":    {Provider: disktest.New("4k", 16<<20+4096, 4096)},
	}
	vol, err := virstor.Open(labelled(t), virstor.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := vol.Close(); err != nil {
			t.Error(err)
		}
	})
	e := Engine{Vol: vol, Host: s}
	for name, want := range map[string]control.Code{
		"a": control.AlreadyComponent, "none": control.ProviderNotFound,
		"small": control.ProviderTooSmall, "4k": control.SectorSizeDiffers,
	} {
		s["good"].closed = 0
		err := e.Add(t.Context(), "vol", control.AddRequest{Providers: []string{"good", name}})
		if control.KindOf(err) != control.Invalid || control.CodeOf(err) != want {
			t.Errorf("add %s: %v has the code %q", name, err, control.CodeOf(err))
		}
		if n := s["good"].closed; n != 1 {
			t.Errorf("add %s: the other provider was closed %d times", name, n)
		}
		if p := s[name]; p != nil && p.closed != 1 {
			t.Errorf("add %s: it was closed %d times", name, p.closed)
		}
	}
	if n := len(e.Vol.Providers()); n != 3 {
		t.Errorf("the volume has %d components", n)
	}
}

func TestWhatHoldsSomethingIsTakenByForceAlone(t *testing.T) {
	vol, err := virstor.Open(labelled(t), virstor.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := vol.Close(); err != nil {
			t.Error(err)
		}
	})
	fresh := func(name string) *closable {
		return &closable{Provider: disktest.New(name, 16<<20+4096, 512)}
	}
	s := shelf{"xfs": fresh("xfs"), "component": fresh("component"), "spare": fresh("spare"), "own": fresh("own"), "target": fresh("target")}
	put := func(p geomlib.Provider, text string) {
		b := make([]byte, 512)
		copy(b, text)
		if _, err := p.WriteAt(b, 0); err != nil {
			t.Fatal(err)
		}
	}
	put(s["xfs"], "XFSB")
	put(s["target"], "LUKS\xba\xbe")
	m := ondisk.Metadata{Version: ondisk.Version, Name: "theirs", ID: 8, Count: 1, ProviderSize: 16<<20 + 4096, ChunkSize: 1 << 20}
	if err := errors.Join(geomlib.StoreMetadata(s["component"], m),
		geomlib.StoreSpare(s["spare"], "theirs", 8), geomlib.StoreSpare(s["own"], "vol", vol.ID())); err != nil {
		t.Fatal(err)
	}
	e := Engine{Vol: vol, Host: s}
	add := func(name string, force bool) error {
		return e.Add(t.Context(), "vol", control.AddRequest{Providers: []string{name}, Force: force})
	}
	for name, says := range map[string]string{
		"xfs":       "xfs holds an XFS file system; with -f",
		"component": "component is labelled: component 0 of theirs; with -f",
		"spare":     "spare holds a spare of the volume theirs; with -f",
	} {
		if err := add(name, false); control.CodeOf(err) != control.HoldsData || !strings.Contains(err.Error(), says) {
			t.Errorf("add %s: %v", name, err)
		}
		if err := add(name, true); err != nil {
			t.Errorf("add -f %s: %v", name, err)
		}
	}
	if err := add("own", false); err != nil {
		t.Errorf("add of the volume's own spare: %v", err)
	}
	replace := func(args string) error {
		_, err := e.StartJob(t.Context(), "vol", control.JobRequest{Kind: "replace", Args: []byte(args)})
		return err
	}
	if err := replace(`{"providers": ["b"], "target": "target"}`); control.CodeOf(err) != control.HoldsData {
		t.Errorf("replace: %v", err)
	}
	if err := replace(`{"providers": ["b"], "target": "target", "force": true}`); err != nil {
		t.Errorf("replace -f: %v", err)
	}
	if j, err := vol.WaitJob(t.Context()); err != nil || j.Err != nil {
		t.Error(err, j.Err)
	}
	if n := len(vol.Providers()); n != 7 {
		t.Errorf("the volume has %d components", n)
	}
}
