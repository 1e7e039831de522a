package virstor

import (
	"bytes"
	"errors"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/gvirstor/gvirstor/geomlib/disktest"
)

// gathered does a request as who gathers them does.
func gathered(v *Volume, op Op, b []byte, off int64) error {
	a := &asyncWrite{done: make(chan error, 1)}
	a.r = Request{Op: op, Flags: Gather, Offset: off, Length: int64(len(b)), Data: b, Done: a}
	v.Submit(&a.r)
	v.Push()
	return <-a.done
}

// starting is a volume of one chunk on a disk that begins transfers.
func starting(t *testing.T, cfg Config) (*Volume, *disktest.Disk) {
	d := disktest.New("a", 16*crashChunk, 512).SetCached(false).SetBuffered(false).SetStarts(true)
	labelled(t, 64, d)
	v, err := openDisks(cfg, []*disktest.Disk{d})
	mustDo(t, err)
	t.Cleanup(func() { _ = v.Close() }) // or it is closed already
	_, err = v.WriteAt(make([]byte, crashChunk), 0)
	mustDo(t, err)
	mustDo(t, v.Flush())
	return v, d
}

// What is gathered is sent together, by Push and not before.
func TestGatheredRequestsBeginWithPush(t *testing.T) {
	v, d := starting(t, Config{})
	d.ResetCounts()
	var all []*asyncWrite
	for i := range int64(8) {
		a := &asyncWrite{done: make(chan error, 1)}
		a.r = Request{Op: OpWrite, Flags: Gather, Offset: i * 512, Length: 512, Data: bytes.Repeat([]byte{byte(i + 1)}, 512), Done: a}
		all = append(all, a)
		v.Submit(&a.r)
	}
	if n := d.Count(disktest.Write); n != 0 {
		t.Errorf("%d writes before Push", n)
	}
	v.Push()
	for _, a := range all {
		mustDo(t, <-a.done)
	}
	if n := d.Count(disktest.Write); n != 8 {
		t.Errorf("%d writes", n)
	}
	b := make([]byte, 512)
	for i := range int64(8) {
		mustDo(t, gathered(v, OpRead, b, i*512))
		if b[0] != byte(i+1) || b[511] != byte(i+1) {
			t.Errorf("sector %d holds %d", i, b[0])
		}
	}
	a := startWrite(v, 0, 7) // who does not gather is not asked to push
	mustDo(t, <-a.done)
}

// flushesWhatWasStarted flushes after a write.
func flushesWhatWasStarted(t *testing.T, cfg Config) error {
	v, d := starting(t, cfg)
	mustDo(t, gathered(v, OpWrite, bytes.Repeat([]byte{9}, 512), 1024))
	d.ResetCounts()
	mustDo(t, v.Flush())
	if d.Count(disktest.Flush) == 0 {
		return errors.New("the disk was not asked to flush a write")
	}
	return nil
}

// keepsWhatWasStarted frees a chunk that a write is under way to.
func keepsWhatWasStarted(t *testing.T, cfg Config) (err error) {
	synctest.Test(t, func(t *testing.T) {
		v, _ := starting(t, cfg)
		defer v.Close()
		a := &asyncWrite{done: make(chan error, 1)}
		a.r = Request{Op: OpWrite, Flags: Gather, Length: 512, Data: make([]byte, 512), Done: a}
		v.Submit(&a.r)
		freed := make(chan error, 1)
		go func() { freed <- v.Discard(0, crashChunk) }()
		synctest.Wait()
		if len(freed) > 0 {
			err = errors.New("a chunk was freed while a write to it was under way")
		}
		v.Push()
		err = errors.Join(err, <-a.done, <-freed)
	})
	return err
}

// A read that fails is tried again by who may wait. A write that fails is not: it is told,
// and the chunk is nobody's afterwards.
func TestTransfersThatFailAreToldAndLeaveNothingPinned(t *testing.T) {
	v, d := starting(t, Config{})
	b := make([]byte, 512)
	d.ResetCounts()
	d.FailNth(disktest.Read, 1, syscall.EIO)
	if err := gathered(v, OpRead, b, 0); err != nil {
		t.Errorf("read that fails once: %v", err)
	}
	if n := d.Count(disktest.Read); n != 2 {
		t.Errorf("read %d times", n)
	}
	d.FailNth(disktest.Write, 1, syscall.EIO)
	if err := gathered(v, OpWrite, b, 0); !errors.Is(err, syscall.EIO) {
		t.Errorf("write that fails once: %v", err)
	}
	if n := v.component(0).stats.writeErrors.Load(); n != 1 {
		t.Errorf("%d write errors", n)
	}
	mustDo(t, v.Discard(0, crashChunk)) // which has the chunk to itself
}

func TestStartedRequestsAllocateLittle(t *testing.T) {
	v, _ := starting(t, Config{})
	b := make([]byte, 512)
	done := make(doneCounter, 1)
	r := &Request{Length: 512, Data: b, Done: done, Flags: Gather}
	for _, op := range []Op{OpRead, OpWrite} {
		f := func() { r.Op = op; v.Submit(r); v.Push(); <-done }
		f()
		// A function of the disk, its goroutine, and the list of both.
		if n := testing.AllocsPerRun(200, f); n > 4 {
			t.Errorf("%s allocates %v times", op, n)
		}
	}
}

func TestEachRuleOfWhatIsStartedIsNeeded(t *testing.T) {
	for name, r := range map[string]struct {
		rule startRule
		try  func(*testing.T, Config) error
	}{
		"a chunk is nobody else's while a request to it is under way": {breakStartedUnpinned, keepsWhatWasStarted},
		"a flush covers writes that were started":                     {breakStartedClean, flushesWhatWasStarted},
	} {
		t.Run(name, func(t *testing.T) {
			isNeeded(t, Config{breakStart: r.rule}, r.try)
		})
	}
}
