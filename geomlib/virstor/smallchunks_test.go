package virstor_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/geomlib/virstor/backup"
	"github.com/gvirstor/gvirstor/geomlib/virstor/check"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/voltest"
	"github.com/gvirstor/gvirstor/geomlib/virstor/repair"
	"github.com/gvirstor/gvirstor/ondisk"
)

const smallChunk = ondisk.SmallChunkMultiple

// labelSmall makes a volume of 32 chunks of 64 KiB on two disks.
func labelSmall(t testing.TB) []*disktest.Disk {
	t.Helper()
	r := ondisk.LabelRequest{Name: voltest.Name, VirtualSize: 64 * smallChunk, ChunkSize: smallChunk, ID: voltest.ID, SmallChunks: true}
	var disks []*disktest.Disk
	for i, size := range []int64{40, 50} {
		d := disktest.New(fmt.Sprintf("p%d", i), size*smallChunk+4096, 512).FillJunk(uint64(i + 1))
		disks = append(disks, d)
		r.Providers = append(r.Providers, ondisk.LabelProvider{Name: d.Name(), Size: d.MediaSize(), SectorSize: 512})
	}
	l, err := ondisk.Plan(r)
	if err == nil {
		err = virstor.Label(context.Background(), voltest.Providers(disks), l, virstor.LabelOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	return disks
}

// clean fails unless nothing is found wrong with what is on disks.
func clean(t testing.TB, disks []*disktest.Disk) {
	t.Helper()
	r, err := check.Inspect(context.Background(), voltest.Providers(disks), check.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range r.Findings {
		if f.Severity > check.Info {
			t.Errorf("%+v", f)
		}
	}
}

func TestSmallChunksAreNeverHandedBack(t *testing.T) {
	disks := labelSmall(t)
	if m := voltest.Metadata(t, disks[0]); m.Version != ondisk.VersionFenced || m.ChunkReserved != 3 || !m.Member.Exists() {
		t.Errorf("%+v", m)
	}
	clean(t, disks)
	v := voltest.Open(t, virstor.Config{}, disks)
	_, err := v.WriteAt(bytes.Repeat([]byte{1}, 3*smallChunk), smallChunk/2)
	if err := errors.Join(err, v.Snapshot("a"), v.DeleteSnapshot("a")); err != nil {
		t.Fatal(err)
	}
	var kept *virstor.NotHandedBackError
	if err := v.Stop(); !errors.As(err, &kept) || len(kept.Reasons) != 1 || !strings.Contains(kept.Reasons[0], "its chunks of 65536 bytes are smaller") {
		t.Fatal(err)
	}
	for _, d := range disks {
		if m := voltest.Metadata(t, d); m.Version != ondisk.VersionFenced {
			t.Errorf("version %d", m.Version)
		}
	}
	clean(t, disks)
}

func TestSmallChunksAreBackedUpRestoredAndRepaired(t *testing.T) {
	disks := labelSmall(t)
	v := voltest.Open(t, virstor.Config{}, disks)
	want := bytes.Repeat([]byte{7}, 5*smallChunk)
	_, err := v.WriteAt(want, 0)
	if err := errors.Join(err, v.Snapshot("a"), v.Close()); err != nil {
		t.Fatal(err)
	}
	var ms []virstor.Member
	for _, d := range disks {
		ms = append(ms, virstor.Member{Provider: d, Metadata: voltest.Metadata(t, d)})
	}
	b, err := backup.FromAssembly(context.Background(), virstor.Assemble(ms)[0], time.Now(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range disks {
		voltest.Write(t, d, make([]byte, 512), d.MediaSize()-512)
	}
	voltest.Write(t, disks[0], bytes.Repeat([]byte{0xff}, 512), 0)
	silent := slog.New(slog.DiscardHandler)
	if _, err := backup.Restore(context.Background(), voltest.Providers(disks), b, backup.RestoreOptions{Log: silent}); err != nil {
		t.Fatal(err)
	}
	clean(t, disks)
	voltest.SetEntry(t, disks[0], 60, ondisk.Entry{Component: 40, Chunk: 3}, ondisk.LittleEndian) // garbage
	r, err := check.Inspect(context.Background(), voltest.Providers(disks), check.Options{})
	if err != nil {
		t.Fatal(err)
	}
	plans, err := repair.Make(r, repair.Choices{})
	if err != nil || len(plans) != 1 || !plans[0].Needed() {
		t.Fatal(plans, err)
	}
	j, err := repair.CreateJournal(filepath.Join(t.TempDir(), "journal"), plans[0], time.Now())
	if err == nil {
		_, err = repair.Apply(context.Background(), plans[0], j, silent)
		err = errors.Join(err, j.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	clean(t, disks)
	v = voltest.Open(t, virstor.Config{ReadOnly: true}, disks)
	defer v.Close()
	got := make([]byte, len(want))
	if _, err := v.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) || len(v.Snapshots()) != 1 {
		t.Error(err, v.Snapshots())
	}
}

// smallState is what a volume and its snapshots hold.
type smallState struct {
	head  []byte
	snaps map[string][]byte
}

func (s smallState) clone() smallState {
	return smallState{bytes.Clone(s.head), maps.Clone(s.snaps)}
}

// smallOp does something at random, and makes s what it is then.
func smallOp(rng *rand.Rand, v *virstor.Volume, s *smallState, i int) error {
	off := rng.Int64N(int64(len(s.head))/512) * 512
	n := min(512*(1+rng.Int64N(3*smallChunk/512)), int64(len(s.head))-off)
	switch k := rng.IntN(10); {
	case k < 5:
		b := bytes.Repeat([]byte{byte(i + 1)}, int(n))
		copy(s.head[off:], b)
		_, err := v.WriteAt(b, off)
		return err
	case k < 6:
		off, n = off/smallChunk*smallChunk, (n+smallChunk-1)/smallChunk*smallChunk
		n = min(n, int64(len(s.head))-off)
		clear(s.head[off : off+n])
		return v.Discard(off, n)
	case k < 8 && len(s.snaps) < 3:
		name := fmt.Sprint("s", i)
		s.snaps[name] = bytes.Clone(s.head)
		return v.Snapshot(name)
	case len(s.snaps) > 0:
		name := slices.Sorted(maps.Keys(s.snaps))[rng.IntN(len(s.snaps))]
		delete(s.snaps, name)
		return v.DeleteSnapshot(name)
	}
	return nil
}

// agrees tells what of disks can be neither before nor after.
func (s smallState) agrees(after smallState, disks []*disktest.Disk) error {
	v, err := voltest.TryOpen(virstor.Config{}, disks)
	if err != nil {
		return err
	}
	defer v.Close()
	got := make([]byte, len(s.head))
	if _, err := v.ReadAt(got, 0); err != nil {
		return err
	}
	for at := 0; at < len(got); at += 512 {
		if had := got[at : at+512]; !bytes.Equal(had, s.head[at:at+512]) && !bytes.Equal(had, after.head[at:at+512]) {
			return fmt.Errorf("the sector at %d holds %d, it had %d, and was to have %d", at, had[0], s.head[at], after.head[at])
		}
	}
	there := make(map[string]bool)
	for _, info := range v.Snapshots() {
		want, was := s.snaps[info.Name]
		if !was {
			if want, was = after.snaps[info.Name]; !was {
				return fmt.Errorf("snapshot %s is there", info.Name)
			}
		}
		there[info.Name] = true
		w, err := v.OpenSnapshot(info.Name)
		if err != nil {
			return err
		}
		b := make([]byte, w.Size())
		_, err = w.ReadAt(b, 0)
		if w.Close(); err != nil || !bytes.Equal(b, want) {
			return fmt.Errorf("snapshot %s holds something else: %v", info.Name, err)
		}
	}
	for name := range s.snaps {
		if _, stays := after.snaps[name]; stays && !there[name] {
			return fmt.Errorf("snapshot %s is lost", name)
		}
	}
	return nil
}

func TestPowerLossWithSmallChunksIsSurvived(t *testing.T) {
	t.Parallel()
	seeds := uint64(3)
	if testing.Short() {
		seeds = 1
	}
	states := 0
	for seed := range seeds {
		rng := rand.New(rand.NewPCG(seed, 64))
		disks := labelSmall(t)
		v := voltest.Open(t, virstor.Config{}, disks)
		rec := disktest.Record(disks...)
		now := smallState{make([]byte, v.Size()), make(map[string][]byte)}
		was := []smallState{now.clone()} // before each operation
		var ends []int
		for i := range 25 {
			if err := smallOp(rng, v, &now, i); err != nil {
				t.Fatal(err)
			}
			if err := v.Flush(); err != nil {
				t.Fatal(err)
			}
			ends, was = append(ends, rec.Len()), append(was, now.clone())
		}
		for l := range rec.PowerLosses(disktest.Prefix, 4, rng) {
			states++
			i, _ := slices.BinarySearch(ends, l.At)
			after := was[min(i+1, len(was)-1)]
			if i > 0 && ends[i-1] == l.At {
				i--
			}
			if err := was[i].agrees(after, rec.State(l.At, l.Pick)); err != nil {
				t.Fatalf("seed %d, %s, in operation %d: %v", seed, l, i, err)
			}
		}
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d states", states)
}
