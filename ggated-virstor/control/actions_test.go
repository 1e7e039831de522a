package control

import (
	"strings"
	"testing"
)

func TestEveryTroubleHasAnActionThatNamesTheVolumeAndWhatToType(t *testing.T) {
	with := func(change func(*VolumeStatus)) VolumeStatus {
		v := VolumeStatus{Name: "mydata", WhenFull: "wait", Components: []ComponentStatus{{Name: "/dev/ada4"}, {Name: "it's"}}}
		change(&v)
		return v
	}
	conditions := func(cs ...Condition) func(*VolumeStatus) {
		return func(v *VolumeStatus) { v.Conditions = cs }
	}
	component := func(i int, c Condition) func(*VolumeStatus) {
		return func(v *VolumeStatus) { v.Components[i].State = []Condition{c} }
	}
	for _, c := range []struct {
		change func(*VolumeStatus)
		want   []string
	}{
		{func(*VolumeStatus) {}, nil},
		{conditions(ReadOnly, Stopping), nil},
		{conditions(Full, HeldWrites, LowSpace), []string{"0 writes wait for space, the oldest for 0 s; give it space, or free chunks that hold only zeros: `gvirstor add mydata PROV`, or `gvirstor reclaim mydata`"}},
		{func(v *VolumeStatus) {
			v.Conditions, v.Held, v.ReservedChunks = []Condition{HeldWrites}, Held{Count: 3, OldestSeconds: 41}, 4
		},
			[]string{"3 writes wait for space, the oldest for 41 s; give it space, or free chunks that hold only zeros: `gvirstor add mydata PROV`, or `gvirstor reserve --release mydata`, or `gvirstor reclaim mydata`"}},
		{conditions(Full), []string{"full, the next write that needs space will wait; give it space, or free chunks that hold only zeros: `gvirstor add mydata PROV`, or `gvirstor reclaim mydata`"}},
		{func(v *VolumeStatus) { v.Conditions, v.WhenFull = []Condition{Full}, "error" },
			[]string{"full, writes that need space fail; give it space, or free chunks that hold only zeros: `gvirstor add mydata PROV`, or `gvirstor reclaim mydata`"}},
		{func(v *VolumeStatus) { v.Conditions, v.Snapshots = []Condition{Full}, 2 },
			[]string{"full, the next write that needs space will wait; give it space, of which snapshots take some (2: `gvirstor list -t snapshot mydata`): `gvirstor add mydata PROV`"}},
		{func(v *VolumeStatus) {
			v.Conditions, v.Snapshots, v.DamagedSnapshots = []Condition{SnapshotDamaged, Full, HeldWrites}, 1, []string{"monday"}
		}, []string{"snapshot monday is damaged: writes wait; start again if a disk could not be read, from a copy of it if need be; else what monday alone holds is lost, and writes go on without it: `gvirstor delete mydata@monday`"}},
		{func(v *VolumeStatus) {
			v.ChunkSize = 1 << 20
			v.Volumes = []PoolVolume{{Name: "web", Quota: 5 << 20, Allocated: 4 << 20}, {Name: "db", Quota: 5<<20 + 1, Allocated: 5 << 20}, {Name: "x", Allocated: 1 << 40, Degraded: true}}
		}, []string{"mydata/db has all that its quota allows, writes that need more fail; let it have more, or delete what it does not need and discard that: `gvirstor quota SIZE mydata/db`",
			"mydata/x is degraded, it gets no new chunks; a sector of its map could not be written: see the component with errors, or make room below it"}},
		{conditions(Unleased), []string{"the lease cannot be renewed: nothing is sent to any component, and what is asked of it waits; see to what component 0 is on, and the way to it; if another host has taken the lease meanwhile, the volume is closed here"}},
		{conditions(LowSpace), []string{"low on space; add a component before it is full: `gvirstor add mydata PROV`"}},
		{conditions(Degraded), []string{"degraded, nothing is allocated; a sector of the allocation map could not be written: see the component with errors, or make room below it"}},
		{component(0, StorageFull), []string{"component /dev/ada4: storage full; make room on the file system or device that it lies on"}},
		{component(0, ReadErrors), []string{"component /dev/ada4: read errors; look at the disk and its cable, and replace it while it can still be read: `gvirstor replace mydata /dev/ada4 NEW`"}},
		{component(0, Unreached), []string{"component /dev/ada4: no connection; see to its server and the way to it: what is asked of it waits, and fails when that takes too long"}},
		{func(v *VolumeStatus) { v.Components[0].State, v.Components[0].Gone = []Condition{Unreached}, true },
			[]string{"component /dev/ada4: no connection; see that its server has the right disk, stop the volume and start it again"}},
		{component(1, FlushFailed), []string{`component it's: flush failed; it lost data that it had accepted: replace it, then check the file systems on the volume: ` +
			"`gvirstor replace mydata 'it'\\''s' NEW`"}},
		{func(v *VolumeStatus) { v.Outsiders = []Outsider{{Name: "x", Text: "x is stale"}} }, []string{"left alone: x is stale"}},
		{func(v *VolumeStatus) { v.Spares = []Spare{{Name: "s", Failed: "gone"}, {Name: "good"}} }, []string{"the spare s is not used: gone"}},
		{func(v *VolumeStatus) { v.Name, v.Conditions = "a b\x1b", []Condition{LowSpace} },
			[]string{"low on space; add a component before it is full: `gvirstor add 'a b\\u001b' PROV`"}},
	} {
		v := with(c.change)
		var got []string
		for _, a := range v.Actions() {
			got = append(got, a.String())
		}
		if strings.Join(got, "\n") != strings.Join(c.want, "\n") {
			t.Errorf("%v, %+v:\n%s\nwant\n%s", v.Conditions, v.Components, strings.Join(got, "\n"), strings.Join(c.want, "\n"))
		}
	}
}

func TestWhatIsKeptInReserveIsNotFree(t *testing.T) {
	for _, c := range []struct {
		free, reserved int64
		want           string
	}{{13, 0, "13% physical free"}, {13, 13, "0% physical free"}, {13, 20, "0% physical free"}, {20, 13, "7% physical free"}} {
		v := VolumeStatus{PhysicalChunks: 100, FreeChunks: c.free, ReservedChunks: c.reserved}
		if got := v.StateText(); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
}
