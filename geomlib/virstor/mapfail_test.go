package virstor

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
)

// wide opens a volume of 1024 chunks, whose map has 16 sectors, on one disk, and
// writes the chunks named.
func wide(t *testing.T, cfg Config, chunks ...int64) (*Volume, *disktest.Disk) {
	t.Helper()
	d := disktest.New("a", 32*crashChunk, 512)
	labelled(t, 1024, d)
	v, err := openDisks(cfg, []*disktest.Disk{d})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range chunks {
		if err := <-startWrite(v, c*crashChunk, uint64(c+1)).done; err != nil {
			t.Fatal(err)
		}
	}
	if err := v.Flush(); err != nil {
		t.Fatal(err)
	}
	return v, d
}

func TestADiscardThatFailsInOneMapSectorIsDoneInTheOthers(t *testing.T) {
	v, d := wide(t, Config{}, 1, 1000)
	remove := d.FailRange(disktest.Write, 1000/64*512, 512, syscall.EIO)
	if err := v.Discard(0, 1024*crashChunk); !errors.Is(err, syscall.EIO) {
		t.Fatalf("discard: %v", err)
	}
	// The sector of chunk 1 says that it is free. Were it overwritten as if it
	// were not, nobody would find the data.
	if v.chunks.Load(1).Allocated() {
		t.Error("a chunk is allocated in memory and free on the disk")
	}
	remove()
	if err := <-startWrite(v, crashChunk, 77).done; err != nil {
		t.Fatal(err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	v, err := openDisks(Config{}, []*disktest.Disk{d})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	b := make([]byte, unit)
	if _, err := v.ReadAt(b, crashChunk); err != nil || idOf(b) != 77 {
		t.Errorf("what was written after the discard reads as %d, %v", idOf(b), err)
	}
}

func TestAMoveThatFailedGivesItsTargetBack(t *testing.T) {
	v, d := wide(t, Config{}, 1, 2, 3, 100)
	if err := errors.Join(v.Discard(crashChunk, crashChunk), v.Flush()); err != nil {
		t.Fatal(err)
	}
	if err := v.waitFreed(); err != nil {
		t.Fatal(err)
	}
	free := v.Status().Free
	remove := d.FailRange(disktest.Write, 100/64*512, 512, syscall.EIO)
	for range 2 { // the second one is refused before it begins
		if err := v.Pack(JobOptions{}); err != nil && !errors.Is(err, ErrDegraded) {
			t.Fatal(err)
		}
		if s, _ := v.WaitJob(t.Context()); s.Err == nil {
			t.Fatal("the map was not written, and the job is done")
		}
	}
	remove()
	if err := v.Discard(3*crashChunk, crashChunk); err != nil { // which makes the committer try again
		t.Fatal(err)
	}
	if err := v.waitFreed(); err != nil {
		t.Fatal(err)
	}
	if got := v.Status().Free; got != free+1 {
		t.Errorf("%d chunks are free, want %d", got, free+1)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestAVolumeClosesThoughAMoveIsInDoubt(t *testing.T) {
	v, d := wide(t, Config{}, 1, 2, 100)
	if err := errors.Join(v.Discard(crashChunk, crashChunk), v.Flush()); err != nil {
		t.Fatal(err)
	}
	if err := v.waitFreed(); err != nil {
		t.Fatal(err)
	}
	d.FailRange(disktest.Write, 100/64*512, 512, syscall.EIO)
	if err := v.Pack(JobOptions{}); err != nil {
		t.Fatal(err)
	}
	if s, _ := v.WaitJob(t.Context()); s.Err == nil {
		t.Fatal("the map was not written, and the job is done")
	}
	w := startWrite(v, 100*crashChunk, 9)
	within(t, 30*time.Second, "close", func() { _ = v.Close() })
	if err := <-w.done; !errors.Is(err, ErrDegraded) {
		t.Errorf("a write to the chunk in doubt: %v", err)
	}
}

func TestAChunkWhoseMoveIsInDoubtCanBeRead(t *testing.T) {
	v, d := wide(t, Config{}, 1, 2, 100)
	mustDo(t, errors.Join(v.Discard(crashChunk, crashChunk), v.Flush()))
	mustDo(t, v.waitFreed())
	heal := d.FailRange(disktest.Write, 100/64*512, 512, syscall.EIO)
	mustDo(t, v.Pack(JobOptions{}))
	if s, _ := v.WaitJob(t.Context()); s.Err == nil {
		t.Fatal("the map was not written, and the job is done")
	}
	write := startWrite(v, 100*crashChunk, 9)
	b := make([]byte, unit)
	within(t, 30*time.Second, "read", func() {
		if _, err := v.ReadAt(b, 100*crashChunk); err != nil || idOf(b) != 101 {
			t.Errorf("it reads as %d, %v", idOf(b), err)
		}
	})
	select {
	case err := <-write.done:
		t.Errorf("a write to it ended with %v", err)
	default: // one copy would be older than the other
	}
	heal()
	mustDo(t, <-write.done) // when the map was written again
	if _, err := v.ReadAt(b, 100*crashChunk); err != nil || idOf(b) != 9 {
		t.Errorf("then it reads as %d, %v", idOf(b), err)
	}
	mustDo(t, v.Close())
}

func TestAComponentIsNotRemovedWhileAJobRuns(t *testing.T) {
	v, _ := filled(t, Config{}, 1, 2, 3)
	defer v.Close()
	if err := v.Pack(JobOptions{}); err != nil {
		t.Fatal(err)
	}
	ended(t, v)
	if err := v.Reclaim(JobOptions{Rate: 1}); err != nil {
		t.Fatal(err)
	}
	if err := v.Remove("b"); !errors.Is(err, ErrJobRunning) {
		t.Errorf("removed while a job runs: %v", err)
	}
	if err := v.CancelJob(); err != nil {
		t.Fatal(err)
	}
	if err := v.Remove("b"); err != nil {
		t.Error(err)
	}
}

func TestAChunkThatMovesHoldsUpNoOther(t *testing.T) {
	v, d := wide(t, Config{Workers: 2}, 1, 2, 3, 4)
	defer v.Close()
	if err := errors.Join(v.Discard(crashChunk, crashChunk), v.waitFreed()); err != nil {
		t.Fatal(err)
	}
	from := v.component(0).offset(v.chunks.Load(4).Phys().Chunk)
	reached, release := d.BlockWhen(func(o disktest.Op) bool { return o.Kind == disktest.Read && o.Off == from })
	if err := v.Pack(JobOptions{}); err != nil {
		t.Fatal(err)
	}
	<-reached
	// More of each than there are workers.
	var waiting []*asyncWrite
	for i := range int64(3) {
		for _, r := range []Request{
			{Op: OpDelete, Offset: 4 * crashChunk, Length: 512 * (i + 1)},
			{Op: OpDelete, Offset: 4 * crashChunk, Length: crashChunk},
			{Op: OpWriteZeroes, Offset: 4 * crashChunk, Length: 512 * (i + 1)},
			{Op: OpWrite, Offset: 4*crashChunk + 7, Length: 9, Data: make([]byte, 9)},
			{Op: OpWrite, Offset: 4 * crashChunk, Length: unit, Data: make([]byte, unit), Flags: FUA},
		} {
			a := &asyncWrite{r: r, done: make(chan error, 1)}
			a.r.Done = a
			v.Submit(&a.r)
			waiting = append(waiting, a)
		}
	}
	within(t, 20*time.Second, "I/O to other chunks", func() {
		if err := <-startWrite(v, 3*crashChunk, 33).done; err != nil {
			t.Error(err)
		}
		if _, err := v.ReadAt(make([]byte, 77), 2*crashChunk+3); err != nil {
			t.Error(err)
		}
		if err := v.Discard(2*crashChunk, crashChunk); err != nil {
			t.Error(err)
		}
	})
	release()
	for i, a := range waiting {
		if err := <-a.done; err != nil {
			t.Errorf("request %d: %v", i, err)
		}
	}
	ended(t, v)
}

// slowReader takes its time to read what is not a sector.
type slowReader struct {
	geomlib.Provider
	takes time.Duration
}

func (d *slowReader) ReadAt(p []byte, off int64) (int, error) {
	if d.takes > 0 && len(p) > d.SectorSize() {
		time.Sleep(d.takes)
	}
	return d.Provider.ReadAt(p, off)
}

func TestARateCountsTheTimeThatTheWorkTakes(t *testing.T) {
	const chunks, each = 20, 100 * time.Millisecond // at the rate
	rate := int64(jobChunk * int64(time.Second) / int64(each))
	for _, c := range []struct{ takes, want time.Duration }{
		{0, chunks * each},
		{each * 9 / 10, chunks * each},
		{3 * each, chunks * 3 * each}, // as fast as it goes
	} {
		t.Run(fmt.Sprint(c.takes), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				disk := newMem("a", 32*jobChunk, 512)
				label(t, 128*jobChunk, jobChunk, disk)
				d := &slowReader{Provider: disk.Plain()}
				m, err := geomlib.ReadMetadata(d)
				if err != nil {
					t.Fatal(err)
				}
				v, err := Open(Assemble([]Member{{d, m}})[0], Config{})
				if err != nil {
					t.Fatal(err)
				}
				for i := range int64(chunks) {
					if _, err := v.WriteAt([]byte{1}, i*jobChunk+100000); err != nil {
						t.Fatal(err)
					}
				}
				d.takes = c.takes
				start := time.Now()
				if err := v.Reclaim(JobOptions{Rate: rate}); err != nil {
					t.Fatal(err)
				}
				ended(t, v)
				if took := time.Since(start); took != c.want {
					t.Errorf("took %s, want %s", took, c.want)
				}
				d.takes = 0
				if err := v.Close(); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}
