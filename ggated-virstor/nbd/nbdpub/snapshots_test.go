package nbdpub

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdclient"
	"github.com/gvirstor/gvirstor/ggated-virstor/publish"
	"github.com/gvirstor/gvirstor/ondisk"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// volume is one in chunks of 128 KiB, until the end of the test.
func volume(t *testing.T) *virstor.Volume {
	t.Helper()
	d := disktest.New("a", 8<<20, 512)
	l, err := ondisk.Plan(ondisk.LabelRequest{Name: "vol", VirtualSize: 4 << 20, ChunkSize: 128 << 10, ID: 5, ChunkMultiple: ondisk.MinChunkMultiple,
		Providers: []ondisk.LabelProvider{{Name: "a", Size: d.MediaSize(), SectorSize: 512}}})
	must(t, err)
	must(t, virstor.Label(t.Context(), []geomlib.Provider{d}, l, virstor.LabelOptions{}))
	m, err := geomlib.ReadMetadata(d)
	must(t, err)
	v, err := virstor.Open(virstor.Assemble([]virstor.Member{{Provider: d, Metadata: m}})[0], virstor.Config{})
	must(t, err)
	t.Cleanup(func() {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
	return v
}

// published publishes v until the end of the test.
func published(t *testing.T, p *Publisher, v *virstor.Volume) *export {
	t.Helper()
	pub, err := p.Publish(v)
	must(t, err)
	t.Cleanup(func() {
		if err := pub.Withdraw(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return pub.(*export)
}

func dial(t *testing.T, p *Publisher, export string) (*nbdclient.Conn, error) {
	t.Helper()
	c, err := nbdclient.Dial(t.Context(), p.URIs(export)[0], nbdclient.Options{})
	if err == nil {
		t.Cleanup(func() { c.Abort() })
	}
	return c, err
}

func mustDial(t *testing.T, p *Publisher, export string) *nbdclient.Conn {
	t.Helper()
	c, err := dial(t, p, export)
	must(t, err)
	return c
}

// listed are the exports that a client is told of.
func listed(t *testing.T, p *Publisher) string {
	t.Helper()
	u, err := nbdclient.ParseURI(p.URIs("")[0])
	must(t, err)
	nc, err := net.Dial(u.Network, u.Addr)
	must(t, err)
	defer nc.Close()
	names, err := nbdclient.List(nc)
	must(t, err)
	return strings.Join(names, " ")
}

func TestASnapshotIsAnExportThatIsOnlyRead(t *testing.T) {
	p, v := start(t), volume(t)
	was, now := bytes.Repeat([]byte{1}, 4096), bytes.Repeat([]byte{2}, 4096)
	_, err := v.WriteAt(was, 8192)
	must(t, err)
	must(t, v.Snapshot("before")) // it was published
	e := published(t, p, v)
	_, err = v.WriteAt(now, 8192)
	must(t, err)
	must(t, v.Snapshot("after"))
	must(t, e.Follow(virstor.Event{Kind: virstor.EventSnapshots}))
	if s := listed(t, p); s != "vol vol@after vol@before" {
		t.Errorf("exports: %s", s)
	}
	b := make([]byte, 4096)
	for name, want := range map[string][]byte{"vol@before": was, "vol@after": now, "vol": now} {
		c := mustDial(t, p, name)
		i := c.Info()
		if i.Size != v.Size() || i.ReadOnly() != (name != "vol") || !i.MultiConn() || i.Name != name {
			t.Errorf("%s: %+v", name, i)
		}
		_, err := c.ReadAt(b, 8192)
		if must(t, err); !bytes.Equal(b, want) {
			t.Errorf("%s holds %d", name, b[0])
		}
		if !i.ReadOnly() {
			continue
		}
		for what, err := range map[string]error{
			"write": second(c.WriteAt(was, 0)), "trim": c.Trim(0, 4096, 0), "zero": c.WriteZeroes(0, 4096, 0),
		} {
			if !errors.Is(err, syscall.EPERM) {
				t.Errorf("%s of %s: %v", what, name, err)
			}
		}
		must(t, c.Flush())
		extents, err := c.BlockStatus(0, v.Size(), 0)
		if err != nil || len(extents) != 2 || extents[0].Length != 128<<10 {
			t.Errorf("%s: %+v, %v", name, extents, err)
		}
	}
	if n, _ := e.Users(); n != 3 {
		t.Errorf("%d users", n)
	}
}

func second(_ int, err error) error { return err }

func TestWhoNamesNoExportGetsTheVolumeWhateverSnapshotsItHas(t *testing.T) {
	p, v := start(t), volume(t)
	must(t, v.Snapshot("monday"))
	published(t, p, v)
	if name := mustDial(t, p, "").Info().Name; name != "vol" {
		t.Errorf("the empty name leads to %s", name)
	}
}

func TestASnapshotIsNotLetGoWhileAClientHasIt(t *testing.T) {
	p, v := start(t), volume(t)
	must(t, v.Snapshot("monday"))
	e := published(t, p, v)
	c := mustDial(t, p, "vol@monday")
	if _, err := e.LetGo("monday", false); !errors.Is(err, publish.ErrInUse) {
		t.Errorf("let go: %v", err)
	}
	if err := v.DeleteSnapshot("monday"); !errors.Is(err, virstor.ErrSnapshotInUse) {
		t.Errorf("deleted: %v", err)
	}
	_, err := c.ReadAt(make([]byte, 512), 0)
	must(t, err)
	must(t, c.Close())
	again, err := e.LetGo("monday", false)
	for errors.Is(err, publish.ErrInUse) { // the server hears of the goodbye
		again, err = e.LetGo("monday", false)
	}
	must(t, err)
	// Whatever the volume tells meanwhile, it stays gone.
	must(t, e.Follow(virstor.Event{Kind: virstor.EventSnapshots}))
	if _, err := dial(t, p, "vol@monday"); err == nil {
		t.Error("it can be opened while it is deleted")
	}
	again() // it was not
	mustDial(t, p, "vol@monday")
	if again, err = e.LetGo("tuesday", false); err != nil {
		t.Error(err)
	}
	again()
}

func TestClientsOfSnapshotsAreMadeToLeaveToo(t *testing.T) {
	p, v := start(t), volume(t)
	must(t, v.Snapshot("monday"))
	e := published(t, p, v)
	c := mustDial(t, p, "vol@monday")
	e.Disconnect()
	<-c.Done()
	if n, _ := e.Users(); n != 0 {
		t.Errorf("%d users", n)
	}
}
