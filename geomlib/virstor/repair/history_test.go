package repair_test

import (
	"bytes"
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

// parted are two copies of one volume, each of which was written to since, the second
// times as often, and what they hold.
func parted(t *testing.T, times int) (sets [2][]*disktest.Disk, data [2][]byte) {
	t.Helper()
	whole, was := voltest.New(t, false)
	for s := range sets {
		data[s] = bytes.Clone(was)
		for i, d := range whole {
			sets[s] = append(sets[s], renamed(t, d, string(rune('a'+s))+string(rune('0'+i))))
		}
		for range 1 + s*(times-1) {
			v := voltest.Open(t, virstor.Config{}, sets[s])
			b := bytes.Repeat([]byte{byte(0x51 + s)}, 4096)
			if _, err := v.WriteAt(b, 0); err != nil {
				t.Fatal(err)
			}
			copy(data[s], b)
			if err := v.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	return sets, data
}

func inspected(t *testing.T, disks []*disktest.Disk, history geomlib.Provider) *check.Report {
	t.Helper()
	r, err := check.Inspect(ctx, voltest.Providers(disks), check.Options{History: history})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func has(r *check.Report, code check.Code) bool {
	return slices.ContainsFunc(r.Findings, func(f check.Finding) bool { return f.Code == code })
}

func TestOfTwoHistoriesTheOneThatIsChosenGoesOnAboveBoth(t *testing.T) {
	for _, times := range []int{1, 3} { // both at one generation; one ahead of the other
		for chosen := range 2 {
			for member := range 3 {
				testHistory(t, times, chosen, member)
			}
		}
	}
}

func testHistory(t *testing.T, times, chosen, member int) {
	t.Helper()
	sets, data := parted(t, times)
	all := slices.Concat(sets[0], sets[1])
	if r := inspected(t, all, nil); r.Clean() || times == 1 && !has(r, check.TwoHistories) {
		t.Fatalf("%d times: %+v", times, r.Findings)
	}
	before := images(all)
	r := inspected(t, all, sets[chosen][member])
	plan := planOf(t, r, repair.Choices{})
	if times > 1 && chosen == 1 { // the others are stale beside it, chosen or not
		if plan.Needed() || len(plan.Left) != 3 {
			t.Fatalf("%+v", plan)
		}
		return
	}
	if len(plan.Refusals) > 0 || !plan.Needed() || len(plan.GivesUp()) == 0 {
		t.Fatalf("%d times, %s: %+v", times, sets[chosen][member].Name(), plan)
	}
	var highest uint64
	for _, d := range all {
		highest = max(highest, voltest.Metadata(t, d).Member.Generation)
	}
	plan.Above = highest + 10
	j, saved, err := repair.MemoryJournal(plan)
	if err != nil {
		t.Fatal(err)
	}
	res, err := repair.Apply(ctx, plan, j, silent)
	if err != nil || res.Rivals != nil || !res.Report.Clean() {
		t.Fatalf("%+v, %v", res, err)
	}
	for _, d := range sets[chosen] {
		if g := voltest.Metadata(t, d).Member.Settled; g <= plan.Above {
			t.Errorf("%s is at generation %d, not above %d", d.Name(), g, plan.Above)
		}
	}
	after := images(all)
	for i := range sets[1-chosen] {
		if k := (1-chosen)*3 + i; before[k] != after[k] {
			t.Errorf("%s was written to", all[k].Name())
		}
	}
	if r := inspected(t, all, nil); has(r, check.TwoHistories) || !has(r, check.MemberStale) {
		t.Errorf("afterwards: %+v", r.Findings)
	}
	voltest.MustHold(t, voltest.Clone(sets[chosen]), data[chosen])
	undone(t, saved(), all, before)
}

func TestAHistoryWithoutAllItsMembersIsNotTaken(t *testing.T) {
	sets, _ := parted(t, 1)
	disks := []*disktest.Disk{sets[0][0], sets[1][1], sets[0][2]}
	before := images(disks)
	for _, d := range disks {
		plan := planOf(t, inspected(t, disks, d), repair.Choices{})
		if len(plan.Refusals) == 0 {
			t.Errorf("%s: %+v", d.Name(), plan)
		}
	}
	if !slices.Equal(before, images(disks)) {
		t.Error("written to")
	}
}

func TestARepairedVolumeIsAboveWhatThisHostServed(t *testing.T) {
	disks, data := voltest.New(t, false)
	voltest.Spoil(t, disks[1], func(m *ondisk.Metadata) { m.ChunkNext = 1 << 30 })
	plan := planOf(t, inspected(t, disks, nil), repair.Choices{})
	plan.Above = 1000
	j, _, err := repair.MemoryJournal(plan)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := repair.Apply(ctx, plan, j, silent); err != nil {
		t.Fatal(err)
	}
	for _, d := range disks {
		if g := voltest.Metadata(t, d).Member.Settled; g <= 1000 {
			t.Errorf("%s is at generation %d", d.Name(), g)
		}
	}
	voltest.MustHold(t, disks, data)
}
