package virstor

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/ondisk"
)

// fillUnits writes operation 100+vc to the first unit of each of n virtual chunks.
func fillUnits(t *testing.T, v *Volume, n int64) {
	t.Helper()
	for vc := range n {
		mustDo(t, <-startWrite(v, vc*crashChunk, 100+uint64(vc)).done)
	}
	mustDo(t, v.Flush())
}

// holdsUnits fails the test unless fillUnits' data is there.
func holdsUnits(t *testing.T, v *Volume, n int64) {
	t.Helper()
	buf := make([]byte, unit)
	for vc := range n {
		_, err := v.ReadAt(buf, vc*crashChunk)
		mustDo(t, err)
		if got := idOf(buf); got != 100+uint64(vc) {
			t.Fatalf("virtual chunk %d holds operation %d", vc, got)
		}
	}
}

// assemblyOf is what disks make.
func assemblyOf(t *testing.T, disks []*disktest.Disk) *Assembly {
	t.Helper()
	var members []Member
	for _, d := range disks {
		m, err := geomlib.ReadMetadata(d)
		mustDo(t, err)
		members = append(members, Member{d, m})
	}
	as := Assemble(members)
	if len(as) != 1 {
		t.Fatalf("%d volumes", len(as))
	}
	return as[0]
}

// outsideOf is why d takes no part in what a is.
func outsideOf(t *testing.T, a *Assembly, d *disktest.Disk) *OutsiderError {
	t.Helper()
	for _, ig := range a.Ignored {
		var o *OutsiderError
		if ig.Provider == geomlib.Provider(d) && errors.As(ig.Reason, &o) {
			return o
		}
	}
	t.Fatalf("%s is not ignored", d.Name())
	return nil
}

func sectorOf(d *disktest.Disk) string {
	b := make([]byte, d.SectorSize())
	if _, err := d.ReadAt(b, d.MediaSize()-int64(len(b))); err != nil {
		return err.Error()
	}
	return string(b)
}

func TestADiskThatWasRemovedIsNotTakenForItsSuccessor(t *testing.T) {
	a := disktest.New("a", 8*crashChunk, 512)
	b, c := disktest.New("b", 16*crashChunk, 512).FillJunk(5), disktest.New("c", 16*crashChunk, 512)
	labelled(t, 64, a, b)
	v, err := openDisks(Config{}, []*disktest.Disk{a, b})
	mustDo(t, err)
	b.FailFrom(disktest.Write, 1, syscall.EIO)
	mustDo(t, v.Remove("b"))
	if out := v.Outsiders(); len(out) != 1 || out[0].Provider != "b" || !errors.Is(&out[0], ErrStranger) {
		t.Errorf("outsiders: %v", out)
	}
	mustDo(t, v.Add([]geomlib.Provider{c}, AddOptions{}))
	fillUnits(t, v, 12)
	mustDo(t, v.Close())
	b.Heal()
	was := sectorOf(b)

	v, err = openDisks(Config{}, []*disktest.Disk{a, b, c})
	mustDo(t, err)
	holdsUnits(t, v, 12)
	mustDo(t, v.Close())
	if sectorOf(b) != was {
		t.Error("the start wrote to the removed disk")
	}
	o := outsideOf(t, assemblyOf(t, []*disktest.Disk{a, b, c}), b)
	if !errors.Is(o, ErrStranger) || o.LastName != "b" || o.Generation == 0 {
		t.Errorf("%+v", o)
	}
	if _, err := openDisks(Config{}, []*disktest.Disk{a, b}); !errors.Is(err, ErrIncomplete) || !strings.Contains(err.Error(), "b is a stale component") {
		t.Errorf("with the removed disk in place of the new one: %v", err)
	}
}

func TestAnAddThatFailedBlocksNothingAndItsDiskIsNoComponent(t *testing.T) {
	for _, flushes := range []int{1, 2, 3, 100} {
		t.Run(fmt.Sprintf("%d flushes of component 0 fail", flushes), func(t *testing.T) {
			a := disktest.New("a", 8*crashChunk, 512)
			b, c := disktest.New("b", 16*crashChunk, 512).FillJunk(5), disktest.New("c", 16*crashChunk, 512)
			labelled(t, 64, a)
			v, err := openDisks(Config{}, []*disktest.Disk{a})
			mustDo(t, err)
			n := 0
			remove := a.Inject(func(o disktest.Op) error {
				if o.Kind == disktest.Flush {
					if n++; n <= flushes {
						return syscall.EIO
					}
				}
				return nil
			})
			if v.Add([]geomlib.Provider{b}, AddOptions{}) == nil {
				t.Fatal("added")
			}
			remove()
			mustDo(t, v.Add([]geomlib.Provider{c}, AddOptions{}))
			if v.cond.is(stateUnlisted) || len(v.components()) != 2 {
				t.Errorf("%v, %d components", state(v.cond.word.Load()), len(v.components()))
			}
			_ = v.Close() // a flush failed
			a.Heal()
			disks := []*disktest.Disk{a}
			for _, d := range []*disktest.Disk{b, c} {
				if _, err := geomlib.ReadMetadata(d); err == nil {
					disks = append(disks, d)
				}
			}
			v, err = openDisks(Config{}, disks)
			mustDo(t, err)
			d := disktest.New("d", 16*crashChunk, 512)
			mustDo(t, v.Add([]geomlib.Provider{d}, AddOptions{}))
			fillUnits(t, v, 12)
			mustDo(t, v.Close())
			// The last disk is late, and what the failed add left is there.
			if w, err := openDisks(Config{}, disks); err == nil {
				holdsUnits(t, w, 12)
				mustDo(t, w.Close())
			} else if !errors.Is(err, ErrIncomplete) {
				t.Errorf("without the disk added last: %v", err)
			}
			w, err := openDisks(Config{}, append(disks, d))
			mustDo(t, err)
			holdsUnits(t, w, 12)
			mustDo(t, w.Close())
		})
	}
}

func TestAnOlderCopyOfAComponentIsNamedAndNotServed(t *testing.T) {
	for i := range 3 {
		disks := []*disktest.Disk{disktest.New("a", 8*crashChunk, 512), disktest.New("b", 8*crashChunk, 512), disktest.New("c", 8*crashChunk, 512)}
		labelled(t, 64, disks...)
		v, err := openDisks(Config{}, disks)
		mustDo(t, err)
		fillUnits(t, v, 4)
		mustDo(t, v.Close())
		old := disks[i].Clone()
		v, err = openDisks(Config{}, disks)
		mustDo(t, err)
		fillUnits(t, v, 12)
		mustDo(t, v.Close())

		put := append([]*disktest.Disk(nil), disks...)
		put[i] = old
		before := sectorOf(old)
		_, err = openDisks(Config{}, put)
		if !errors.Is(err, ErrIncomplete) || !strings.Contains(err.Error(), "stale component") {
			t.Errorf("component %d from before: %v", i, err)
		}
		if o := outsideOf(t, assemblyOf(t, put), old); !errors.Is(o, ErrStale) || o.Generation >= o.Settled || o.Began.IsZero() {
			t.Errorf("component %d: %+v", i, o)
		}
		v, err = openDisks(Config{}, append(put, disks[i])) // beside the true one it does no harm
		mustDo(t, err)
		holdsUnits(t, v, 12)
		mustDo(t, v.Close())
		if sectorOf(old) != before {
			t.Errorf("the old copy of component %d was written to", i)
		}
	}
}

// Were the new list used before its generation is settled, then an older copy would be
// taken for the component.
func TestTheModelOfOldCopiesNoticesAGenerationThatIsNotSettled(t *testing.T) {
	disks := []*disktest.Disk{disktest.New("a", 8*crashChunk, 512), disktest.New("b", 8*crashChunk, 512)}
	labelled(t, 64, disks...)
	v, err := openDisks(Config{}, disks)
	mustDo(t, err)
	mustDo(t, v.Close())
	old := disks[1].Clone()
	v, err = openDisks(Config{breakRule: breakListEarly}, disks)
	mustDo(t, err)
	fillUnits(t, v, 12)
	if a := assemblyOf(t, []*disktest.Disk{disks[0].Clone(), old}); a.Err != nil {
		t.Errorf("the breakage is not noticed: %v", a.Err)
	}
	mustDo(t, v.Close())
}

func TestASetOfOldCopiesIsRefusedByWhoServedItSince(t *testing.T) {
	disks := []*disktest.Disk{disktest.New("a", 8*crashChunk, 512), disktest.New("b", 8*crashChunk, 512)}
	labelled(t, 64, disks...)
	v, err := openDisks(Config{}, disks)
	mustDo(t, err)
	mustDo(t, v.Close())
	old := []*disktest.Disk{disks[0].Clone(), disks[1].Clone()}
	v, err = openDisks(Config{}, disks)
	mustDo(t, err)
	settled, began := v.Generation()
	if settled == 0 || began.IsZero() {
		t.Fatalf("generation %d of %v", settled, began)
	}
	mustDo(t, v.RaiseGeneration())
	if now, _ := v.Generation(); now != settled+1 {
		t.Errorf("raised from %d to %d", settled, now)
	}
	mustDo(t, v.Close())
	if _, err := openDisks(Config{MinGeneration: settled}, old); !errors.Is(err, ErrOldSet) {
		t.Errorf("old copies: %v", err)
	}
	v, err = openDisks(Config{MinGeneration: settled}, disks)
	mustDo(t, err)
	mustDo(t, v.Close())
	v, err = openDisks(Config{MinGeneration: settled + 5, ForceOld: true}, old)
	mustDo(t, err)
	if now, _ := v.Generation(); now <= settled+5 {
		t.Errorf("forced, the old copies are of generation %d, which is not above %d", now, settled+5)
	}
	mustDo(t, v.Close())
}

func TestTheClosedVolumesOfTwoHostsAreTwoHistories(t *testing.T) {
	disks := []*disktest.Disk{disktest.New("a", 8*crashChunk, 512), disktest.New("b", 8*crashChunk, 512)}
	labelled(t, 64, disks...)
	v, err := openDisks(Config{}, disks)
	mustDo(t, err)
	mustDo(t, v.Close())
	cloned := []*disktest.Disk{disks[0].Clone(), disks[1].Clone()}
	for _, ds := range [][]*disktest.Disk{disks, cloned} {
		v, err := openDisks(Config{}, ds)
		mustDo(t, err)
		mustDo(t, v.Close())
	}
	if _, err := openDisks(Config{}, []*disktest.Disk{disks[0], cloned[1]}); !errors.Is(err, ErrHistories) {
		t.Errorf("one of each: %v", err)
	}
}

// A disk that takes no writes leaves, whichever it is but component 0.
func TestADiskThatTakesNoWritesCanLeave(t *testing.T) {
	for _, restart := range []bool{false, true} {
		for _, last := range []bool{false, true} {
			t.Run(fmt.Sprintf("restart %v, last %v", restart, last), func(t *testing.T) {
				a, b, c := disktest.New("a", 16*crashChunk, 512), disktest.New("b", 16*crashChunk, 512), disktest.New("c", 24*crashChunk, 512)
				all := []*disktest.Disk{a, b, c}
				if last {
					all = []*disktest.Disk{a, c, b}
				}
				labelled(t, 64, all...)
				v, err := openDisks(Config{Alloc: Spread}, all)
				mustDo(t, err)
				fillUnits(t, v, 9)
				if restart {
					mustDo(t, v.Close())
				}
				b.FailFrom(disktest.Write, 1, syscall.EROFS)
				if restart {
					v, err = openDisks(Config{Alloc: Spread}, all)
					mustDo(t, err)
					if used := v.Status().Components; !hasFailed(used, "b") {
						t.Errorf("%+v", used)
					}
				}
				mustDo(t, v.Evacuate([]string{"b"}, "", JobOptions{}))
				if s, err := v.WaitJob(t.Context()); err != nil || s.Err != nil {
					t.Fatalf("evacuate: %v, %v", err, s.Err)
				}
				mustDo(t, <-startWrite(v, 20*crashChunk, 7).done)
				d := disktest.New("d", 24*crashChunk, 512)
				mustDo(t, v.Add([]geomlib.Provider{d}, AddOptions{}))
				mustDo(t, v.Close())
				for _, ds := range [][]*disktest.Disk{{a, b, c, d}, {a, c, d}} {
					w, err := openDisks(Config{}, ds)
					mustDo(t, err)
					holdsUnits(t, w, 9)
					mustDo(t, w.Close())
				}
			})
		}
	}
}

func hasFailed(cs []ComponentStatus, name string) bool {
	for _, c := range cs {
		if c.Name == name {
			return c.TakesNoWrites
		}
	}
	return false
}

func TestAMemberThatTakesNoWritesIsServedAndJoinsAgain(t *testing.T) {
	a, b := disktest.New("a", 16*crashChunk, 512), disktest.New("b", 16*crashChunk, 512)
	labelled(t, 64, a, b)
	v, err := openDisks(Config{Alloc: Spread}, []*disktest.Disk{a, b})
	mustDo(t, err)
	fillUnits(t, v, 8)
	mustDo(t, v.Close())
	b.FailFrom(disktest.Write, 1, syscall.EROFS)
	for range 3 { // generations that it misses
		v, err = openDisks(Config{Alloc: Spread}, []*disktest.Disk{a, b})
		mustDo(t, err)
		holdsUnits(t, v, 8)
		mustDo(t, v.Close())
	}
	b.Heal()
	for range 2 {
		v, err = openDisks(Config{Alloc: Spread}, []*disktest.Disk{a, b})
		mustDo(t, err)
		holdsUnits(t, v, 8)
		if hasFailed(v.Status().Components, "b") || v.meta.ext.rec.Failed != [4]ondisk.FailedMember{} {
			t.Error("it takes writes again, and is still noted as failed")
		}
		mustDo(t, v.Close())
	}
}

func TestWhatTheFirstReleaseServedGetsMemberBlocks(t *testing.T) {
	disks := []*disktest.Disk{disktest.New("a", 8*crashChunk, 512), disktest.New("b", 8*crashChunk, 512)}
	labelled(t, 64, disks...)
	v, err := openDisks(Config{}, disks)
	mustDo(t, err)
	fillUnits(t, v, 4)
	mustDo(t, v.Close())
	for _, d := range disks {
		m, err := geomlib.ReadMetadata(d)
		mustDo(t, err)
		m.Member = ondisk.MemberBlock{}
		mustDo(t, geomlib.StoreMetadata(d, m))
	}
	old := disks[1].Clone()
	w, err := openDisks(Config{ReadOnly: true}, disks)
	mustDo(t, err)
	mustDo(t, w.Close())
	if m, _ := geomlib.ReadMetadata(disks[0]); m.Member.Exists() {
		t.Error("an opening for reading wrote a block")
	}
	v, err = openDisks(Config{}, disks)
	mustDo(t, err)
	holdsUnits(t, v, 4)
	mustDo(t, v.Close())
	if a := assemblyOf(t, disks); a.Settled == 0 || a.Err != nil {
		t.Errorf("settled %d, %v", a.Settled, a.Err)
	}
	if _, err := openDisks(Config{}, []*disktest.Disk{disks[0], old}); !errors.Is(err, ErrIncomplete) {
		t.Errorf("a component without a block among others that have one: %v", err)
	}
}

func TestHandingBackTakesTheMemberBlocksOff(t *testing.T) {
	disks := []*disktest.Disk{disktest.New("a", 8*crashChunk, 512), disktest.New("b", 8*crashChunk, 512)}
	labelled(t, 64, disks...)
	labels := []string{sectorOf(disks[0]), sectorOf(disks[1])}
	v, err := openDisks(Config{}, disks)
	mustDo(t, err)
	mustDo(t, v.Stop())
	for i, d := range disks {
		if sectorOf(d) != labels[i] {
			t.Errorf("%s is not byte for byte what label wrote", d.Name())
		}
	}
}

func TestATakeoverNoticesWhatChangedSinceItRead(t *testing.T) {
	disks := []*disktest.Disk{disktest.New("a", 8*crashChunk, 512), disktest.New("b", 8*crashChunk, 512)}
	labelled(t, 64, disks...)
	v, err := openDisks(Config{}, disks)
	mustDo(t, err)
	fillUnits(t, v, 2)
	mustDo(t, v.Close())
	for _, change := range []func(){
		func() {
			w, err := openDisks(Config{}, disks)
			mustDo(t, err)
			mustDo(t, w.Close())
		},
		func() { // an entry of the map alone
			b := make([]byte, 512)
			ondisk.Entry{Flags: ondisk.FlagAllocated, Component: 1, Chunk: 3}.Encode(b[8*9:], ondisk.LittleEndian)
			old := make([]byte, 512)
			_, _ = disks[0].ReadAt(old, 0)
			copy(old[8*9:8*10], b[8*9:])
			_, err := disks[0].WriteAt(old, 0)
			mustDo(t, err)
		},
	} {
		v, err := openDisks(Config{DeferWrites: true}, disks)
		mustDo(t, err)
		change()
		if err := v.Activate(nil); !errors.Is(err, ErrChanged) {
			t.Errorf("activated: %v", err)
		}
	}
}

// filledThree is a volume on a, which is full, b, which has three chunks, and c, which has
// room for them.
func filledThree(t *testing.T) (*Volume, []*disktest.Disk) {
	t.Helper()
	disks := []*disktest.Disk{disktest.New("a", 8*crashChunk+512, 512), disktest.New("b", 8*crashChunk+512, 512), disktest.New("c", 8*crashChunk+512, 512)}
	labelled(t, 64, disks...)
	v, err := openDisks(Config{}, disks)
	mustDo(t, err)
	fillUnits(t, v, int64(v.component(0).usable()-v.component(0).first())+3)
	return v, disks
}

func TestAJobWithoutRoomNamesTheDiskThatIsGivenNone(t *testing.T) {
	takesNone, flushFails := RefusedComponent{"c", ErrTakesNoWrites}, RefusedComponent{"c", ErrFlushFailed}
	for _, tt := range []struct {
		name    string
		flush   bool // of c fails, else it takes no writes
		leaving []string
		target  string
		refused []RefusedComponent
		says    string
	}{
		{"a disk that takes no writes", false, []string{"b"}, "", []RefusedComponent{takesNone}, "; c takes no writes and is given none"},
		{"a disk whose flush failed", true, []string{"b"}, "", []RefusedComponent{flushFails}, "; a flush of c failed, and it is given none until the volume is reopened"},
		{"the disk that is to take the chunks", false, []string{"b"}, "c", []RefusedComponent{takesNone}, "replace on vol: "},
		{"not one that is not to take any", false, []string{"b"}, "a", nil, "would do)"},
		{"not one that leaves", false, []string{"b", "c"}, "", nil, "would do)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v, disks := filledThree(t)
			if tt.flush {
				v.component(2).fail(syscall.EIO)
			} else {
				mustDo(t, v.Close())
				disks[2].FailFrom(disktest.Write, 1, syscall.EROFS)
				var err error
				v, err = openDisks(Config{}, disks)
				mustDo(t, err)
			}
			err := v.Evacuate(tt.leaving, tt.target, JobOptions{})
			var short *ShortError
			if !errors.As(err, &short) || !errors.Is(err, ErrNoSpace) {
				t.Fatalf("evacuate without room: %v", err)
			}
			if short.Missing != 3*crashChunk || !slices.Equal(short.Refused, tt.refused) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v, %+v", err, short)
			}
			_ = v.Close() // whose flush may have failed
		})
	}
}

func TestPackingIsNotAdvisedForADiskThatTakesNoWrites(t *testing.T) {
	v, disks := filledThree(t)
	holed := int64(v.component(0).usable() - v.component(0).first())
	mustDo(t, v.Discard(holed*crashChunk, crashChunk)) // the first chunk of b
	mustDo(t, v.Flush())
	mustDo(t, v.Close())
	disks[1].FailFrom(disktest.Write, 1, syscall.EROFS)
	v, err := openDisks(Config{}, disks)
	mustDo(t, err)
	if why := v.obstacles(); len(why) != 1 || !strings.HasPrefix(why[0], "b takes no writes") {
		t.Errorf("%q", why)
	}
	mustDo(t, v.Close())
}

// A label is taken off by a write and a flush of it, and who dies in between leaves a disk
// that has none until its cache is lost. The next start settles that, if it is told of the
// disk. If not it ends the removal without it, and the disk that comes back is a stranger's.
func TestALabelThatWasTakenOffInACacheAloneIsSettledOrAStrangers(t *testing.T) {
	t.Run("the next start is told of the disk", func(t *testing.T) {
		v, lost := labelInACache(t, true)
		if out := v.Outsiders(); len(out) != 0 {
			t.Errorf("after the loss of power: outside %v", out)
		}
		mustDo(t, v.Add([]geomlib.Provider{lost[3]}, AddOptions{}))
	})
	t.Run("it is not", func(t *testing.T) {
		v, lost := labelInACache(t, false)
		if out := v.Outsiders(); len(out) != 1 || !errors.Is(&out[0], ErrStranger) || out[0].Provider != "d" {
			t.Errorf("after the loss of power: outside %v", out)
		}
		was := sectorOf(lost[3])
		if err := v.Add([]geomlib.Provider{lost[3]}, AddOptions{}); !errors.Is(err, ErrStranger) || !strings.Contains(err.Error(), "`gvirstor clear d`") {
			t.Errorf("add: %v", err)
		}
		if sectorOf(lost[3]) != was {
			t.Error("it was written to")
		}
		mustDo(t, geomlib.ClearMetadata(lost[3]))
		mustDo(t, v.Add([]geomlib.Provider{lost[3]}, AddOptions{}))
	})
}

// labelInACache is a volume whose fourth disk was removed by a process that died before it
// flushed that; then it was started, told of that disk or not, and the power failed.
func labelInACache(t *testing.T, told bool) (*Volume, []*disktest.Disk) {
	t.Helper()
	v, disks := trio(t)
	mustDo(t, v.Close())
	spare := disktest.New("d", 16*crashChunk, 512)
	v, err := openDisks(Config{}, disks)
	mustDo(t, err)
	mustDo(t, v.Add([]geomlib.Provider{spare}, AddOptions{}))
	rec := disktest.Record(append(disks, spare)...)
	mustDo(t, v.Remove("d"))
	mustDo(t, v.Close())
	k := slices.IndexFunc(rec.Log(), func(o disktest.Op) bool { return o.Kind == disktest.Write && o.Disk == 3 && isZero(o.Data) })
	if k < 0 {
		t.Fatal("the label was not taken off")
	}

	died := rec.ProcessDeath(k + 1)
	rec = disktest.Record(died...)
	if !told {
		died = died[:3]
	}
	v, err = openDisks(Config{}, died)
	mustDo(t, err)
	if out := v.Outsiders(); len(out) != 0 || len(v.components()) != 3 {
		t.Errorf("after the death of the process: %d components, outside %v", len(v.components()), out)
	}
	mustDo(t, v.Close())

	lost := rec.State(rec.Len(), disktest.None)
	v, err = openDisks(Config{}, lost)
	mustDo(t, err)
	t.Cleanup(func() { mustDo(t, v.Close()) })
	holdsUnits(t, v, 9)
	return v, lost
}
