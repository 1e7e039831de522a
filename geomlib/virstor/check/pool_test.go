package check_test

import (
	"bytes"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/geomlib/virstor/check"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/voltest"
	"github.com/gvirstor/gvirstor/geomlib/virstor/repair"
	"github.com/gvirstor/gvirstor/ondisk"
)

// inPool is where the directory in force lies, and the map of its last snapshot, in
// bytes on one of disks.
func inPool(t *testing.T, disks []*disktest.Disk) (directory, last pooled) {
	t.Helper()
	byID := make(map[uint64]*disktest.Disk)
	for _, d := range disks {
		byID[voltest.Metadata(t, d).Member.ID] = d
	}
	read := func(kind ondisk.ChainKind, first ondisk.Link) []byte {
		c, err := ondisk.NewChain(kind, first, voltest.Chunk)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, voltest.Chunk)
		if _, err := byID[first.Member].ReadAt(b, int64(first.Chunk)*voltest.Chunk); err != nil {
			t.Fatal(err)
		}
		if err := c.Take(b[:first.Length]); err != nil {
			t.Fatal(err)
		}
		return c.Contents()
	}
	rec, _, err := virstor.Record(disks[0], voltest.Metadata(t, disks[0]))
	if err != nil {
		t.Fatal(err)
	}
	dir, err := ondisk.DecodeDirectory(read(ondisk.ChainDirectory, rec.Directory))
	if err != nil {
		t.Fatal(err)
	}
	list, err := ondisk.DecodeMapList(read(ondisk.ChainMapList, dir.Maps[len(dir.Maps)-1].List))
	if err != nil {
		t.Fatal(err)
	}
	id, _ := dir.Member(list.Chunks[0].Number)
	return pooled{byID[rec.Directory.Member], int64(rec.Directory.Chunk) * voltest.Chunk, rec, dir},
		pooled{byID[id], int64(list.Chunks[0].Chunk) * voltest.Chunk, rec, dir}
}

type pooled struct {
	*disktest.Disk
	off int64
	rec ondisk.Extension
	dir *ondisk.Directory
}

// serve puts another directory in force, in the place of that.
func (p pooled) serve(t *testing.T, zero *disktest.Disk, change func(*ondisk.Directory)) {
	t.Helper()
	change(p.dir)
	b, err := p.dir.Encode()
	if err != nil {
		t.Fatal(err)
	}
	first, chunks, err := ondisk.EncodeChain(ondisk.ChainDirectory, b, []ondisk.Place{p.rec.Directory.Place}, voltest.Chunk)
	if err != nil {
		t.Fatal(err)
	}
	voltest.Write(t, p, append(chunks[0], make([]byte, voltest.Sector-len(chunks[0])%voltest.Sector)...), p.off)
	p.rec.Directory = first
	p.rec.Sequence++
	off, _ := ondisk.ExtensionOffset(voltest.Metadata(t, zero))
	record := make([]byte, voltest.Sector)
	if err := p.rec.Encode(record); err != nil {
		t.Fatal(err)
	}
	voltest.Write(t, zero, record, off+int64(p.rec.Slot())*ondisk.ExtensionSlotSize)
}

// spoil changes a byte that many bytes from where it lies.
func (p pooled) spoil(t *testing.T, in int64) {
	t.Helper()
	b := make([]byte, voltest.Sector)
	if _, err := p.ReadAt(b, p.off+in/voltest.Sector*voltest.Sector); err != nil {
		t.Fatal(err)
	}
	b[in%voltest.Sector]++
	voltest.Write(t, p, b, p.off+in/voltest.Sector*voltest.Sector)
}

func TestWhatSnapshotsNameIsCountedFromTheirMaps(t *testing.T) {
	disks := voltest.WithSnapshots(t)
	r := inspect(t, check.Options{}, disks...)
	if c := codes(r); len(c) > 0 {
		t.Errorf("findings: %v", r.Findings)
	}
	v := r.Volumes[0]
	if len(v.Snapshots) != 2 || v.Allocated != 23 {
		t.Fatalf("%d snapshots, %d chunks", len(v.Snapshots), v.Allocated)
	}
	a, b := v.Snapshots[0], v.Snapshots[1]
	if a.Name != "a" || a.Chunks != 24 || a.Unique != 2 || a.Size != voltest.Size || a.Created.IsZero() {
		t.Errorf("%+v", a)
	}
	// Both have what 34 was.
	if b.Name != "b" || b.Chunks != 23 || b.Unique != 1 {
		t.Errorf("%+v", b)
	}
	var text bytes.Buffer
	if err := r.WriteText(&text, true); err != nil || !strings.Contains(text.String(), "2 snapshots") || !strings.Contains(text.String(), "24 chunks, 2 of which nothing else names") {
		t.Errorf("%v:\n%s", err, &text)
	}
	used := func(r *check.Report) (n int64) {
		for _, c := range r.Volumes[0].Components {
			n += int64(c.Used)
		}
		return n
	}
	vol := voltest.Open(t, virstor.Config{}, disks)
	if s := vol.Status(); s.PhysicalChunks-s.Free != used(r) {
		t.Errorf("%d chunks are used; the engine says %d", used(r), s.PhysicalChunks-s.Free)
	}
	sizes, names := vol.SnapshotSizes(), vol.Snapshots()
	for i, s := range v.Snapshots {
		if n := sizes[names[i].ID]; n.Refers != int64(s.Chunks)*voltest.Chunk || n.Unique != int64(s.Unique)*voltest.Chunk {
			t.Errorf("%s: the engine says %+v, the check %+v", s.Name, n, s)
		}
	}
	// Since a, 0, 17 and 34 have changed, and since b 0 and 34.
	if a, b := sizes[names[0].ID].Written, sizes[names[1].ID].Written; a != 3*voltest.Chunk || b != 2*voltest.Chunk {
		t.Errorf("%d bytes were written since a, %d since b", a, b)
	}
	free := vol.Status().Free
	if err := errors.Join(vol.DeleteSnapshot("a"), vol.Close()); err != nil {
		t.Fatal(err)
	}
	vol = voltest.Open(t, virstor.Config{}, disks)
	if now := vol.Status().Free; now-free != int64(a.Unique)+2 { // and the map with its list
		t.Errorf("deleting a made %d chunks free, not %d", now-free, a.Unique+2)
	}
	if err := vol.Close(); err != nil {
		t.Fatal(err)
	}
}

// However far a rollback has come, all that a check finds is that.
func TestARollbackThatWasInterruptedIsNoDamage(t *testing.T) {
	disks := voltest.WithSnapshots(t)
	rec := disktest.Record(disks...)
	var ms []virstor.Member
	for _, d := range disks {
		ms = append(ms, virstor.Member{Provider: d, Metadata: voltest.Metadata(t, d)})
	}
	if err := virstor.Rollback(virstor.Assemble(ms)[0], "a", true, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	pending := 0
	for k := range rec.Len() {
		r := inspect(t, check.Options{}, rec.State(k, disktest.All)...)
		for _, c := range codes(r) {
			if c != check.IntentPending {
				t.Errorf("at %d: %+v", k, r.Findings)
			}
			pending++
		}
	}
	if pending < 2 {
		t.Errorf("pending at %d operations", pending)
	}
}

// rollBackTo makes a record that says that the volume is rolled back to the snapshot.
func rollBackTo(t *testing.T, zero *disktest.Disk, id uint64) {
	t.Helper()
	m := voltest.Metadata(t, zero)
	rec, _, err := virstor.Record(zero, m)
	if err != nil {
		t.Fatal(err)
	}
	rec.Sequence++
	rec.Clean, rec.Intent = false, ondisk.Intent{Kind: ondisk.IntentRollback, Arg: [8]uint64{id}}
	b := make([]byte, zero.SectorSize())
	if err := rec.Encode(b); err != nil {
		t.Fatal(err)
	}
	off, _ := ondisk.ExtensionOffset(m)
	voltest.Write(t, zero, b, off+int64(rec.Slot())*ondisk.ExtensionSlotSize)
}

// A rollback that cannot be finished keeps the volume from being opened, for reading too,
// and a check says so.
func TestARollbackThatCannotBeFinishedIsFound(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(t *testing.T, disks []*disktest.Disk)
		code  check.Code
		says  string
	}{
		"to what is no snapshot": {func(t *testing.T, disks []*disktest.Disk) {
			rollBackTo(t, disks[0], 1<<63)
		}, check.DirectoryDamaged, "to snapshot 9223372036854775808 was interrupted"},
		"to a snapshot that is damaged": {func(t *testing.T, disks []*disktest.Disk) {
			dir, last := inPool(t, disks)
			last.spoil(t, 4)
			rollBackTo(t, disks[0], dir.dir.Maps[2].ID)
		}, check.SnapshotDamaged, "A rollback to it was interrupted"},
	} {
		t.Run(name, func(t *testing.T) {
			disks := voltest.WithSnapshots(t)
			c.spoil(t, disks)
			r := inspect(t, check.Options{}, disks...)
			i := slices.IndexFunc(r.Findings, func(f check.Finding) bool { return f.Code == c.code })
			if i < 0 || !r.Findings[i].Prevents || !strings.Contains(r.Findings[i].Text+r.Findings[i].Remedy, c.says) {
				t.Errorf("%+v", r.Findings)
			}
			for _, f := range r.Findings {
				if strings.Contains(f.Remedy, "gvirstor repair`") || strings.Contains(f.Remedy, "gvirstor delete") {
					t.Errorf("it does not help: %s", f.Remedy)
				}
			}
			for _, cfg := range []virstor.Config{{}, {ReadOnly: true}} {
				if _, err := voltest.TryOpen(cfg, voltest.Clone(disks)); !errors.Is(err, virstor.ErrDamaged) {
					t.Errorf("opened: %v", err)
				}
			}
		})
	}
}

func TestDamageOfAPoolIsFoundAndLeftToItsOwner(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(t *testing.T, disks []*disktest.Disk)
		codes []check.Code
		says  string
		opens bool
	}{
		"the map of a snapshot": {func(t *testing.T, disks []*disktest.Disk) {
			_, last := inPool(t, disks)
			last.spoil(t, 4)
		}, []check.Code{check.SnapshotDamaged}, "wrong checksum of chunk 0", true},
		"the map of a snapshot, which names what cannot be": {func(t *testing.T, disks []*disktest.Disk) {
			_, last := inPool(t, disks)
			last.spoil(t, 2)
		}, []check.Code{check.SnapshotDamaged}, "map entry of virtual chunk 0", true},
		"the directory": {func(t *testing.T, disks []*disktest.Disk) {
			dir, _ := inPool(t, disks)
			dir.spoil(t, 60)
		}, []check.Code{check.DirectoryDamaged}, "wrong checksum", false},
		"what no version serves here": {func(t *testing.T, disks []*disktest.Disk) {
			dir, _ := inPool(t, disks)
			dir.serve(t, disks[0], func(d *ondisk.Directory) { d.Maps[0].Quota = 1 << 30 })
		}, []check.Code{check.PoolUnknown}, "does not serve", false},
		"a map entry of the volume": {func(t *testing.T, disks []*disktest.Disk) {
			e := voltest.Entry(t, disks[0], 34) // which only the volume has
			voltest.SetEntry(t, disks[0], 34, ondisk.Entry{}, ondisk.LittleEndian)
			voltest.SetEntry(t, disks[0], 33, e, ondisk.LittleEndian)
			e = voltest.Entry(t, disks[0], 51)
			voltest.SetEntry(t, disks[0], 51, ondisk.Entry{}, ondisk.LittleEndian)
			voltest.SetEntry(t, disks[0], 52, e, ondisk.LittleEndian) // which both snapshots say is 51
		}, []check.Code{check.SnapshotDamaged}, "map entry of virtual chunk 51 names chunk", true},
	} {
		t.Run(name, func(t *testing.T) {
			disks := voltest.WithSnapshots(t)
			c.spoil(t, disks)
			r := inspect(t, check.Options{}, disks...)
			if got := codes(r); !slices.Equal(got, c.codes) {
				t.Fatalf("%v: %+v", got, r.Findings)
			}
			i := slices.IndexFunc(r.Findings, func(f check.Finding) bool { return f.Code == c.codes[0] })
			if f := r.Findings[i]; !strings.Contains(f.Text, c.says) || f.Prevents == c.opens {
				t.Errorf("%+v", f)
			}
			plans, err := repair.Make(r, repair.Choices{})
			if err != nil || plans[0].Needed() {
				t.Errorf("%+v, %v", plans[0], err)
			}
			v, err := voltest.TryOpen(virstor.Config{}, disks)
			if (err == nil) != c.opens || err != nil && !errors.Is(err, virstor.ErrDamaged) && !errors.Is(err, virstor.ErrUnserved) {
				t.Fatalf("opened: %v", err)
			}
			if err != nil {
				return
			}
			damaged := func(s virstor.SnapshotInfo) bool { return s.Err != nil }
			if !slices.ContainsFunc(v.Snapshots(), damaged) {
				t.Error("the engine takes it for intact")
			}
			if err := v.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// What is served, with its snapshots, is no damage.
func TestSnapshotsInMotionAreNoFinding(t *testing.T) {
	disks := voltest.WithSnapshots(t)
	v := voltest.Open(t, virstor.Config{}, disks)
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			_, err := v.WriteAt(make([]byte, 4096), 0)
			err = errors.Join(err, v.Snapshot("c"), v.Discard(0, voltest.Chunk), v.DeleteSnapshot("c"))
			select {
			case <-stop:
				done <- err
				return
			default:
			}
			if err != nil {
				done <- err
				return
			}
		}
	}()
	for range 50 {
		for _, f := range inspect(t, check.Options{Live: true}, disks...).Findings {
			if f.Severity > check.Info {
				t.Errorf("%+v", f)
			}
		}
	}
	close(stop)
	if err := errors.Join(<-done, v.Close()); err != nil {
		t.Error(err)
	}
}
