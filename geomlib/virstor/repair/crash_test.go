package repair_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/geomlib/virstor/check"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/voltest"
	"github.com/gvirstor/gvirstor/geomlib/virstor/repair"
	"github.com/gvirstor/gvirstor/ondisk"
)

// picks are what survives a loss of power.
func picks(seed uint64) map[string]disktest.Pick {
	return map[string]disktest.Pick{
		"all": disktest.All, "none": disktest.None,
		"some": disktest.Random(rand.New(rand.NewPCG(seed, 1))),
	}
}

// repairAll repairs the volume on disks, and fails the test if that is refused.
func repairAll(t *testing.T, disks []*disktest.Disk, c repair.Choices) *repair.Result {
	t.Helper()
	r, err := check.Inspect(ctx, voltest.Providers(disks), check.Options{})
	if err != nil {
		t.Fatal(err)
	}
	plan := planOf(t, r, c)
	j, _, err := repair.MemoryJournal(plan)
	if err != nil {
		t.Fatal(err)
	}
	res, err := repair.Apply(ctx, plan, j, silent)
	if err != nil {
		var b bytes.Buffer
		_ = r.WriteText(&b, true)
		t.Fatalf("%v\n%s", err, b.String())
	}
	return res
}

// crashRows are the rows of the matrix that differ in what repair writes.
var crashRows = []string{
	"chunk size of 0", "index of 1, 0", "count of 0, less", "chunk count of 1, one more", "next chunk of 1, stale",
	"unallocated beyond the chunks", "flag lost, dropped", "two on one chunk, one kept", "0 grown",
	"metadata of 0 and 1 exchanged", "indexes of 0 and 1 exchanged", "left by an add",
}

func TestPowerLossDuringRepairLeavesWhatRepairCanFinishAndUndoTakeBack(t *testing.T) {
	for _, row := range matrix {
		if !slices.Contains(crashRows, row.name) {
			continue
		}
		t.Run(row.name, func(t *testing.T) {
			whole, data := voltest.New(t, true)
			disks := row.do(t, whole)
			for _, vc := range row.lost {
				clear(data[vc*voltest.Chunk : (vc+1)*voltest.Chunk])
			}
			before := images(disks)
			r, err := check.Inspect(ctx, voltest.Providers(disks), check.Options{})
			if err != nil {
				t.Fatal(err)
			}
			plan := planOf(t, r, row.choices)
			j, saved, err := repair.MemoryJournal(plan)
			if err != nil {
				t.Fatal(err)
			}
			rec := disktest.Record(disks...)
			res, err := repair.Apply(ctx, plan, j, silent)
			if err != nil {
				t.Fatal(err)
			}
			n := len(res.Report.Volumes[0].Components)
			for k := 0; k <= rec.Len(); k++ {
				for how, pick := range picks(uint64(k)) {
					t.Run(fmt.Sprintf("%d %s", k, how), func(t *testing.T) {
						after := rec.State(k, pick)
						again, back := voltest.Clone(after), voltest.Clone(after)
						undone(t, saved(), back, before)
						if exchanged := r.Findings[0].Code == check.ProviderSwapped; exchanged && !repairable(t, again) {
							again = back // one of the two is in the journal alone
						}
						c := row.choices
						if decided(t, again) {
							c = repair.Choices{}
						}
						repairAll(t, again, c)
						voltest.MustHold(t, again[:n], data)
					})
				}
			}
		})
	}
}

// repairable reports whether nothing but repair is needed.
func repairable(t *testing.T, disks []*disktest.Disk) bool {
	t.Helper()
	r, err := check.Inspect(ctx, voltest.Providers(disks), check.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return len(planOf(t, r, repair.Choices{}).Refusals) == 0
}

// decided reports whether nothing is left to be chosen.
func decided(t *testing.T, disks []*disktest.Disk) bool {
	t.Helper()
	r, err := check.Inspect(ctx, voltest.Providers(disks), check.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range r.Findings {
		if f.Mend == check.MendChoice {
			return false
		}
	}
	return true
}

func undone(t *testing.T, journal []byte, disks []*disktest.Disk, before []string) {
	t.Helper()
	if _, err := repair.Undo(ctx, bytes.NewReader(journal), voltest.Providers(disks), repair.UndoOptions{Partial: true}); err != nil {
		t.Fatalf("undo: %v", err)
	}
	for i, im := range images(disks) {
		if im != before[i] {
			t.Errorf("undo did not bring %s back", disks[i].Name())
		}
	}
}

// operations of the engine that a crash may interrupt.
var operations = []struct {
	name string
	do   func(t *testing.T, v *virstor.Volume, spare *disktest.Disk) error
}{
	{"add", func(_ *testing.T, v *virstor.Volume, spare *disktest.Disk) error {
		return v.Add([]geomlib.Provider{spare}, virstor.AddOptions{})
	}},
	{"remove the last", func(_ *testing.T, v *virstor.Volume, _ *disktest.Disk) error { return v.Remove("p2") }},
	{"remove the middle", func(_ *testing.T, v *virstor.Volume, _ *disktest.Disk) error {
		return job(v, v.Evacuate([]string{"p1"}, "", virstor.JobOptions{}))
	}},
	{"replace component 0", func(_ *testing.T, v *virstor.Volume, _ *disktest.Disk) error {
		return job(v, v.Evacuate([]string{"p0"}, "", virstor.JobOptions{}))
	}},
	{"grow", func(_ *testing.T, v *virstor.Volume, _ *disktest.Disk) error {
		return job(v, v.Resize(2*voltest.Size, false, virstor.JobOptions{}))
	}},
	{"discard and pack", func(_ *testing.T, v *virstor.Volume, _ *disktest.Disk) error {
		if err := v.Discard(0, 4*voltest.Chunk); err != nil {
			return err
		}
		return job(v, v.Pack(virstor.JobOptions{}))
	}},
	{"open and stop", func(*testing.T, *virstor.Volume, *disktest.Disk) error { return nil }},
}

func job(v *virstor.Volume, err error) error {
	if err != nil {
		return err
	}
	s, err := v.WaitJob(ctx)
	if err == nil {
		err = s.Err
	}
	return err
}

// What the engine leaves when the power fails is no damage: check finds no
// error in it, and repair finishes it as the next start would.
func TestPowerLossInTheEngineIsNoDamage(t *testing.T) {
	for _, op := range operations {
		t.Run(op.name, func(t *testing.T) {
			disks, data := voltest.New(t, true)
			spare := disktest.New("p3", 18*voltest.Chunk, voltest.Sector)
			rec := disktest.Record(append(disks, spare)...)
			v := voltest.Open(t, virstor.Config{}, disks)
			if err := op.do(t, v, spare); err != nil {
				t.Fatal(err)
			}
			if op.name == "discard and pack" {
				clear(data[:4*voltest.Chunk])
			}
			if err := v.Stop(); err != nil {
				t.Fatal(err)
			}
			step := max(1, rec.Len()/20)
			for k := 0; k <= rec.Len(); k += step {
				for how, pick := range picks(uint64(k)) {
					t.Run(fmt.Sprintf("%d %s", k, how), func(t *testing.T) {
						testInterrupted(t, labelled(rec.State(k, pick)), data, op.name == "discard and pack")
					})
				}
			}
		})
	}
}

// labelled are the disks that have metadata.
func labelled(disks []*disktest.Disk) []*disktest.Disk {
	var out []*disktest.Disk
	for _, d := range disks {
		if _, err := geomlib.ReadMetadata(d); err == nil {
			out = append(out, d)
		}
	}
	return out
}

func testInterrupted(t *testing.T, disks []*disktest.Disk, data []byte, discards bool) {
	t.Helper()
	r, err := check.Inspect(ctx, voltest.Providers(disks), check.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if n := r.Count(check.Error); n > 0 {
		var b bytes.Buffer
		_ = r.WriteText(&b, true)
		t.Fatalf("errors:\n%s", b.String())
	}
	if res := repairAll(t, disks, repair.Choices{}); !res.Report.Clean() {
		var b bytes.Buffer
		_ = res.Report.WriteText(&b, true)
		t.Fatalf("not clean after repair:\n%s", b.String())
	}
	var skip []uint64
	if discards {
		skip = []uint64{0, 1, 2, 3} // the discard may have happened or not
	}
	voltest.MustHold(t, labelled(disks), data, skip...)
}

func TestUndoRefusesWhatWasUsedSince(t *testing.T) {
	disks, _ := voltest.New(t, true)
	voltest.SetMetadata(t, disks[1], func(m *ondisk.Metadata) { m.Count = 2 })
	r, err := check.Inspect(ctx, voltest.Providers(disks), check.Options{})
	if err != nil {
		t.Fatal(err)
	}
	plan := planOf(t, r, repair.Choices{})
	j, saved, err := repair.MemoryJournal(plan)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := repair.Apply(ctx, plan, j, silent); err != nil {
		t.Fatal(err)
	}
	v := voltest.Open(t, virstor.Config{}, disks)
	if _, err := v.WriteAt([]byte("new"), 3*voltest.Chunk); err != nil {
		t.Fatal(err)
	}
	if err := v.Stop(); err != nil {
		t.Fatal(err)
	}
	undo := func(opt repair.UndoOptions, ps []geomlib.Provider) error {
		opt.Partial = true // the journal is read while the repair could still write
		_, err := repair.Undo(ctx, bytes.NewReader(saved()), ps, opt)
		return err
	}
	was := images(disks)
	mustBe(t, undo(repair.UndoOptions{}, voltest.Providers(disks)), repair.ErrChanged)
	mustBe(t, undo(repair.UndoOptions{}, voltest.Providers(disks[:1])), repair.ErrMismatch)
	runDir := t.TempDir()
	lock, err := geomlib.LockVolume(runDir, plan.NumericID())
	if err != nil {
		t.Fatal(err)
	}
	mustBe(t, undo(repair.UndoOptions{RunDir: runDir}, voltest.Providers(disks)), geomlib.ErrLocked)
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	mustBe(t, undo(repair.UndoOptions{RunDir: runDir}, voltest.Providers(disks)), repair.ErrChanged)
	if err := undo(repair.UndoOptions{Force: true, DryRun: true}, voltest.Providers(disks)); err != nil {
		t.Fatal(err)
	}
	for i, im := range images(disks) {
		if im != was[i] {
			t.Error("an undo that was refused, or a dry run, wrote")
		}
	}
	v = voltest.Open(t, virstor.Config{}, disks)
	if err := v.Snapshot("since"); err != nil {
		t.Fatal(err)
	}
	mustBe(t, v.Close(), nil)
	mustBe(t, undo(repair.UndoOptions{Force: true}, voltest.Providers(disks)), repair.ErrSnapshots)
	v = voltest.Open(t, virstor.Config{}, disks)
	mustBe(t, errors.Join(v.DeleteSnapshot("since"), v.Stop()), nil)
	if err := undo(repair.UndoOptions{Force: true}, voltest.Providers(disks)); err != nil {
		t.Fatal(err)
	}
	if m := voltest.Metadata(t, disks[1]); m.Count != 2 {
		t.Errorf("force did not restore: %+v", m)
	}
}
