package repair_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/geomlib/virstor/check"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/voltest"
	"github.com/gvirstor/gvirstor/geomlib/virstor/repair"
	"github.com/gvirstor/gvirstor/ondisk"
)

func inspectAll(t *testing.T, disks []*disktest.Disk) *check.Report {
	t.Helper()
	r, err := check.Inspect(ctx, voltest.Providers(disks), check.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// mend does what is planned for disks, and gives what undoes it.
func mend(t *testing.T, disks []*disktest.Disk, c repair.Choices) (journal func() []byte) {
	t.Helper()
	plan := planOf(t, inspectAll(t, disks), c)
	if len(plan.Refusals) > 0 || !plan.Needed() {
		t.Fatalf("%+v", plan)
	}
	j, saved, err := repair.MemoryJournal(plan)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := repair.Apply(ctx, plan, j, silent); err != nil {
		t.Fatal(err)
	}
	return saved
}

// intact are the snapshots on disks that can be read.
func intact(t *testing.T, disks []*disktest.Disk) (names []string) {
	t.Helper()
	v := voltest.Open(t, virstor.Config{ReadOnly: true}, disks)
	defer v.Close()
	for _, s := range v.Snapshots() {
		if s.Err == nil {
			names = append(names, s.Name)
		}
	}
	return names
}

func spoilMap(t *testing.T, disks []*disktest.Disk, snapshot string) {
	t.Helper()
	d, off := voltest.MapOf(t, disks, snapshot, 0)
	voltest.Write(t, d, bytes.Repeat([]byte{0xff}, voltest.Sector), off)
}

func volumeHolds(t *testing.T, disks []*disktest.Disk) []byte {
	t.Helper()
	v := voltest.Open(t, virstor.Config{ReadOnly: true}, disks)
	defer v.Close()
	b := make([]byte, v.Size())
	if _, err := v.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestAVolumeIsMendedBesideItsSnapshots(t *testing.T) {
	disks := voltest.WithSnapshots(t)
	voltest.SetEntry(t, disks[0], 33, ondisk.Entry{Component: 40, Chunk: 3}, ondisk.LittleEndian) // garbage
	voltest.Spoil(t, disks[1], func(m *ondisk.Metadata) { m.ChunkNext = 9999 })
	mend(t, disks, repair.Choices{})
	if r := inspectAll(t, disks); !r.Clean() || len(r.Volumes[0].Snapshots) != 2 {
		t.Errorf("%+v", r)
	}
	if got := intact(t, disks); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("intact are %v", got)
	}
}

func TestADamagedSnapshotIsGivenUpOnlyWhenItIsNamed(t *testing.T) {
	disks := voltest.WithSnapshots(t)
	held := volumeHolds(t, disks)
	spoilMap(t, disks, "b")
	was := images(disks)
	plan := planOf(t, inspectAll(t, disks), repair.Choices{})
	if plan.Needed() || len(plan.Left) != 1 || !strings.Contains(plan.Left[0].Remedy, "copy it to another one") {
		t.Errorf("%+v", plan)
	}
	plan = planOf(t, inspectAll(t, disks), repair.Choices{GiveUp: []string{"a", "never"}})
	if len(plan.Refusals) != 2 || !strings.Contains(plan.Refusals[0].Text, "no damaged snapshot a, and an intact one is not given up here") {
		t.Errorf("%+v", plan)
	}
	saved := mend(t, disks, repair.Choices{GiveUp: []string{"b"}})
	if r := inspectAll(t, disks); !r.Clean() || !slices.Equal(intact(t, disks), []string{"a"}) {
		t.Errorf("%+v", r)
	}
	if !bytes.Equal(volumeHolds(t, disks), held) {
		t.Error("the volume holds something else")
	}
	opt := repair.UndoOptions{Partial: true} // the journal has no end
	if _, err := repair.Undo(ctx, bytes.NewReader(saved()), voltest.Providers(disks), opt); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(images(disks), was) {
		t.Error("undone it is not what it was")
	}
	// Once it is used, nothing that snapshots name is written over.
	saved = mend(t, disks, repair.Choices{GiveUp: []string{"b"}})
	if err := voltest.Open(t, virstor.Config{}, disks).Close(); err != nil {
		t.Fatal(err)
	}
	opt.Force = true
	_, err := repair.Undo(ctx, bytes.NewReader(saved()), voltest.Providers(disks), opt)
	mustBe(t, err, repair.ErrSnapshots)
}

func TestAnEntryIsNotKeptWhoseChunkSnapshotsHave(t *testing.T) {
	disks := voltest.WithSnapshots(t)
	// 17 was given up behind snapshot a, which has it still: the entry without its flag may
	// come back. The chunk of 33 is one of a's map.
	lost := voltest.Entry(t, disks[0], 51)
	lost.Flags = 0
	voltest.SetEntry(t, disks[0], 51, lost, ondisk.LittleEndian)
	d, off := voltest.MapOf(t, disks, "a", 0)
	voltest.SetEntry(t, disks[0], 33, ondisk.Entry{Component: uint16(slices.Index(disks, d)), Chunk: uint32(off / voltest.Chunk)}, ondisk.LittleEndian)
	plan := planOf(t, inspectAll(t, disks), repair.Choices{Keep: []uint64{33, 51}})
	if len(plan.Refusals) != 1 || !strings.Contains(plan.Refusals[0].Text, "virtual chunk 33 cannot be kept: snapshots have its chunk") {
		t.Errorf("%+v", plan)
	}
	mend(t, disks, repair.Choices{Keep: []uint64{51}, Drop: []uint64{33}})
	if r := inspectAll(t, disks); !r.Clean() || !slices.Equal(intact(t, disks), []string{"a", "b"}) {
		t.Errorf("%+v", r)
	}
}

// The map of the snapshot that a volume is rolled back to is lost at every moment of that.
func TestARollbackWhoseSnapshotIsLostEndsWithARepair(t *testing.T) {
	before := voltest.WithSnapshots(t)
	after := voltest.Clone(before)
	rec := disktest.Record(after...)
	var ms []virstor.Member
	for _, d := range after {
		ms = append(ms, virstor.Member{Provider: d, Metadata: voltest.Metadata(t, d)})
	}
	if err := virstor.Rollback(virstor.Assemble(ms)[0], "a", true, silent); err != nil {
		t.Fatal(err)
	}
	was, then := volumeHolds(t, before), volumeHolds(t, after)
	opened, proved, repaired := 0, 0, 0
	for k := range rec.Len() + 1 {
		disks := rec.State(k, disktest.All)
		spoilMap(t, disks, "a")
		r := inspectAll(t, disks)
		prevents := slices.ContainsFunc(r.Findings, func(f check.Finding) bool { return f.Code == check.SnapshotDamaged && f.Prevents })
		v, err := voltest.TryOpen(virstor.Config{}, voltest.Clone(disks))
		if (err != nil) != prevents {
			t.Fatalf("at %d: opened: %v; %+v", k, err, r.Findings)
		}
		if err == nil {
			b := make([]byte, v.Size())
			if _, err := v.ReadAt(b, 0); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(b, was) && !bytes.Equal(b, then) {
				t.Errorf("at %d: the volume is neither what it was nor what it is to be", k)
			}
			if err := v.Close(); err != nil {
				t.Fatal(err)
			}
			if opened++; slices.ContainsFunc(r.Findings, func(f check.Finding) bool { return f.Code == check.IntentPending }) {
				proved++ // by what was copied
			}
			continue
		}
		repaired++
		mend(t, disks, repair.Choices{GiveUp: []string{"a"}})
		got := volumeHolds(t, disks)
		for at := 0; at < len(got); at += voltest.Chunk {
			if b := got[at : at+voltest.Chunk]; !bytes.Equal(b, was[at:at+voltest.Chunk]) && !bytes.Equal(b, then[at:at+voltest.Chunk]) {
				t.Errorf("at %d: chunk %d is neither what it was nor what it was to be", k, at/voltest.Chunk)
			}
		}
		if r := inspectAll(t, disks); !r.Clean() || !slices.Equal(intact(t, disks), []string{"b"}) {
			t.Errorf("at %d: %+v", k, r)
		}
	}
	if opened < 3 || proved == 0 || repaired == 0 {
		t.Errorf("%d opened, %d of them amid the rollback, %d repaired", opened, proved, repaired)
	}
}

// withVolumes is voltest.WithSnapshots with a clone of a, written to, and a volume of its own.
func withVolumes(t *testing.T) []*disktest.Disk {
	t.Helper()
	disks := voltest.WithSnapshots(t)
	v := voltest.Open(t, virstor.Config{}, disks)
	_, cloned := v.CloneSnapshot("a", "web", false)
	_, err := v.CreateVolume("db", 8*voltest.Chunk, false)
	if err = errors.Join(cloned, err); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"web", "db"} {
		h, err := v.OpenVolume(name)
		if err != nil {
			t.Fatal(err)
		}
		_, err = h.WriteAt(bytes.Repeat([]byte{name[0]}, 4096), 2*voltest.Chunk)
		err = errors.Join(err, h.Snapshot("s"))
		h.Release()
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	return disks
}

func TestADamagedSnapshotThatHasClonesIsGivenUpAfterThem(t *testing.T) {
	disks := withVolumes(t)
	spoilMap(t, disks, "a")
	was := images(disks)
	giveUp := repair.Choices{GiveUp: []string{"a"}}
	r := inspectAll(t, disks)
	if i := slices.IndexFunc(r.Findings, func(f check.Finding) bool { return f.Code == check.SnapshotDamaged }); i < 0 ||
		!strings.Contains(r.Findings[i].Remedy, "vol/web, which began as it") || !strings.Contains(r.Findings[i].Remedy, "copy what they have") {
		t.Errorf("%+v", r.Findings)
	}
	if plan := planOf(t, r, giveUp); len(plan.Refusals) != 1 || !strings.Contains(plan.Refusals[0].Text, "needed by what began as it: vol/web") {
		t.Errorf("%+v", plan)
	}
	if !slices.Equal(images(disks), was) {
		t.Error("the disks have changed")
	}
	v := voltest.Open(t, virstor.Config{}, disks)
	h, err := v.OpenVolume("web")
	if err != nil {
		t.Fatal(err)
	}
	err = h.DeleteSnapshot("s")
	h.Release()
	if err := errors.Join(err, v.DeleteVolume("web"), v.Close()); err != nil {
		t.Fatal(err)
	}
	mend(t, disks, giveUp)
	if got, err := poolHolds(disks); err != nil || len(got) != 3 {
		t.Errorf("%v, %v", got, err)
	}
}

// openPool opens the volume for reading, whatever else lies on disks.
func openPool(disks []*disktest.Disk) (*virstor.Volume, error) {
	var members []virstor.Member
	for _, d := range disks {
		m, err := geomlib.ReadMetadata(d)
		if err != nil || m.Name != voltest.Name {
			continue
		}
		members = append(members, virstor.Member{Provider: d, Metadata: m})
	}
	as := virstor.Assemble(members)
	if len(as) != 1 {
		return nil, fmt.Errorf("%d volumes", len(as))
	}
	return virstor.Open(as[0], virstor.Config{ReadOnly: true})
}

const isDamaged = "damaged"

// poolHolds is what every snapshot and further volume on disks reads as, by name; isDamaged
// for what says that it is.
func poolHolds(disks []*disktest.Disk) (map[string]string, error) {
	v, err := openPool(disks)
	if err != nil {
		return nil, err
	}
	defer v.Close()
	holds := make(map[string]string)
	names := []string{""}
	for _, i := range v.Volumes() {
		names = append(names, i.Name)
	}
	for _, name := range names {
		h, err := v.OpenVolume(name)
		if err != nil {
			holds["/"+name] = holdsOf(nil, 0, err)
			continue
		}
		if name != "" {
			holds["/"+name] = holdsOf(submitted{h}, h.Size(), nil)
		}
		for _, i := range h.Snapshots() {
			s, err := h.OpenSnapshot(i.Name)
			holds["/"+name+"@"+i.Name] = holdsOf(submitted{s}, i.Size, err)
			if err == nil {
				s.Close()
			}
		}
		h.Release()
	}
	return holds, nil
}

// submitted reads what requests are submitted to.
type submitted struct {
	to interface{ Submit(*virstor.Request) }
}

func (s submitted) ReadAt(p []byte, off int64) (int, error) {
	done := make(completed, 1)
	r := &virstor.Request{Op: virstor.OpRead, Offset: off, Length: int64(len(p)), Data: p, Flags: virstor.MayBlock, Done: done}
	s.to.Submit(r)
	<-done
	if r.Err != nil {
		return 0, r.Err
	}
	return len(p), nil
}

type completed chan struct{}

func (c completed) Complete(*virstor.Request) { c <- struct{}{} }

func holdsOf(r io.ReaderAt, size int64, err error) string {
	h := sha256.New()
	if err == nil {
		_, err = io.Copy(h, io.NewSectionReader(r, 0, size))
	}
	if errors.Is(err, virstor.ErrDamaged) {
		return isDamaged
	}
	if err != nil {
		return err.Error()
	}
	return hex.EncodeToString(h.Sum(nil))[:8]
}

// Whatever is damaged of a pool, no repair loses a snapshot or a further volume, and none is
// served as what it was not, but for what check has called damaged.
func TestNoRepairLosesASnapshotOrAVolume(t *testing.T) {
	whole := withVolumes(t)
	want, err := poolHolds(whole)
	if err != nil || len(want) != 6 {
		t.Fatal(want, err)
	}
	repaired := 0
	for _, d := range poolDamages {
		t.Run(d.name, func(t *testing.T) {
			disks := d.do(t, voltest.Clone(whole))
			r := inspectAll(t, disks)
			if slices.ContainsFunc(r.Volumes, func(v *check.Volume) bool { return v.Name != voltest.Name }) {
				return
			}
			plan := planOf(t, r, d.choices)
			if len(plan.Refusals) > 0 {
				return
			}
			j, _, err := repair.MemoryJournal(plan)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := repair.Apply(ctx, plan, j, silent); err != nil {
				t.Fatalf("repair: %v", err)
			}
			repaired++
			got, err := poolHolds(disks)
			if err != nil {
				t.Fatal(err)
			}
			for name, holds := range want {
				if got[name] != holds && got[name] != isDamaged {
					t.Errorf("%s holds %q, was %q", name, got[name], holds)
				}
			}
		})
	}
	if repaired < 20 {
		t.Errorf("%d damages were repaired", repaired)
	}
}

// poolDamages are those of the matrix, and those of what a pool alone has.
var poolDamages = append(slices.Clone(matrix),
	damage{name: "fewer reserved chunks", do: meta(0, func(m *ondisk.Metadata) { m.ChunkReserved-- })},
	damage{name: "more reserved chunks", do: meta(0, func(m *ondisk.Metadata) { m.ChunkReserved++ })},
	damage{name: "another size", do: meta(0, func(m *ondisk.Metadata) { m.VirtualSize += voltest.Chunk })},
	damage{name: "the map of a snapshot", do: func(t *testing.T, d []*disktest.Disk) []*disktest.Disk {
		spoilMap(t, d, "b")
		return d
	}},
)
