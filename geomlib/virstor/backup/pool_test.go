package backup_test

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/geomlib/virstor/backup"
	"github.com/gvirstor/gvirstor/geomlib/virstor/check"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/voltest"
	"github.com/gvirstor/gvirstor/ondisk"
)

// pool is voltest.New with the snapshots a and b, behind each of which virtual chunk 0 was
// written to and one given up, and what each holds; "" is the volume.
func pool(t testing.TB) (disks []*disktest.Disk, held map[string][]byte) {
	t.Helper()
	disks, _ = voltest.New(t, false)
	v := voltest.Open(t, virstor.Config{}, disks)
	for i, name := range []string{"a", "b"} {
		_, err := v.WriteAt(bytes.Repeat([]byte{byte(i + 3)}, 1024), 512)
		if err := errors.Join(v.Snapshot(name), err, v.Discard(int64(17*(i+1))*voltest.Chunk, voltest.Chunk)); err != nil {
			t.Fatal(err)
		}
	}
	_, err := v.WriteAt(bytes.Repeat([]byte{9}, 512), 512)
	if err := errors.Join(err, v.Close()); err != nil {
		t.Fatal(err)
	}
	return disks, contents(t, disks)
}

// contents are those of the volume, and of its snapshots that are not damaged.
func contents(t testing.TB, disks []*disktest.Disk) map[string][]byte {
	t.Helper()
	v := voltest.Open(t, virstor.Config{ReadOnly: true}, disks)
	defer v.Close()
	held := map[string][]byte{"": make([]byte, v.Size())}
	if _, err := v.ReadAt(held[""], 0); err != nil {
		t.Fatal(err)
	}
	for _, s := range v.Snapshots() {
		if s.Err != nil {
			continue
		}
		w, err := v.OpenSnapshot(s.Name)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, w.Size())
		done := make(completed, 1)
		w.Submit(&virstor.Request{Op: virstor.OpRead, Length: int64(len(b)), Data: b, Done: done})
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		w.Close()
		held[s.Name] = b
	}
	return held
}

// completed is told how a request ended.
type completed chan error

func (c completed) Complete(r *virstor.Request) { c <- r.Err }

func mustHold(t *testing.T, disks []*disktest.Disk, want map[string][]byte) {
	t.Helper()
	got := contents(t, disks)
	for name, b := range want {
		if !bytes.Equal(got[name], b) {
			t.Errorf("%q holds something else (%d bytes, want %d)", name, len(got[name]), len(b))
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d maps, want %d", len(got), len(want))
	}
}

// inMaps is where chunk i of the map of the last snapshot that b keeps lies.
func inMaps(b *backup.Backup, disks []*disktest.Disk, i int) (*disktest.Disk, int64) {
	c := b.Pool.Maps[len(b.Pool.Maps)-1].List.Chunks[i]
	id, _ := b.Pool.Directory.Member(c.Number)
	at := slices.IndexFunc(b.Components, func(c backup.Component) bool { return c.Metadata.Member.ID == id })
	return disks[at], int64(c.Chunk) * voltest.Chunk
}

func TestSnapshotsAreBackedUpAndRestored(t *testing.T) {
	disks, held := pool(t)
	b := take(t, disks)
	if got := b.Snapshots(); !slices.Equal(got, []string{"a", "b"}) || b.LeftOut != nil {
		t.Fatalf("kept %v, left out %v", got, b.LeftOut)
	}
	read, err := backup.Read(bytes.NewReader(encode(t, b)))
	if err != nil || !reflect.DeepEqual(read, b) {
		t.Fatalf("read %+v, %v", read, err)
	}
	// Nothing is left of the maps, nor of what says where they are.
	d, off := inMaps(b, disks, 0)
	voltest.Write(t, d, bytes.Repeat([]byte{0xff}, 512), off)
	own := b.Pool.Directory.Own[0]
	id, _ := b.Pool.Directory.Member(own.Number)
	at := slices.IndexFunc(b.Components, func(c backup.Component) bool { return c.Metadata.Member.ID == id })
	voltest.Write(t, disks[at], make([]byte, 512), int64(own.Chunk)*voltest.Chunk)
	wipe(t, disks)
	if _, err := backup.Restore(ctx, voltest.Providers(disks), read, backup.RestoreOptions{Log: silent, Above: 70}); err != nil {
		t.Fatal(err)
	}
	mustHold(t, disks, held)
	if g := assembly(t, disks).Settled; g <= 71 {
		t.Errorf("generation %d", g)
	}
	r, err := check.Inspect(ctx, voltest.Providers(disks), check.Options{})
	if err != nil || !r.Clean() || len(r.Volumes[0].Snapshots) != 2 {
		t.Errorf("%+v, %v", r, err)
	}
	v := voltest.Open(t, virstor.Config{}, disks)
	if err := errors.Join(v.DeleteSnapshot("a"), v.Snapshot("c"), v.Close()); err != nil {
		t.Error(err)
	}
}

func TestOfAVolumeInUseTheSameSnapshotsAreBackedUp(t *testing.T) {
	disks, _ := pool(t)
	stopped := take(t, disks)
	v := voltest.Open(t, virstor.Config{ReadOnly: true}, disks)
	defer v.Close()
	live, err := backup.FromVolume(ctx, v, noon)
	if err != nil {
		t.Fatal(err)
	}
	if stopped.Extension = nil; !reflect.DeepEqual(live, stopped) {
		t.Errorf("live %+v\nstopped %+v", live, stopped)
	}
}

func TestADamagedSnapshotIsLeftOutOfABackup(t *testing.T) {
	disks, held := pool(t)
	d, off := inMaps(take(t, disks), disks, 0)
	voltest.Write(t, d, bytes.Repeat([]byte{0xff}, 512), off)
	b := take(t, disks)
	if !slices.Equal(b.LeftOut, []string{"b"}) || !slices.Equal(b.Snapshots(), []string{"a"}) {
		t.Fatalf("kept %v, left out %v", b.Snapshots(), b.LeftOut)
	}
	_, err := backup.Restore(ctx, voltest.Providers(disks), b, backup.RestoreOptions{Log: silent})
	if mustBe(t, err, backup.ErrNewer); !strings.Contains(err.Error(), "which would be lost (b)") {
		t.Error(err)
	}
	if _, err := backup.Restore(ctx, voltest.Providers(disks), b, backup.RestoreOptions{Log: silent, Force: true}); err != nil {
		t.Fatal(err)
	}
	delete(held, "b")
	mustHold(t, disks, held)
	r, err := check.Inspect(ctx, voltest.Providers(disks), check.Options{})
	if err != nil || !r.Clean() {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestSnapshotsThatChangedSinceKeepABackupFromBeingRestored(t *testing.T) {
	for want, change := range map[string]func(*virstor.Volume) error{
		"taken, which would be lost (c)":                              func(v *virstor.Volume) error { return v.Snapshot("c") },
		"deleted, and what they alone had may be written over (a)":    func(v *virstor.Volume) error { return v.DeleteSnapshot("a") },
		"deleted, and what they alone had may be written over; force": func(v *virstor.Volume) error { return errors.Join(v.DeleteSnapshot("a"), v.DeleteSnapshot("b")) },
		"what its snapshots have was moved or renamed":                func(v *virstor.Volume) error { return v.RenameSnapshot("a", "z", false) },
		"snapshots were taken, which would be lost (a)":               func(v *virstor.Volume) error { return errors.Join(v.DeleteSnapshot("a"), v.Snapshot("a")) },
		"": func(*virstor.Volume) error { return nil },
	} {
		disks, _ := pool(t)
		if !restoredByForce(t, disks, change, want) {
			continue
		}
		v := voltest.Open(t, virstor.Config{ReadOnly: true}, disks)
		for i, s := range v.Snapshots() {
			if s.Name != []string{"a", "b"}[i] || s.Err != nil {
				t.Errorf("%+v", s)
			}
		}
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	}
}

// restoredByForce backs up disks, changes the volume, and restores: that is refused because of
// want, and done by force; without want it is done at once. It reports whether force was needed.
func restoredByForce(t *testing.T, disks []*disktest.Disk, change func(*virstor.Volume) error, want string) bool {
	t.Helper()
	b := take(t, disks)
	v := voltest.Open(t, virstor.Config{}, disks)
	if err := errors.Join(change(v), v.Close()); err != nil {
		t.Fatal(err)
	}
	_, err := backup.Restore(ctx, voltest.Providers(disks), b, backup.RestoreOptions{Log: silent})
	if want == "" {
		mustBe(t, err, nil)
		return false
	}
	if mustBe(t, err, backup.ErrNewer); !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %q", err, want)
	}
	if _, err := backup.Restore(ctx, voltest.Providers(disks), b, backup.RestoreOptions{Log: silent, Force: true}); err != nil {
		t.Error(err)
	}
	return true
}

func TestAnInterruptedRestoreOfSnapshotsCanBeDoneAgain(t *testing.T) {
	disks, held := pool(t)
	b := take(t, disks)
	wipe(t, disks)
	voltest.SetEntry(t, disks[0], 0, ondisk.Entry{Flags: 0xff}, ondisk.LittleEndian)
	d, off := inMaps(b, disks, 0)
	voltest.Write(t, d, bytes.Repeat([]byte{0xff}, 512), off)
	rec := disktest.Record(disks...)
	if _, err := backup.Restore(ctx, voltest.Providers(disks), b, backup.RestoreOptions{Log: silent, InOrder: true}); err != nil {
		t.Fatal(err)
	}
	for k := 0; k <= rec.Len(); k++ {
		for _, pick := range []disktest.Pick{disktest.All, disktest.None} {
			again := rec.State(k, pick)
			if _, err := backup.Restore(ctx, voltest.Providers(again), b, backup.RestoreOptions{Log: silent, InOrder: true}); err != nil {
				t.Fatalf("after %d: %v", k, err)
			}
			mustHold(t, again, held)
		}
	}
}

// TestABackupWhoseMapsDoNotFitIsRefused changes one thing of a good one each.
func TestABackupWhoseMapsDoNotFitIsRefused(t *testing.T) {
	disks, _ := pool(t)
	for name, change := range map[string]func(*backup.Backup){
		"entry":     func(b *backup.Backup) { b.Pool.Parts[0].Runs[0].Chunk++ },
		"component": func(b *backup.Backup) { b.Pool.Parts[0].Runs[0].Component = 7 },
		"run":       func(b *backup.Backup) { b.Pool.Parts[0].Runs[0].Virtual = 1 << 40 },
		"part":      func(b *backup.Backup) { b.Pool.Parts = b.Pool.Parts[1:] },
		"map":       func(b *backup.Backup) { b.Pool.Maps = b.Pool.Maps[1:] },
		"list":      func(b *backup.Backup) { b.Pool.Maps[0].Places[0].Chunk++ },
		"directory": func(b *backup.Backup) { b.Pool.Directory.Own[0] = b.Pool.Directory.Other[0] },
		"members":   func(b *backup.Backup) { b.Components[1].Metadata.Member.ID++ },
		"chunk": func(b *backup.Backup) {
			b.Runs = append(b.Runs, backup.Run{Virtual: 127, Length: 1, Component: 0, Chunk: b.Pool.Directory.Own[0].Chunk})
		},
	} {
		b := take(t, disks)
		change(b)
		var w bytes.Buffer
		if err := b.Write(&w); err != nil {
			continue // it has no bytes
		}
		if _, err := backup.Read(&w); !errors.Is(err, backup.ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// poolOfVolumes is pool with the clone web of a, which has the snapshot mine, and the volume
// data, each of which was written to; and what each holds.
func poolOfVolumes(t testing.TB) (disks []*disktest.Disk, held map[string][]byte) {
	t.Helper()
	disks, _ = pool(t)
	v := voltest.Open(t, virstor.Config{}, disks)
	_, err := v.CloneSnapshot("a", "web", false)
	_, other := v.CreateVolume("data", 40*voltest.Chunk, false)
	err = errors.Join(err, other)
	for i, name := range []string{"web", "data"} {
		err = errors.Join(err, writeTo(v, name, byte(20+i)))
	}
	web, e := v.OpenVolume("web")
	if err = errors.Join(err, e); err != nil {
		t.Fatal(err)
	}
	err = web.Snapshot("mine")
	web.Release()
	if err := errors.Join(err, writeTo(v, "web", 30), v.Close()); err != nil {
		t.Fatal(err)
	}
	return disks, contentsOfAll(t, disks)
}

// writeTo writes to two chunks of a further volume.
func writeTo(v *virstor.Volume, name string, b byte) error {
	h, err := v.OpenVolume(name)
	if err != nil {
		return err
	}
	defer h.Release()
	_, err = h.WriteAt(bytes.Repeat([]byte{b}, 3*512), 3*voltest.Chunk-512)
	return err
}

// contentsOfAll are those of contents, and of the further volumes of the pool.
func contentsOfAll(t testing.TB, disks []*disktest.Disk) map[string][]byte {
	t.Helper()
	held := contents(t, disks)
	v := voltest.Open(t, virstor.Config{ReadOnly: true}, disks)
	defer v.Close()
	for _, i := range v.Volumes() {
		h, err := v.OpenVolume(i.Name)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, h.Size())
		if _, err := h.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
		held["/"+i.Name] = b
		for _, s := range h.Snapshots() {
			held["/"+i.Name+"@"+s.Name] = nil
		}
		h.Release()
	}
	return held
}

func allMustHold(t *testing.T, disks []*disktest.Disk, want map[string][]byte) {
	t.Helper()
	got := contentsOfAll(t, disks)
	for name, b := range want {
		if have, there := got[name]; !there || !bytes.Equal(have, b) {
			t.Errorf("%q holds something else (%d bytes, want %d)", name, len(have), len(b))
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d maps, want %d", len(got), len(want))
	}
	r, err := check.Inspect(ctx, voltest.Providers(disks), check.Options{})
	if err != nil || !r.Clean() {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestFurtherVolumesAreBackedUpAndRestored(t *testing.T) {
	disks, held := poolOfVolumes(t)
	b := take(t, disks)
	if got := b.Volumes(); !slices.Equal(got, []string{"/web", "/data"}) || !slices.Equal(b.Snapshots(), []string{"a", "b", "/web@mine"}) || b.LeftOut != nil {
		t.Fatalf("kept %v and %v, left out %v", got, b.Snapshots(), b.LeftOut)
	}
	read, err := backup.Read(bytes.NewReader(encode(t, b)))
	if err != nil || !reflect.DeepEqual(read, b) {
		t.Fatalf("read %+v, %v", read, err)
	}
	// Nothing is left of the maps, nor of what says where they are.
	for i := range b.Pool.Maps {
		for _, c := range b.Pool.Maps[i].List.Chunks {
			id, _ := b.Pool.Directory.Member(c.Number)
			at := slices.IndexFunc(b.Components, func(c backup.Component) bool { return c.Metadata.Member.ID == id })
			if !c.Hole {
				voltest.Write(t, disks[at], bytes.Repeat([]byte{0xff}, 512), int64(c.Chunk)*voltest.Chunk)
			}
		}
	}
	wipe(t, disks)
	rec := disktest.Record(disks...)
	if _, err := backup.Restore(ctx, voltest.Providers(disks), read, backup.RestoreOptions{Log: silent, InOrder: true}); err != nil {
		t.Fatal(err)
	}
	allMustHold(t, disks, held)
	for k := 0; k <= rec.Len(); k++ {
		again := rec.State(k, disktest.None)
		if _, err := backup.Restore(ctx, voltest.Providers(again), b, backup.RestoreOptions{Log: silent, InOrder: true}); err != nil {
			t.Fatalf("after %d: %v", k, err)
		}
		allMustHold(t, again, held)
	}
}

func TestOfAPoolInUseTheSameVolumesAreBackedUp(t *testing.T) {
	disks, _ := poolOfVolumes(t)
	stopped := take(t, disks)
	v := voltest.Open(t, virstor.Config{ReadOnly: true}, disks)
	defer v.Close()
	live, err := backup.FromVolume(ctx, v, noon)
	if err != nil {
		t.Fatal(err)
	}
	if stopped.Extension = nil; !bytes.Equal(encode(t, live), encode(t, stopped)) {
		t.Errorf("live %+v\nstopped %+v", live, stopped)
	}
}

func TestVolumesThatChangedSinceKeepABackupFromBeingRestored(t *testing.T) {
	for want, change := range map[string]func(*virstor.Volume) error{
		"1 virtual chunks were allocated since": func(v *virstor.Volume) error {
			h, err := v.OpenVolume("data")
			if err != nil {
				return err
			}
			defer h.Release()
			_, err = h.WriteAt([]byte{1}, 30*voltest.Chunk)
			return err
		},
		"1 virtual chunks lie elsewhere now": func(v *virstor.Volume) error {
			h, err := v.OpenVolume("web")
			if err != nil {
				return err
			}
			defer h.Release()
			_, err = h.WriteAt([]byte{1}, 0) // which the snapshot has
			return err
		},
		"snapshots or volumes were taken, which would be lost (/new)": func(v *virstor.Volume) error {
			_, err := v.CreateVolume("new", voltest.Chunk, false)
			return err
		},
		"snapshots or volumes were deleted, and what they alone had may be written over (/data)": func(v *virstor.Volume) error {
			return v.DeleteVolume("data")
		},
		"": func(v *virstor.Volume) error { return nil },
	} {
		disks, _ := poolOfVolumes(t)
		restoredByForce(t, disks, change, want)
	}
}

// What is made of a damaged snapshot is left out with it.
func TestADamagedSnapshotIsLeftOutWithItsClones(t *testing.T) {
	disks, held := poolOfVolumes(t)
	b := take(t, disks)
	c := b.Pool.Maps[0].List.Chunks[0]
	id, _ := b.Pool.Directory.Member(c.Number)
	at := slices.IndexFunc(b.Components, func(c backup.Component) bool { return c.Metadata.Member.ID == id })
	voltest.Write(t, disks[at], bytes.Repeat([]byte{0xff}, 512), int64(c.Chunk)*voltest.Chunk)
	b = take(t, disks)
	if !slices.Equal(b.LeftOut, []string{"a", "/web", "/web@mine"}) || !slices.Equal(b.Volumes(), []string{"/data"}) {
		t.Fatalf("kept %v, left out %v", b.Volumes(), b.LeftOut)
	}
	if _, err := backup.Restore(ctx, voltest.Providers(disks), b, backup.RestoreOptions{Log: silent, Force: true}); err != nil {
		t.Fatal(err)
	}
	for _, name := range b.LeftOut {
		delete(held, name)
	}
	allMustHold(t, disks, held)
}
