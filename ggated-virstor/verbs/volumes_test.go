package verbs

import (
	"bytes"
	"context"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

func TestAFurtherVolumeIsMadeClonedRenamedAndDeleted(t *testing.T) {
	e, ctx := snapshotted(t), context.Background()
	name := e.Vol.Name()
	chunk := e.Vol.ChunkSize()
	if res, err := e.Create(ctx, name+"/web", control.CreateRequest{Size: chunk + 1, DryRun: true}); err != nil || res.Size != 2*chunk || res.MapChunks != 2 {
		t.Errorf("%+v, %v", res, err)
	}
	for what, q := range map[string]control.CreateRequest{
		"no size":             {},
		"a size and snapshot": {Size: 1, Snapshot: "a"},
	} {
		if _, err := e.Create(ctx, name+"/web", q); control.KindOf(err) != control.Invalid {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := e.Create(ctx, name+"/web", control.CreateRequest{Snapshot: "none"}); control.KindOf(err) != control.NotFound {
		t.Errorf("a clone of no snapshot: %v", err)
	}
	if v, _ := e.Volume(ctx, ""); len(v.Volumes) != 0 {
		t.Fatalf("volumes %+v", v.Volumes)
	}
	_, err := e.Create(ctx, name+"/web", control.CreateRequest{Snapshot: "a"})
	if err == nil {
		_, err = e.Create(ctx, "virstor/"+name+"/db", control.CreateRequest{Size: 3 * chunk})
	}
	if err != nil {
		t.Fatal(err)
	}
	v, err := e.Volume(ctx, "")
	if err != nil || len(v.Volumes) != 2 || v.Volumes[0].Name != "web" || v.Volumes[0].Origin != "@a" || v.Volumes[1].Size != 3*chunk {
		t.Fatalf("%+v, %v", v.Volumes, err)
	}
	h, err := e.Vol.OpenVolume("web")
	if err != nil {
		t.Fatal(err)
	}
	data := bytes.Repeat([]byte{6}, 4096)
	if _, err := h.WriteAt(data, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Delete(ctx, name+"/web", control.DeleteRequest{}); control.KindOf(err) != control.Busy {
		t.Errorf("deleted in use: %v", err)
	}
	h.Release()
	if _, err := e.Snapshot(ctx, name+"/web", control.SnapshotRequest{Snapshot: "s"}); err != nil {
		t.Fatal(err)
	}
	all, err := e.Snapshots(ctx, name+"/web")
	if err != nil || len(all.Snapshots) != 1 || all.Snapshots[0].Name != "s" {
		t.Fatalf("%+v, %v", all, err)
	}
	got, err := e.Read(ctx, name+"/web", control.ReadRequest{Snapshot: "s", ID: all.Snapshots[0].ID, Length: 4096})
	if err != nil || !bytes.Equal(got.Data, data) {
		t.Errorf("read: %v", err)
	}
	if d, err := e.Diff(ctx, name+"/web", control.DiffRequest{From: "s"}); err != nil || len(d.Ranges) != 0 || d.FromID != all.Snapshots[0].ID {
		t.Errorf("%+v, %v", d, err)
	}
	// That of another volume is another one.
	if _, err := e.Delete(ctx, name, control.DeleteRequest{Snapshot: "s"}); control.KindOf(err) != control.NotFound {
		t.Errorf("deleted from another volume: %v", err)
	}
	if _, err := e.Delete(ctx, name, control.DeleteRequest{Snapshot: "a"}); control.KindOf(err) != control.Invalid {
		t.Errorf("a snapshot with a clone deleted: %v", err)
	}
	if _, err := e.Delete(ctx, name+"/web", control.DeleteRequest{DryRun: true}); control.KindOf(err) != control.Invalid {
		t.Errorf("a volume with a snapshot deleted: %v", err)
	}
	for _, r := range []control.RenameSnapshotRequest{{To: "www", DryRun: true}, {Snapshot: "s", To: "t", DryRun: true}, {To: "www"}} {
		if err := e.RenameSnapshot(ctx, name+"/web", r); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []struct {
		name, snapshot string
		chunks         int64
	}{{name + "/www", "s", 0}, {name + "/www", "", 1}, {name + "/db", "", 0}} {
		if res, err := e.Delete(ctx, d.name, control.DeleteRequest{Snapshot: d.snapshot}); err != nil || res.Chunks != d.chunks {
			t.Errorf("%+v: %+v, %v", d, res, err)
		}
	}
	if _, err := e.Delete(ctx, name, control.DeleteRequest{}); control.KindOf(err) != control.Invalid {
		t.Errorf("the first volume deleted: %v", err)
	}
	if v, _ := e.Volume(ctx, ""); len(v.Volumes) != 0 {
		t.Errorf("volumes %+v", v.Volumes)
	}
}

// The kernel class made volumes with a slash in their names.
func TestAVolumeWithASlashInItsNameIsNoFurtherOne(t *testing.T) {
	a := labelled(t)
	for i := range a.Members {
		m := &a.Members[i]
		m.Metadata.Name = "a/b"
		if err := geomlib.StoreMetadata(m.Provider, m.Metadata); err != nil {
			t.Fatal(err)
		}
	}
	vol, err := virstor.Open(virstor.Assemble(a.Members)[0], virstor.Config{})
	if err != nil {
		t.Fatal(err)
	}
	e, ctx := Engine{Vol: vol, Host: shelf{}}, context.Background()
	for name, want := range map[string]string{"a/b": "", "virstor/a/b": "", "a/web": "web"} {
		if got := e.own(name); got != want {
			t.Errorf("%q is %q", name, got)
		}
	}
	if _, err := e.Snapshot(ctx, "a/b", control.SnapshotRequest{Snapshot: "s"}); err != nil {
		t.Error(err)
	}
	if all, err := e.Snapshots(ctx, "a/b"); err != nil || len(all.Snapshots) != 1 {
		t.Errorf("%+v, %v", all, err)
	}
	if err := vol.Close(); err != nil {
		t.Error(err)
	}
}
