package virstor

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/ondisk"
)

const jobChunk = ondisk.MinChunkMultiple

// filled makes a volume of 128 chunks on two disks of 32 and writes the chunks
// named.
func filled(t *testing.T, cfg Config, chunks ...int64) (*Volume, []*disktest.Disk) {
	t.Helper()
	disks := []*disktest.Disk{newMem("a", 32*jobChunk, 512), newMem("b", 32*jobChunk, 512)}
	label(t, 128*jobChunk, jobChunk, disks...)
	v := open(t, cfg, disks...)
	for _, c := range chunks {
		if _, err := v.WriteAt(bytes.Repeat([]byte{byte(c + 1)}, 512), c*jobChunk); err != nil {
			t.Fatal(err)
		}
	}
	return v, disks
}

// ended waits for the running job and fails unless it was done.
func ended(t *testing.T, v *Volume) JobStatus {
	t.Helper()
	s, err := v.WaitJob(context.Background())
	if err == nil {
		err = s.Err
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAJobIsLoggedAndCounted(t *testing.T) {
	var log bytes.Buffer
	v, _ := filled(t, Config{Log: slog.New(slog.NewTextHandler(&log, nil))}, 1, 2, 3)
	defer v.Close()
	if _, err := v.WriteAt(make([]byte, 512), 2*jobChunk); err != nil {
		t.Fatal(err)
	}
	if err := v.Reclaim(JobOptions{DryRun: true}); err != nil {
		t.Fatal(err)
	}
	if s := ended(t, v); !s.DryRun || !strings.HasPrefix(s.Result, "1 chunks") {
		t.Errorf("dry run: %+v", s)
	}
	if n := len(v.JobTotals()); n != 0 || log.Len() > 0 {
		t.Errorf("a dry run is counted %d times, and logged: %s", n, &log)
	}
	if err := v.Reclaim(JobOptions{}); err != nil {
		t.Fatal(err)
	}
	ended(t, v)
	got := v.JobTotals()["reclaim"]
	want := JobTotals{Bytes: 3 * jobChunk, Chunks: 1}
	want.Ended[JobDone] = 1
	if got != want {
		t.Errorf("totals %+v, want %+v", got, want)
	}
	for _, line := range []string{"msg=\"job begins\" volume=t job=reclaim", "msg=\"job done\" volume=t job=reclaim", "chunks=1", "came back"} {
		if !strings.Contains(log.String(), line) {
			t.Errorf("the log has no %q:\n%s", line, &log)
		}
	}
	// One that is cancelled: a rate that lets it go on for hours.
	if err := v.Reclaim(JobOptions{Rate: 1}); err != nil {
		t.Fatal(err)
	}
	if err := v.CancelJob(); err != nil {
		t.Fatal(err)
	}
	if n := v.JobTotals()["reclaim"].Ended[JobCancelled]; n != 1 || !strings.Contains(log.String(), "job cancelled") {
		t.Errorf("cancelled %d times:\n%s", n, &log)
	}
}

func TestEveryJobThatWasInterruptedGoesOn(t *testing.T) {
	args := JobArgs{JobOptions: JobOptions{Rate: 1}, Components: []string{"a"}, Target: "b", Size: 64 * jobChunk, Force: true}
	for _, kind := range JobKinds() {
		t.Run(kind, func(t *testing.T) {
			var log bytes.Buffer
			v, disks := filled(t, Config{}, 1, 2, 3, 4, 100, 101)
			if kind == jobPack {
				if err := v.Discard(2*jobChunk, 2*jobChunk); err != nil {
					t.Fatal(err)
				}
			}
			if err := v.StartJob(kind, args); err != nil {
				t.Fatal(err)
			}
			if err := v.Close(); err != nil {
				t.Fatal(err)
			}
			// The next start keeps to the rate too; the one after it is told of
			// none, as if the verb had been given without.
			v = open(t, Config{Log: slog.New(slog.NewTextHandler(&log, nil))}, disks...)
			s, ok := v.Job()
			if !ok || s.Kind != kind || s.Limit != 1 || !strings.Contains(log.String(), "an interrupted job goes on") {
				t.Fatalf("job %+v, %v\n%s", s, ok, &log)
			}
			if kind == jobResize && v.Size() != 64*jobChunk {
				t.Errorf("a shrink that goes on lets %d bytes be written", v.Size())
			}
			task := v.meta.ext.rec.Task
			if err := v.Close(); err != nil {
				t.Fatal(err)
			}
			v = open(t, Config{}, disks...)
			if err := v.CancelJob(); err != nil && !errors.Is(err, ErrNoJob) {
				t.Fatal(err)
			}
			if v.meta.ext.rec.Task.Kind != ondisk.TaskNone {
				t.Error("a cancelled job stays noted")
			}
			task.Arg[0] = 0
			if err := v.setTask(task); err != nil {
				t.Fatal(err)
			}
			if err := v.Close(); err != nil {
				t.Fatal(err)
			}
			v = open(t, Config{}, disks...)
			defer v.Close()
			ended(t, v)
			b := make([]byte, 512)
			for _, c := range []int64{1, 4} {
				if _, err := v.ReadAt(b, c*jobChunk); err != nil {
					t.Fatal(err)
				}
				if b[511] != byte(c+1) {
					t.Errorf("chunk %d reads as %d", c, b[511])
				}
			}
		})
	}
}

func TestFreedChunksComeBackWithoutAFlushFromClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, _ := filled(t, Config{}, 1, 2, 3)
		free := v.Status().Free
		if err := v.Discard(jobChunk, 2*jobChunk); err != nil {
			t.Fatal(err)
		}
		if s := v.Status(); s.Free != free || s.Pending != 2 {
			t.Errorf("at once: %d free, %d pending", s.Free, s.Pending)
		}
		time.Sleep(freedWait)
		synctest.Wait()
		if s := v.Status(); s.Free != free+2 || s.Pending != 0 {
			t.Errorf("later: %d free, %d pending", s.Free, s.Pending)
		}
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestWhatIsWrittenToTheTailMeanwhileIsNotShrunkAway(t *testing.T) {
	v, _ := filled(t, Config{}, 1, 100)
	defer v.Close()
	// As if chunk 100 had been written after Resize had looked.
	if err := (resizing{v: v, size: 64 * jobChunk}).start(JobOptions{}); err != nil {
		t.Fatal(err)
	}
	s, err := v.WaitJob(context.Background())
	if err != nil || !errors.Is(s.Err, ErrAllocated) || !strings.Contains(s.Err.Error(), "1 chunks, 131072 bytes") {
		t.Fatalf("%v, %v", s.Err, err)
	}
	b := make([]byte, 512)
	if _, err := v.ReadAt(b, 100*jobChunk); err != nil || b[0] != 101 {
		t.Errorf("it reads as %d: %v", b[0], err)
	}
	if v.Size() != 128*jobChunk {
		t.Errorf("size %d", v.Size())
	}
}

func TestAStopInTheMiddleOfAJobKeepsTheJobAndTheFence(t *testing.T) {
	v, disks := filled(t, Config{}, 1, 2, 3)
	if err := v.Evacuate([]string{"b"}, "", JobOptions{}); err != nil {
		t.Fatal(err)
	}
	ended(t, v)
	if err := v.Reclaim(JobOptions{Rate: 1}); err != nil {
		t.Fatal(err)
	}
	var kept *NotHandedBackError
	if err := v.Stop(); !errors.As(err, &kept) || !strings.Contains(kept.Error(), "unfinished reclaim") {
		t.Fatalf("stopped in the middle of a job: %v", err)
	}
	v = open(t, Config{}, disks[0])
	if j, ok := v.Job(); !ok || j.Kind != jobReclaim {
		t.Errorf("the job does not go on: %+v", j)
	}
	if err := v.CancelJob(); err != nil {
		t.Fatal(err)
	}
	if err := v.Stop(); err != nil {
		t.Errorf("stopped after the job was given up: %v", err)
	}
}

func TestTheTableOfJobsNamesTheTasksOfTheFormat(t *testing.T) {
	noted := make(map[ondisk.TaskKind]bool)
	for _, k := range jobKinds() {
		if k.task.String() != k.name || noted[k.task] || k.start == nil || k.resume == nil {
			t.Errorf("%s is noted as %v", k.name, k.task)
		}
		noted[k.task] = true
	}
	for kind := ondisk.TaskEvacuate; kind <= ondisk.TaskReclaim; kind++ {
		if !noted[kind] {
			t.Errorf("no job is noted as %v", kind)
		}
	}
}

func TestAJobThatCannotStartClosesTheProviderThatWasToJoin(t *testing.T) {
	v, _ := filled(t, Config{}, 1)
	defer v.Close()
	for _, c := range []struct {
		kind string
		want error
		args JobArgs
	}{
		{"juggle", ErrJobKind, JobArgs{}},
		{jobPack, ErrJobKind, JobArgs{}},
		{jobReplace, ErrRequest, JobArgs{}},
		{jobReplace, ErrRequest, JobArgs{Components: []string{"a", "b"}}},
		{jobReplace, ErrNotComponent, JobArgs{Components: []string{"nosuch"}}},
	} {
		joins := disktest.New("joins", 32*jobChunk, 512)
		c.args.Joins = joins
		if err := v.StartJob(c.kind, c.args); !errors.Is(err, c.want) {
			t.Errorf("%s %+v: %v, want %v", c.kind, c.args.Components, err, c.want)
		}
		if n := joins.Count(disktest.Close); n != 1 {
			t.Errorf("%s %+v closes the provider %d times", c.kind, c.args.Components, n)
		}
	}
}
