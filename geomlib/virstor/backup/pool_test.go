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
		"what its snapshots have was moved or renamed":                func(v *virstor.Volume) error { return v.RenameSnapshot("a", "z") },
		"snapshots were taken, which would be lost (a)":               func(v *virstor.Volume) error { return errors.Join(v.DeleteSnapshot("a"), v.Snapshot("a")) },
		"": func(*virstor.Volume) error { return nil },
	} {
		disks, _ := pool(t)
		b := take(t, disks)
		v := voltest.Open(t, virstor.Config{}, disks)
		if err := errors.Join(change(v), v.Close()); err != nil {
			t.Fatal(err)
		}
		_, err := backup.Restore(ctx, voltest.Providers(disks), b, backup.RestoreOptions{Log: silent})
		if want == "" {
			mustBe(t, err, nil)
			continue
		}
		if mustBe(t, err, backup.ErrNewer); !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
		if _, err := backup.Restore(ctx, voltest.Providers(disks), b, backup.RestoreOptions{Log: silent, Force: true}); err != nil {
			t.Error(err)
		}
		v = voltest.Open(t, virstor.Config{ReadOnly: true}, disks)
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
