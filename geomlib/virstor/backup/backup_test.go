package backup_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/geomlib/virstor/backup"
	"github.com/gvirstor/gvirstor/geomlib/virstor/check"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/voltest"
	"github.com/gvirstor/gvirstor/ondisk"
)

var (
	ctx    = context.Background()
	silent = slog.New(slog.DiscardHandler)
	noon   = time.Date(2024, 5, 6, 12, 0, 0, 0, time.UTC)
)

func assembly(t testing.TB, disks []*disktest.Disk) *virstor.Assembly {
	t.Helper()
	var ms []virstor.Member
	for _, d := range disks {
		ms = append(ms, virstor.Member{Provider: d, Metadata: voltest.Metadata(t, d)})
	}
	return virstor.Assemble(ms)[0]
}

func take(t testing.TB, disks []*disktest.Disk) *backup.Backup {
	t.Helper()
	b, err := backup.FromAssembly(ctx, assembly(t, disks), noon, nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func encode(t testing.TB, b *backup.Backup) []byte {
	t.Helper()
	var w bytes.Buffer
	if err := b.Write(&w); err != nil {
		t.Fatal(err)
	}
	return w.Bytes()
}

func mustBe(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
}

func wipe(t testing.TB, disks []*disktest.Disk) {
	t.Helper()
	for _, d := range disks {
		voltest.Write(t, d, make([]byte, d.SectorSize()), d.MediaSize()-int64(d.SectorSize()))
	}
}

func TestABackupReadsBackAsItWas(t *testing.T) {
	for _, handedBack := range []bool{true, false} {
		disks, _ := voltest.New(t, handedBack)
		b := take(t, disks)
		if b.Allocated() != 24 || b.Name() != voltest.Name || b.ID() != voltest.ID || (b.Extension == nil) != handedBack {
			t.Errorf("%+v", b)
		}
		got, err := backup.Read(bytes.NewReader(encode(t, b)))
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, b) {
			t.Errorf("read %+v\nwant %+v", got, b)
		}
	}
}

func TestOfAVolumeInUseAndStoppedTheSameIsBackedUp(t *testing.T) {
	disks, _ := voltest.New(t, false)
	v := voltest.Open(t, virstor.Config{}, disks)
	live, err := backup.FromVolume(ctx, v, noon)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	stopped := take(t, disks)
	stopped.Extension = nil
	for i := range live.Components { // closing it is a generation of its own
		was, is := &live.Components[i].Metadata.Member, &stopped.Components[i].Metadata.Member
		if is.ID != was.ID || is.Generation != was.Generation+1 {
			t.Errorf("component %d: %+v, was %+v", i, is, was)
		}
		*was = *is
	}
	if !reflect.DeepEqual(live, stopped) {
		t.Errorf("live %+v\nstopped %+v", live, stopped)
	}
}

func TestTheKernelsVolumeIsSmallInABackup(t *testing.T) {
	b := encode(t, take(t, voltest.Golden(t, "../../../tests/testdata/golden")))
	if len(b) > 2000 {
		t.Errorf("%d bytes", len(b))
	}
}

func TestRestoreBringsAWipedVolumeBack(t *testing.T) {
	for _, handedBack := range []bool{true, false} {
		disks, data := voltest.New(t, handedBack)
		b := take(t, disks)
		wipe(t, disks)
		voltest.Write(t, disks[0], bytes.Repeat([]byte{0xff}, 1024), 0)
		disks[0], disks[2] = disks[2], disks[0] // their order does not matter
		res, err := backup.Restore(ctx, voltest.Providers(disks), b, backup.RestoreOptions{Log: silent, RunDir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(res.Providers, " "); got != "p0 p1 p2" || res.StaysFenced != nil {
			t.Errorf("%+v", res)
		}
		r, err := check.Inspect(ctx, voltest.Providers(disks), check.Options{})
		if err != nil || !r.Clean() || (r.Volumes[0].Fence == check.FenceNone) != handedBack {
			t.Errorf("%+v, %v", r, err)
		}
		voltest.MustHold(t, disks, data)
	}
}

func TestRestoreRefusesWhatDoesNotFit(t *testing.T) {
	whole, _ := voltest.New(t, false)
	b := take(t, whole)
	rows := []struct {
		name string
		do   func(d []*disktest.Disk) []*disktest.Disk
		want error
		opt  backup.RestoreOptions
		text string
	}{
		{name: "one missing", do: func(d []*disktest.Disk) []*disktest.Disk { return d[:2] }, want: backup.ErrProviders, text: "p0 p1 p2"},
		{name: "another volume", do: func(d []*disktest.Disk) []*disktest.Disk {
			voltest.SetMetadata(t, d[1], func(m *ondisk.Metadata) { m.ID = 5 })
			return d
		}, want: backup.ErrProviders, text: "p1 is a component of vol (id 00000005)"},
		{name: "another size", do: func(d []*disktest.Disk) []*disktest.Disk {
			d[1] = disktest.New("p1", 33*voltest.Chunk, 512)
			return d
		}, want: backup.ErrProviders, text: "component 1 (p1, 2625536 bytes"},
		{name: "another size, in order", do: func(d []*disktest.Disk) []*disktest.Disk {
			d[1] = disktest.New("p1", 33*voltest.Chunk, 512)
			return d
		}, want: backup.ErrProviders, opt: backup.RestoreOptions{InOrder: true}, text: "p1 has 4325376 bytes"},
		{name: "other sectors", do: func(d []*disktest.Disk) []*disktest.Disk {
			d[1] = disktest.New("p1", d[1].MediaSize(), 4096)
			return d
		}, want: backup.ErrProviders, opt: backup.RestoreOptions{InOrder: true}, text: "sectors of 4096"},
		{name: "allocated since", do: func(d []*disktest.Disk) []*disktest.Disk {
			v := voltest.Open(t, virstor.Config{}, d)
			if _, err := v.WriteAt([]byte("new"), 3*voltest.Chunk); err != nil {
				t.Fatal(err)
			}
			if err := v.Close(); err != nil {
				t.Fatal(err)
			}
			return d
		}, want: backup.ErrNewer, text: "1 virtual chunks were allocated since"},
		{name: "component added since", do: func(d []*disktest.Disk) []*disktest.Disk {
			voltest.SetMetadata(t, d[0], func(m *ondisk.Metadata) { m.Count = 4 })
			return d
		}, want: backup.ErrNewer, text: "4 components now and had 3"},
		{name: "resized since", do: func(d []*disktest.Disk) []*disktest.Disk {
			voltest.SetMetadata(t, d[0], func(m *ondisk.Metadata) { m.VirtualSize *= 2 })
			return d
		}, want: backup.ErrNewer, text: "virtual size"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			disks := row.do(voltest.Clone(whole))
			for _, d := range disks {
				d.ResetCounts()
			}
			row.opt.Log = silent
			_, err := backup.Restore(ctx, voltest.Providers(disks), b, row.opt)
			mustBe(t, err, row.want)
			if err != nil && !strings.Contains(err.Error(), row.text) {
				t.Errorf("error %q does not say %q", err, row.text)
			}
			for _, d := range disks {
				if d.Count(disktest.Write) != 0 {
					t.Errorf("%s was written to", d.Name())
				}
			}
			if row.want == backup.ErrNewer {
				row.opt.Force = true
				if _, err := backup.Restore(ctx, voltest.Providers(disks), b, row.opt); err != nil {
					t.Errorf("forced: %v", err)
				}
			}
		})
	}
}

func TestRestoreRefusesAServedVolume(t *testing.T) {
	disks, _ := voltest.New(t, false)
	b := take(t, disks)
	dir := t.TempDir()
	lock, err := geomlib.LockVolume(dir, b.ID())
	if err != nil {
		t.Fatal(err)
	}
	_, err = backup.Restore(ctx, voltest.Providers(disks), b, backup.RestoreOptions{RunDir: dir, Log: silent})
	mustBe(t, err, geomlib.ErrLocked)
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err = backup.Restore(ctx, voltest.Providers(disks), b, backup.RestoreOptions{RunDir: dir, Log: silent}); err != nil {
		t.Error(err)
	}
}

func TestAnInterruptedRestoreCanBeDoneAgain(t *testing.T) {
	disks, data := voltest.New(t, true)
	b := take(t, disks)
	voltest.SetEntry(t, disks[0], 0, ondisk.Entry{Flags: 0xff}, ondisk.LittleEndian)
	rec := disktest.Record(disks...)
	if _, err := backup.Restore(ctx, voltest.Providers(disks), b, backup.RestoreOptions{Log: silent}); err != nil {
		t.Fatal(err)
	}
	for k := 0; k <= rec.Len(); k++ {
		for _, pick := range []disktest.Pick{disktest.All, disktest.None} {
			again := rec.State(k, pick)
			if _, err := backup.Restore(ctx, voltest.Providers(again), b, backup.RestoreOptions{Log: silent}); err != nil {
				t.Fatalf("after %d: %v", k, err)
			}
			voltest.MustHold(t, again, data)
		}
	}
}

func TestADamagedVolumeIsNotBackedUp(t *testing.T) {
	rows := map[string]func(d []*disktest.Disk){
		"shared chunk": func(d []*disktest.Disk) {
			voltest.SetEntry(t, d[0], 0, voltest.Entry(t, d[0], 17), ondisk.LittleEndian)
		},
		"out of range": func(d []*disktest.Disk) {
			voltest.SetEntry(t, d[0], 0, ondisk.Entry{Flags: 1, Component: 9}, ondisk.LittleEndian)
		},
		"flags": func(d []*disktest.Disk) { voltest.SetEntry(t, d[0], 1, ondisk.Entry{Flags: 4}, ondisk.LittleEndian) },
		"metadata": func(d []*disktest.Disk) {
			voltest.SetMetadata(t, d[0], func(m *ondisk.Metadata) { m.ChunkReserved = 0 })
		},
	}
	whole, _ := voltest.New(t, true)
	for name, do := range rows {
		t.Run(name, func(t *testing.T) {
			disks := voltest.Clone(whole)
			do(disks)
			_, err := backup.FromAssembly(ctx, assembly(t, disks), noon, nil)
			mustBe(t, err, backup.ErrDamaged)
		})
	}
}

func TestKeepRotatesAndSkipsWhatHasNotChanged(t *testing.T) {
	disks, _ := voltest.New(t, false)
	dir := filepath.Join(t.TempDir(), "odd [name]*", "db")
	b := take(t, disks)
	first, err := backup.Keep(dir, b, 3)
	if err != nil {
		t.Fatal(err)
	}
	b.Time = noon.Add(time.Hour)
	if again, err := backup.Keep(dir, b, 3); err != nil || again != first {
		t.Errorf("%s, %v", again, err)
	}
	var last string
	for i := range 5 {
		b.Runs = b.Runs[1:]
		b.Time = noon.Add(-time.Duration(i) * time.Hour) // a clock that goes backwards
		if last, err = backup.Keep(dir, b, 3); err != nil {
			t.Fatal(err)
		}
	}
	kept, err := backup.List(dir, b.ID())
	if err != nil || len(kept) != 3 || kept[2] != last {
		t.Errorf("kept %q, last %s, %v", kept, last, err)
	}
	got, err := backup.Load(last)
	if err != nil || !reflect.DeepEqual(got.Runs, b.Runs) {
		t.Errorf("%+v, %v", got, err)
	}
	all, err := os.ReadDir(dir)
	if err != nil || len(all) != 3 {
		t.Errorf("%d files, %v", len(all), err)
	}
}

func TestDamagedFilesAreRefused(t *testing.T) {
	disks, _ := voltest.New(t, false)
	good := encode(t, take(t, disks))
	rapid.Check(t, func(rt *rapid.T) {
		b := bytes.Clone(good)
		if rapid.Bool().Draw(rt, "cut") {
			b = b[:rapid.IntRange(0, len(b)-1).Draw(rt, "at")]
		} else {
			b[rapid.IntRange(0, len(b)-1).Draw(rt, "at")] ^= byte(rapid.IntRange(1, 255).Draw(rt, "by"))
		}
		if _, err := backup.Read(bytes.NewReader(b)); !errors.Is(err, backup.ErrFormat) {
			rt.Fatalf("error %v", err)
		}
	})
}

// FuzzReadAndRestore seals what it is given, so that what comes after the checksum is
// reached.
func FuzzReadAndRestore(f *testing.F) {
	disks, _ := voltest.New(f, false)
	good := encode(f, take(f, disks))
	f.Add(good[:len(good)-sha256.Size])
	f.Fuzz(func(t *testing.T, b []byte) {
		sum := sha256.Sum256(b)
		got, err := backup.Read(bytes.NewReader(append(bytes.Clone(b), sum[:]...)))
		if err != nil {
			mustBe(t, err, backup.ErrFormat)
			return
		}
		again, err := backup.Read(bytes.NewReader(encode(t, got)))
		if err != nil || !reflect.DeepEqual(again, got) {
			t.Fatalf("%+v, %v", again, err)
		}
		ps := voltest.Providers(voltest.Clone(disks))
		if _, err := backup.Restore(ctx, ps, got, backup.RestoreOptions{Force: true, InOrder: true, Log: silent}); err != nil && !errors.Is(err, backup.ErrProviders) {
			t.Error(err)
		}
	})
}

func TestARestoredVolumeIsOfAGenerationAboveAllThatWereSeen(t *testing.T) {
	disks, _ := voltest.New(t, false)
	b := take(t, disks)
	for _, above := range []uint64{0, 1000} {
		was := assembly(t, disks).Settled
		if _, err := backup.Restore(ctx, voltest.Providers(disks), b, backup.RestoreOptions{Log: silent, Above: above}); err != nil {
			t.Fatal(err)
		}
		if is := assembly(t, disks).Settled; is <= max(was, above) {
			t.Errorf("generation %d, on the components was %d, and this host served %d", is, was, above)
		}
	}
}

func TestThatAVolumeOnlyGrewOlderIsNoReasonForAnotherBackup(t *testing.T) {
	disks, _ := voltest.New(t, false)
	dir := t.TempDir()
	first, err := backup.Keep(dir, take(t, disks), 3)
	if err != nil {
		t.Fatal(err)
	}
	was := take(t, disks).Generation()
	if err := voltest.Open(t, virstor.Config{}, disks).Close(); err != nil {
		t.Fatal(err)
	}
	b := take(t, disks)
	if b.Generation() <= was {
		t.Fatalf("generation %d, then %d", was, b.Generation())
	}
	if again, err := backup.Keep(dir, b, 3); err != nil || again != first {
		t.Errorf("%s, %v", again, err)
	}
	b.Components[1].Metadata.Member.ID++ // another disk of the same name
	if again, err := backup.Keep(dir, b, 3); err != nil || again == first {
		t.Errorf("%s, %v", again, err)
	}
}

func TestADamagedMemberBlockDoesNotKeepABackupFromBeingRestored(t *testing.T) {
	disks, data := voltest.New(t, false)
	b := take(t, disks)
	for _, d := range disks {
		voltest.Spoil(t, d, func(m *ondisk.Metadata) { m.ChunkNext++ })
	}
	if _, err := backup.Restore(ctx, voltest.Providers(disks), b, backup.RestoreOptions{Log: silent}); err != nil {
		t.Fatal(err)
	}
	voltest.MustHold(t, disks, data)
}
