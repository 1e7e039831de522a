package virstor

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"syscall"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/extblock"
	"github.com/gvirstor/gvirstor/ondisk"
)

// trio opens a volume on three disks, with data of fillUnits on all of them.
func trio(t *testing.T) (*Volume, []*disktest.Disk) {
	t.Helper()
	var disks []*disktest.Disk
	for i, n := range []string{"a", "b", "c"} {
		disks = append(disks, disktest.New(n, 16*crashChunk, 512).FillJunk(uint64(i+1)))
	}
	labelled(t, 64, disks...)
	v, err := openDisks(Config{Alloc: Spread}, disks)
	mustDo(t, err)
	fillUnits(t, v, 9)
	return v, disks
}

// unflushable are the ways in which a disk does not make durable what it accepts.
var unflushable = map[string]func(d *disktest.Disk){
	"only flushes fail": func(d *disktest.Disk) { d.FailFrom(disktest.Flush, 1, syscall.EIO) },
	"writes and flushes fail": func(d *disktest.Disk) {
		d.FailFrom(disktest.Write, 1, syscall.EIO)
		d.FailFrom(disktest.Flush, 1, syscall.EIO)
	},
	"writes, flushes and discards fail": func(d *disktest.Disk) {
		for _, k := range []disktest.Kind{disktest.Write, disktest.Flush, disktest.Delete, disktest.Zero} {
			d.FailFrom(k, 1, syscall.EIO)
		}
	},
}

func TestAComponentThatCannotBeFlushedIsLeftBehindAtTheStart(t *testing.T) {
	for how, fail := range unflushable {
		for i := 1; i < 3; i++ {
			t.Run(how+", "+string(rune('a'+i)), func(t *testing.T) {
				v, disks := trio(t)
				mustDo(t, v.Close())
				fail(disks[i])
				for range 2 { // the second finds it noted
					v, err := openDisks(Config{Alloc: Spread}, disks)
					mustDo(t, err)
					servedWithout(t, v, disks[i])
					mustDo(t, v.Close())
				}
				leavesAndIsMissedByNobody(t, disks, i)
			})
		}
	}
}

// servedWithout fails the test unless all of v is read, its flushes succeed, and d gets
// nothing new.
func servedWithout(t *testing.T, v *Volume, d *disktest.Disk) {
	t.Helper()
	if !hasFailed(v.Status().Components, d.Name()) {
		t.Errorf("%s is not told to take no writes", d.Name())
	}
	holdsUnits(t, v, 9)
	mustDo(t, v.Flush())
	on := func(p alloc.Phys) bool { return v.component(p.Comp).name() == d.Name() }
	held := v.chunksWhere(on)
	if err := <-startWrite(v, int64(held[0].vc)*crashChunk, 1).done; !errors.Is(err, ErrTakesNoWrites) {
		t.Errorf("overwriting data on %s: %v", d.Name(), err)
	}
	for vc := int64(20); vc < 26; vc++ {
		mustDo(t, <-startWrite(v, vc*crashChunk, uint64(vc)).done)
	}
	mustDo(t, v.Flush())
	if now := len(v.chunksWhere(on)); now != len(held) {
		t.Errorf("%s got %d chunks", d.Name(), now-len(held))
	}
}

func leavesAndIsMissedByNobody(t *testing.T, disks []*disktest.Disk, i int) {
	t.Helper()
	v, err := openDisks(Config{Alloc: Spread}, disks)
	mustDo(t, err)
	mustDo(t, v.Evacuate([]string{disks[i].Name()}, "", JobOptions{}))
	if s, err := v.WaitJob(t.Context()); err != nil || s.Err != nil {
		t.Fatalf("it does not leave: %v, %v", err, s.Err)
	}
	holdsUnits(t, v, 9)
	mustDo(t, v.Close())
	rest := append(append([]*disktest.Disk(nil), disks[:i]...), disks[i+1:]...)
	v, err = openDisks(Config{}, rest)
	mustDo(t, err)
	holdsUnits(t, v, 9)
	mustDo(t, v.Close())
}

// Of a volume that was not closed in order something may be lost: the first start says
// so and is refused, the next one serves what there is, and each flush tells.
func TestWhatAnEarlierProcessCouldNotFlushIsTold(t *testing.T) {
	v, disks := trio(t)
	for i := range disks {
		disks[i] = disks[i].Survivor()
	}
	_ = v.Close()
	disks[2].FailFrom(disktest.Write, 1, syscall.EIO)
	disks[2].FailFrom(disktest.Flush, 1, syscall.EIO)
	_, err := openDisks(Config{}, disks)
	if !errors.Is(err, ErrFlushFailed) || !strings.Contains(err.Error(), "c, which may have lost") {
		t.Fatalf("the first start: %v", err)
	}
	v, err = openDisks(Config{}, disks)
	mustDo(t, err)
	if !hasFailed(v.Status().Components, "c") {
		t.Error("it is not told to take no writes")
	}
	holdsUnits(t, v, 9)
	if err := v.Flush(); !errors.Is(err, ErrFlushFailed) {
		t.Errorf("flush: %v", err)
	}
	mustDo(t, v.Evacuate([]string{"c"}, "", JobOptions{}))
	if s, err := v.WaitJob(t.Context()); err != nil || s.Err != nil {
		t.Fatalf("it does not leave: %v, %v", err, s.Err)
	}
	mustDo(t, v.Flush())
	mustDo(t, v.Close())
}

// The generation that a cache shows of a member may never have reached its medium.
func TestAMemberIsNotedWithAGenerationThatItsMediumHas(t *testing.T) {
	v, disks := trio(t)
	mustDo(t, v.Close())
	c := disks[2].SetForgetful(true)
	m, err := geomlib.ReadMetadata(c)
	mustDo(t, err)
	settled := m.Member.Settled
	// A rise dies between its write of c and the flush.
	for _, d := range disks {
		m, err := geomlib.ReadMetadata(d)
		mustDo(t, err)
		m.Member.Generation++
		m.Member.Nonce = 77
		b := make([]byte, 512)
		mustDo(t, m.Encode(b))
		_, err = d.WriteAt(b, d.MediaSize()-512)
		mustDo(t, err)
		if d != c {
			mustDo(t, d.Flush())
		}
	}
	e, err := readExtension(disks[0], mustMeta(t, disks[0]))
	mustDo(t, err)
	e.rec.Clean = false
	e.rec.Sequence++
	mustDo(t, extblock.Store(disks[0], e.offset, e.rec))
	c.FailFrom(disktest.Flush, 1, syscall.EIO)
	if _, err := openDisks(Config{}, disks); !errors.Is(err, ErrFlushFailed) {
		t.Fatalf("the first start: %v", err)
	}
	mustDo(t, c.DropCache())
	if got := mustMeta(t, c).Member.Generation; got != settled {
		t.Fatalf("the medium has generation %d, not %d: this test shows nothing", got, settled)
	}
	w, err := openDisks(Config{}, disks)
	mustDo(t, err)
	holdsUnits(t, w, 9)
	_ = w.Close()
}

func mustMeta(t *testing.T, d *disktest.Disk) ondisk.Metadata {
	t.Helper()
	m, err := geomlib.ReadMetadata(d)
	mustDo(t, err)
	return m
}

func TestAnInterruptedJobWaitsForRoomThatAFailingComponentHas(t *testing.T) {
	v, disks := trio(t)
	for vc := int64(20); vc < 36; vc++ {
		mustDo(t, <-startWrite(v, vc*crashChunk, uint64(vc)).done)
	}
	mustDo(t, v.Flush())
	mustDo(t, v.Evacuate([]string{"b"}, "", JobOptions{Rate: 1}))
	mustDo(t, v.Close())
	if v.meta.ext.rec.Task.Kind != ondisk.TaskEvacuate {
		t.Fatal("the job was not interrupted: this test shows nothing")
	}
	disks[2].FailFrom(disktest.Write, 1, syscall.EROFS)
	var log bytes.Buffer
	v, err := openDisks(Config{Log: slog.New(slog.NewTextHandler(&log, nil))}, disks)
	mustDo(t, err)
	if j, ok := v.Job(); ok {
		t.Errorf("a job runs without room: %+v", j)
	}
	if !strings.Contains(log.String(), "waits for the components that take no writes") {
		t.Errorf("it is not told:\n%s", &log)
	}
	mustDo(t, v.Close())
	disks[2].Heal()
	v, err = openDisks(Config{}, disks)
	mustDo(t, err)
	if j, ok := v.Job(); !ok || j.Kind != jobEvacuate {
		t.Errorf("the job does not go on when there is room again: %+v, %v", j, ok)
	}
	mustDo(t, v.CancelJob())
	mustDo(t, v.Close())
}
