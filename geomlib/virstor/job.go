package virstor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/gvirstor/gvirstor/ondisk"
)

// Errors of jobs.
var (
	// ErrJobRunning: a volume does one long job at a time.
	ErrJobRunning = errors.New("another job is running")
	// ErrNoJob: there is no job to cancel.
	ErrNoJob = errors.New("no job is running")
)

// JobState is how far a job is.
type JobState uint8

// The states of a job.
const (
	JobRunning JobState = iota
	JobDone
	JobCancelled
	JobFailed
)

func (s JobState) String() string {
	switch s {
	case JobRunning:
		return "running"
	case JobDone:
		return "done"
	case JobCancelled:
		return "cancelled"
	}
	return "failed"
}

// JobStatus is a long job on a volume, or the last one that ended.
type JobStatus struct {
	Kind        string
	State       JobState
	Done, Total int64 // bytes
	Moved       int64 // chunks moved or freed
	Result      string
	Err         error
	Elapsed     time.Duration
}

// JobOptions apply to every job.
type JobOptions struct {
	Rate   int64 // bytes per second; 0: as fast as it goes
	DryRun bool  // only tell what would be done
}

// jobRunner is the one long job of a volume. It works on its own goroutine, which
// Close and CancelJob end.
type jobRunner struct {
	mu      sync.Mutex
	current JobStatus
	any     bool
	started time.Time
	cancel  context.CancelFunc
	done    chan struct{}
}

// jobHandle is how a job reports and keeps to its rate.
type jobHandle struct {
	v    *Volume
	ctx  context.Context
	opt  JobOptions
	next time.Time // when the rate allows more
}

// startJob runs do on a goroutine. A task other than none is kept in the
// extension block while it runs, so that the next start resumes it.
func (v *Volume) startJob(kind string, task ondisk.Task, opt JobOptions, do func(j *jobHandle) error) error {
	r := &v.job
	r.mu.Lock()
	if r.done != nil {
		r.mu.Unlock()
		return fmt.Errorf("%s on %s: %w (%s)", kind, v.name, ErrJobRunning, r.current.Kind)
	}
	if v.closing.Load() || v.cfg.ReadOnly || !v.writable.Load() {
		r.mu.Unlock()
		return fmt.Errorf("%s on %s: %w", kind, v.name, ErrReadOnly)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.current = JobStatus{Kind: kind}
	r.any, r.started, r.cancel, r.done = true, time.Now(), cancel, make(chan struct{})
	r.mu.Unlock()
	if task.Kind != ondisk.TaskNone && !opt.DryRun {
		if err := v.setTask(task); err != nil {
			v.endJob(err)
			return fmt.Errorf("%s on %s: %w", kind, v.name, err)
		}
	}
	go func() {
		err := do(&jobHandle{v: v, ctx: ctx, opt: opt})
		if task.Kind != ondisk.TaskNone && !opt.DryRun && !v.closing.Load() {
			// Closing leaves the task for the next start.
			err = errors.Join(err, v.setTask(ondisk.Task{}))
		}
		v.endJob(err)
	}()
	return nil
}

func (v *Volume) setTask(t ondisk.Task) error {
	v.metaMu.Lock()
	defer v.metaMu.Unlock()
	return v.writeExtensionLocked(func(e *ondisk.Extension) { e.Task = t })
}

func (v *Volume) endJob(err error) {
	r := &v.job
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &r.current
	s.Elapsed, s.Err = time.Since(r.started), err
	switch {
	case err == nil:
		s.State = JobDone
	case errors.Is(err, context.Canceled):
		s.State = JobCancelled
	default:
		s.State = JobFailed
	}
	r.cancel()
	close(r.done)
	r.done = nil
	v.emit(Event{Kind: EventJob, Err: err})
}

// Job tells of the running job, or of the last one. ok is false when there was none.
func (v *Volume) Job() (s JobStatus, ok bool) {
	r := &v.job
	r.mu.Lock()
	defer r.mu.Unlock()
	s = r.current
	if r.done != nil {
		s.Elapsed = time.Since(r.started)
	}
	return s, r.any
}

// WaitJob waits until no job runs, and returns how the last one ended.
func (v *Volume) WaitJob(ctx context.Context) (JobStatus, error) {
	r := &v.job
	for {
		r.mu.Lock()
		done, s := r.done, r.current
		r.mu.Unlock()
		if done == nil {
			return s, nil
		}
		select {
		case <-done:
		case <-ctx.Done():
			return s, ctx.Err()
		}
	}
}

// CancelJob ends the running job after the chunk at hand, and waits for that.
func (v *Volume) CancelJob() error {
	r := &v.job
	r.mu.Lock()
	done, cancel := r.done, r.cancel
	r.mu.Unlock()
	if done == nil {
		return fmt.Errorf("%s: %w", v.name, ErrNoJob)
	}
	cancel()
	<-done
	return nil
}

func (j *jobHandle) total(n int64) {
	j.v.job.mu.Lock()
	j.v.job.current.Total = n
	j.v.job.mu.Unlock()
}

func (j *jobHandle) result(format string, args ...any) {
	j.v.job.mu.Lock()
	j.v.job.current.Result = fmt.Sprintf(format, args...)
	j.v.job.mu.Unlock()
}

// step reports n bytes done and waits as long as the rate asks for. It
// fails when the job is cancelled.
func (j *jobHandle) step(n int64, moved int64) error {
	r := &j.v.job
	r.mu.Lock()
	r.current.Done += n
	r.current.Moved += moved
	r.mu.Unlock()
	if j.opt.Rate > 0 && n > 0 {
		now := time.Now()
		if j.next.Before(now) {
			j.next = now
		}
		j.next = j.next.Add(time.Duration(float64(n) / float64(j.opt.Rate) * float64(time.Second)))
		t := time.NewTimer(time.Until(j.next))
		defer t.Stop()
		select {
		case <-t.C:
		case <-j.ctx.Done():
		}
	}
	return j.ctx.Err()
}
