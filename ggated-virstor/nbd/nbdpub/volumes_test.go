package nbdpub

import (
	"bytes"
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/publish"
)

func TestAFurtherVolumeIsAnExportOfItsOwn(t *testing.T) {
	v, p := volume(t), start(t)
	_, err := v.CreateVolume("db", 2<<20, false)
	must(t, err)
	e := published(t, p, v)
	must(t, v.Snapshot("s"))
	_, err = v.CloneSnapshot("s", "web", false)
	must(t, err)
	must(t, e.Follow(virstor.Event{Kind: virstor.EventSnapshots}))
	names := e.exports()
	slices.Sort(names)
	if got := strings.Join(names, " "); got != "vol vol/db vol/web vol@s" {
		t.Fatalf("exports %q", got)
	}
	write := func(export string, b byte) {
		t.Helper()
		c, err := dial(t, p, export)
		must(t, err)
		must(t, second(c.WriteAt(bytes.Repeat([]byte{b}, 4096), 0)))
		must(t, c.Close())
	}
	for i, name := range []string{"vol", "vol/db", "vol/web"} {
		write(name, byte(i+1))
	}
	for i, name := range []string{"vol", "vol/db", "vol/web", "vol@s"} {
		c, err := dial(t, p, name)
		must(t, err)
		b := make([]byte, 4096)
		must(t, second(c.ReadAt(b, 0)))
		must(t, c.Close())
		if want := byte(i+1) % 4; b[0] != want {
			t.Errorf("%s holds %d", name, b[0])
		}
	}
}

// A further volume is let go of with its snapshots, and not while a client has it or one of
// them: then all is as before.
func TestAFurtherVolumeIsNotLetGoWhileAClientHasIt(t *testing.T) {
	v, p := volume(t), start(t)
	_, err := v.CreateVolume("web", 2<<20, false)
	must(t, err)
	h, err := v.OpenVolume("web")
	must(t, err)
	must(t, h.Snapshot("s"))
	h.Release()
	e := published(t, p, v)
	for _, export := range []string{"vol/web", "vol/web@s"} {
		c, err := dial(t, p, export)
		must(t, err)
		if _, err := e.LetGo("/web", false); !errors.Is(err, publish.ErrInUse) {
			t.Errorf("with a client of %s: %v", export, err)
		}
		if n := len(e.exports()); n != 3 {
			t.Errorf("%d exports are left of 3", n)
		}
		must(t, c.Close())
		for p.Server.Conns(export) > 0 { // until the server hears of the goodbye
			runtime.Gosched()
		}
	}
	again, err := e.LetGo("/web", false)
	must(t, err)
	if got := e.exports(); len(got) != 1 {
		t.Errorf("exports %v", got)
	}
	must(t, v.RenameVolume("web", "www", false))
	again()
	names := e.exports()
	slices.Sort(names)
	if got := strings.Join(names, " "); got != "vol vol/www vol/www@s" {
		t.Errorf("exports %q", got)
	}
}
