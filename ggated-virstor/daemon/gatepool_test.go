package daemon

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/geomlib/gate"
	"github.com/gvirstor/gvirstor/geomlib/gate/gatetest"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ondisk"
)

// create makes a further volume of the pool vol.
func (s *site) create(name string, r control.CreateRequest) {
	s.t.Helper()
	_, err := s.d.Create(context.Background(), name, r)
	must(s.t, err)
}

func (s *site) snapshot(volume, name string) {
	s.t.Helper()
	_, err := s.d.Snapshot(context.Background(), volume, control.SnapshotRequest{Snapshot: name})
	must(s.t, err)
}

// published publishes a snapshot and returns its node.
func (s *site) published(volume, name string) string {
	s.t.Helper()
	res, err := s.d.PublishSnapshot(context.Background(), volume, control.PublishRequest{Snapshot: name})
	must(s.t, err)
	if len(res.Published) != 1 || res.Published[0].Kind != control.Gate {
		s.t.Fatalf("%s@%s: %+v", volume, name, res)
	}
	return res.Published[0].Name
}

func (s *site) write(dev *gatetest.Dev, b byte, off int64) {
	s.t.Helper()
	_, err := dev.WriteAt(bytes.Repeat([]byte{b}, 4096), off)
	must(s.t, err)
}

// holds reads from a device what write wrote.
func (s *site) holds(dev *gatetest.Dev, b byte, off int64) {
	s.t.Helper()
	got := make([]byte, 4096)
	_, err := dev.ReadAt(got, off)
	must(s.t, err)
	if !bytes.Equal(got, bytes.Repeat([]byte{b}, 4096)) {
		s.t.Errorf("%d is there, not %d", got[0], b)
	}
}

// nodes are those of the pool vol, of its further volumes and of its snapshots.
func (s *site) nodes() string {
	s.t.Helper()
	v := s.volumeStatus("vol")
	names := v.Nodes()
	volumes := []string{"vol"}
	for _, f := range v.Volumes {
		names, volumes = append(names, f.Nodes()...), append(volumes, "vol/"+f.Name)
	}
	for _, volume := range volumes {
		all, err := s.d.Snapshots(context.Background(), volume)
		must(s.t, err)
		for _, snap := range all.Snapshots {
			names = append(names, snap.Nodes()...)
		}
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

func TestFurtherVolumesAndPublishedSnapshotsAreDevicesOfTheirOwn(t *testing.T) {
	s := newSite(t, tasting)
	s.name = "virstor/"
	s.start(1, s.label("vol", 0xabcd, 8*mib, 8, 8)...)
	s.create("vol/web", control.CreateRequest{Size: 2 * mib})
	first, web := s.open("virstor/vol"), s.open("virstor/vol+web")
	s.write(first, 1, 0)
	s.write(web, 2, 0)
	if st, _ := s.k.Status(1); !strings.HasPrefix(st.Info, "ggated-virstor 0000abcd-") || st.MediaSize != 2*mib {
		t.Errorf("%+v", st)
	}
	s.snapshot("vol/web", "s")
	s.snapshot("vol", "s")
	s.write(web, 3, 0)
	if got := s.nodes(); got != "virstor/vol virstor/vol+web" {
		t.Fatalf("%s", got)
	}
	node := s.published("vol/web", "s")
	if again := s.published("vol/web", "s"); again != node || node != "virstor/vol+web@s" {
		t.Fatalf("%s, then %s", node, again)
	}
	if node := s.published("vol", "s"); node != "virstor/vol@s" {
		t.Fatalf("%s", node)
	}
	if got := s.nodes(); got != "virstor/vol virstor/vol+web virstor/vol+web@s virstor/vol@s" {
		t.Fatalf("%s", got)
	}
	snap, err := s.k.OpenDev(node, gatetest.Reader)
	must(t, err)
	s.holds(first, 1, 0)
	s.holds(web, 3, 0)
	s.holds(snap, 2, 0)
	writer := s.open(node) // which the kernel allows
	if _, err := writer.WriteAt(make([]byte, sector), 0); !errors.Is(err, gate.EPERM) {
		t.Errorf("a snapshot is written to: %v", err)
	}
	must(t, writer.Close())

	ctx := context.Background()
	for what, err := range map[string]error{
		"unpublish":         s.d.UnpublishSnapshot(ctx, "vol/web", control.UnpublishRequest{Snapshot: "s"}),
		"rename":            s.d.RenameSnapshot(ctx, "vol/web", control.RenameSnapshotRequest{To: "www"}),
		"rename -n":         s.d.RenameSnapshot(ctx, "vol/web", control.RenameSnapshotRequest{To: "www", DryRun: true}),
		"delete a snapshot": second(s.d.Delete(ctx, "vol/web", control.DeleteRequest{Snapshot: "s"})),
		"stop":              second(s.d.Stop(ctx, "vol", control.StopRequest{})),
	} {
		if control.KindOf(err) != control.Busy {
			t.Errorf("%s of what is open: %v", what, err)
		}
	}
	if got := s.nodes(); got != "virstor/vol virstor/vol+web virstor/vol+web@s virstor/vol@s" {
		t.Fatalf("after verbs that were refused: %s", got)
	}
	must(t, s.d.UnpublishSnapshot(ctx, "vol/web", control.UnpublishRequest{Snapshot: "s", Force: true}))
	if _, err := snap.ReadAt(make([]byte, sector), 0); !errors.Is(err, gate.ENXIO) {
		t.Errorf("read from a device that is gone: %v", err)
	}
	if err := s.d.UnpublishSnapshot(ctx, "vol/web", control.UnpublishRequest{Snapshot: "s"}); control.KindOf(err) != control.NotFound {
		t.Errorf("unpublished twice: %v", err)
	}

	// A device goes along with the name of what it is of, and goes with it.
	must(t, web.Close())
	for _, snapshot := range []string{"s", "none"} {
		res, err := s.d.PublishSnapshot(ctx, "vol/web", control.PublishRequest{Snapshot: snapshot, DryRun: true})
		if (snapshot == "none") != (control.KindOf(err) == control.NotFound) || len(res.Published) > 0 {
			t.Errorf("publish -n %s: %+v, %v", snapshot, res, err)
		}
	}
	s.published("vol/web", "s")
	must(t, s.d.RenameSnapshot(ctx, "vol/web", control.RenameSnapshotRequest{To: "www", DryRun: true}))
	if res, err := s.d.PublishSnapshot(ctx, "vol/web", control.PublishRequest{Snapshot: "s", DryRun: true}); err != nil || len(res.Published) != 1 || res.Published[0].Name != node {
		t.Errorf("publish -n of what is a device: %+v, %v", res, err)
	}
	if got := s.nodes(); got != "virstor/vol virstor/vol+web virstor/vol+web@s virstor/vol@s" {
		t.Fatalf("after what was only asked: %s", got)
	}
	must(t, s.d.RenameSnapshot(ctx, "vol/web", control.RenameSnapshotRequest{To: "www"}))
	must(t, s.d.RenameSnapshot(ctx, "vol", control.RenameSnapshotRequest{Snapshot: "s", To: "t"}))
	if got := s.nodes(); got != "virstor/vol virstor/vol+www virstor/vol+www@s virstor/vol@t" {
		t.Fatalf("after renames: %s", got)
	}
	must(t, second(s.d.Delete(ctx, "vol/www", control.DeleteRequest{Snapshot: "s"})))
	must(t, second(s.d.Delete(ctx, "vol/www", control.DeleteRequest{})))
	if got := s.nodes(); got != "virstor/vol virstor/vol@t" {
		t.Fatalf("after deletions: %s", got)
	}
	must(t, first.Close())
	must(t, second(s.d.Stop(ctx, "vol", control.StopRequest{})))
	if left := s.records(); len(left) > 0 {
		t.Errorf("records are left: %v", left)
	}
}

func TestAFurtherVolumeIsRolledBackBesideTheOthers(t *testing.T) {
	s := newSite(t, tasting)
	s.start(1, s.label("vol", 0xabcd, 8*mib, 8, 8)...)
	s.create("vol/web", control.CreateRequest{Size: 2 * mib})
	first, web := s.open("ggate0"), s.open("ggate1")
	s.write(first, 1, 0)
	s.write(web, 1, 0)
	s.snapshot("vol/web", "s")
	s.write(first, 2, 0)
	s.write(web, 2, 0)
	ctx := context.Background()
	r := control.RollbackRequest{Snapshot: "s", DryRun: true}
	res, err := s.d.Rollback(ctx, "vol/web", r)
	must(t, err)
	if res.Chunks != 1 || !strings.Contains(res.Users, "/dev/ggate1 is open") {
		t.Errorf("%+v", res)
	}
	r.DryRun = false
	if _, err := s.d.Rollback(ctx, "vol/web", r); control.KindOf(err) != control.Busy {
		t.Errorf("in use: %v", err)
	}
	r.Force = true
	must(t, second(s.d.Rollback(ctx, "vol/web", r)))
	s.holds(first, 2, 0)
	if _, err := web.ReadAt(make([]byte, sector), 0); !errors.Is(err, gate.ENXIO) {
		t.Errorf("read from a device that is gone: %v", err)
	}
	web = s.open(s.volumeStatus("vol").Volumes[0].Nodes()[0])
	s.holds(web, 1, 0)
	s.write(web, 3, 0)
	must(t, web.Close())
	must(t, first.Close())
}

func second[T any](_ T, err error) error { return err }

// Nothing of any of the devices fails when a daemon dies and another takes over, and a
// snapshot that was published is so again, by its unit.
func TestAllDevicesOfAPoolAreTakenOver(t *testing.T) {
	s := newSite(t, tasting)
	names := s.label("vol", 0xabcd, 8*mib, 8, 8)
	s.start(1, names...)
	s.create("vol/web", control.CreateRequest{Size: 2 * mib})
	web := s.open("ggate1")
	s.write(web, 1, 0)
	s.snapshot("vol/web", "s")
	s.snapshot("vol/web", "hidden")
	if node := s.published("vol/web", "s"); node != "ggate2" {
		t.Fatal(node)
	}
	first := s.open("ggate0")
	snap, err := s.k.OpenDev("ggate2", gatetest.Reader)
	must(t, err)
	for round := range 3 {
		s.crash()
		var calls []*gatetest.Call
		for _, dev := range []*gatetest.Dev{first, web} {
			c := gatetest.NewCall()
			c.Cmd, c.Offset, c.Length, c.Data = gate.Write, 4096, 4096, bytes.Repeat([]byte{byte(10 + round)}, 4096)
			dev.Issue(c)
			calls = append(calls, c)
		}
		s.start(1, names...)
		for _, c := range calls {
			must(t, c.Wait())
		}
		s.holds(web, 1, 0)
		s.holds(web, byte(10+round), 4096)
		s.holds(first, byte(10+round), 4096)
		s.holds(snap, 1, 0)
		if got := s.nodes(); got != "ggate0 ggate1 ggate2" {
			t.Fatalf("%s", got)
		}
	}
	must(t, snap.Close())
	must(t, s.d.UnpublishSnapshot(context.Background(), "vol/web", control.UnpublishRequest{Snapshot: "s"}))
	for _, dev := range []*gatetest.Dev{first, web} {
		must(t, dev.Close())
	}
	must(t, s.d.Leave()) // as for an upgrade
	s.start(1, names...)
	if got := s.nodes(); got != "ggate0 ggate1" {
		t.Errorf("after an upgrade: %s", got)
	}
}

func TestTheDeviceOfAVolumeThatWasDeletedMeanwhileIsDestroyed(t *testing.T) {
	s := newSite(t, tasting)
	names := s.label("vol", 0xabcd, 8*mib, 8, 8)
	s.start(1, names...)
	s.create("vol/web", control.CreateRequest{Size: 2 * mib})
	s.create("vol/db", control.CreateRequest{Size: 2 * mib})
	s.crash()
	var members []virstor.Member
	for _, name := range names {
		m, err := geomlib.ReadMetadata(s.disks[name])
		must(t, err)
		members = append(members, virstor.Member{Provider: s.disks[name], Metadata: m})
	}
	v, err := virstor.Open(virstor.Assemble(members)[0], virstor.Config{})
	must(t, err)
	must(t, v.DeleteVolume("web"))
	must(t, v.Close())
	s.start(1, names...)
	dev := s.open("ggate2")
	s.write(dev, 5, 0)
	must(t, dev.Close())
	s.awaitNodes("ggate0 ggate2")
	s.awaitTakeover()
	if _, there := s.k.Status(1); there {
		t.Error("the device of a volume that is deleted is there")
	}
	if n := len(s.records()); n != 2 {
		t.Errorf("%d records", n)
	}
}

// Nobody knows whether the map of a damaged volume can be read at another start: what is
// mounted from its device waits.
func TestTheDeviceOfAVolumeThatIsDamagedStays(t *testing.T) {
	s := newSite(t, tasting)
	names := s.label("vol", 0xabcd, 8*mib, 8, 8)
	s.start(1, names...)
	s.create("vol/web", control.CreateRequest{Size: 2 * mib})
	s.create("vol/db", control.CreateRequest{Size: 2 * mib})
	s.snapshot("vol/web", "s")
	s.published("vol/web", "s")
	s.crash()
	heal := s.unreadable(names, "web")
	s.start(1, names...)
	s.awaitTakeover()
	for unit := range 4 {
		if _, there := s.k.Status(unit); !there {
			t.Errorf("unit %d is gone", unit)
		}
	}
	must(t, s.d.Leave())
	heal()
	s.start(1, names...)
	s.awaitNodes("ggate0 ggate1 ggate2 ggate3")
}

// unreadable has reads of the map of a further volume fail until it is called off.
func (s *site) unreadable(names []string, volume string) (heal func()) {
	s.t.Helper()
	const chunk = 128 << 10
	members := make(map[uint64]*disktest.Disk)
	var first ondisk.Link
	for _, name := range names {
		m, err := geomlib.ReadMetadata(s.disks[name])
		must(s.t, err)
		members[m.Member.ID] = s.disks[name]
		if rec, found, err := virstor.Record(s.disks[name], m); err == nil && found {
			first = rec.Directory
		}
	}
	b := make([]byte, chunk)
	_, err := members[first.Member].ReadAt(b, int64(first.Chunk)*chunk)
	must(s.t, err)
	chain, err := ondisk.NewChain(ondisk.ChainDirectory, first, chunk)
	must(s.t, err)
	must(s.t, chain.Take(b[:first.Length]))
	dir, err := ondisk.DecodeDirectory(chain.Contents())
	must(s.t, err)
	for _, m := range dir.Maps {
		if m.Name == volume {
			return members[m.List.Member].FailRange(disktest.Read, int64(m.List.Chunk)*chunk, chunk, syscall.EIO)
		}
	}
	s.t.Fatalf("no volume %s", volume)
	return nil
}

// awaitTakeover waits until the volume is served by what takes its devices over.
func (s *site) awaitTakeover() {
	s.t.Helper()
	for s.d.takeovers.Load() == 0 {
		s.k.WaitIdle()
	}
}

// awaitNodes waits until a takeover is over, and the nodes are these.
func (s *site) awaitNodes(want string) {
	s.t.Helper()
	v, err := s.d.findVolume("vol")
	must(s.t, err)
	if v.takeover != nil {
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for v.vol.Deferred() {
				s.k.WaitIdle()
			}
		}()
		<-ended
	}
	if got := s.nodes(); got != want {
		s.t.Errorf("nodes %s, not %s", got, want)
	}
}
