package virstor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gvirstor/gvirstor/ondisk"
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
	DryRun      bool
	Done, Total int64 // bytes gone through, and all; Total is 0 while it is not known
	Moved       int64 // chunks moved or freed
	Limit       int64 // bytes per second; 0: none
	Result      string
	Err         error
	Elapsed     time.Duration
}

// JobTotals sum up the jobs of one kind since the volume was opened, without
// dry runs. Bytes and Chunks grow while a job runs.
type JobTotals struct {
	Ended  [JobFailed + 1]uint64 // by JobState
	Bytes  int64                 // gone through
	Chunks int64                 // moved or freed
}

// JobOptions apply to every job.
type JobOptions struct {
	Rate   int64 // bytes per second; 0: as fast as it goes
	DryRun bool  // only tell what would be done
}

// jobRunner is the one long job of a volume. It works on its own goroutine, which
// Close and CancelJob end.
type jobRunner struct {
	// starting is held while a job is started, and by what must not meet one.
	starting sync.Mutex

	mu      sync.Mutex
	totals  map[string]JobTotals // by kind
	current JobStatus
	any     bool
	started time.Time
	cancel  context.CancelFunc
	givenUp bool // cancelled for good: the next start does not go on with it
	done    chan struct{}
	waiting func() // what runs it, in a serial volume, until somebody waits for it
}

// jobHandle is how a job reports and keeps to its rate.
type jobHandle struct {
	v    *Volume
	ctx  context.Context
	opt  JobOptions
	next time.Time // when the rate allows more; the job's begin at first

	task   ondisk.Task // what the job is, for the next start
	stored bool        // the task is in the extension block
	notes  []string    // words for the result
}

// startJob runs do on a goroutine. A task other than none is kept in the
// extension block while it runs, so that the next start resumes it; a volume
// without one forgets.
func (v *Volume) startJob(kind string, task ondisk.Task, opt JobOptions, do func(j *jobHandle) error) error {
	v.job.starting.Lock()
	defer v.job.starting.Unlock()
	return v.startJobLocked(kind, task, opt, do)
}

// startJobLocked is startJob; v.job.starting is held.
func (v *Volume) startJobLocked(kind string, task ondisk.Task, opt JobOptions, do func(j *jobHandle) error) error {
	room, err := v.mayStartJob(opt)
	if err != nil {
		return fmt.Errorf("%s on %s: %w", kind, v.name, err)
	}
	if err := v.readOnly(); err != nil && !opt.DryRun {
		return fmt.Errorf("%s on %s: %w", kind, v.name, err)
	}
	return v.launch(kind, task, task.Kind != ondisk.TaskNone && room && !opt.DryRun, opt, do)
}

// launchLocked is startJobLocked of a job in which component 0 leaves without a write to
// it: the states of the volume do not forbid it, and its task cannot be kept yet.
// v.job.starting is held.
func (v *Volume) launchLocked(kind string, task ondisk.Task, opt JobOptions, do func(j *jobHandle) error) error {
	return v.launch(kind, task, false, opt, do)
}

// launch runs do; keep: its task is stored before. v.job.starting is held.
func (v *Volume) launch(kind string, task ondisk.Task, keep bool, opt JobOptions, do func(j *jobHandle) error) error {
	if err := v.mapsWritable(nil); err != nil && !opt.DryRun && kind != jobEvacuate && kind != jobReplace { // which have looked
		return fmt.Errorf("%s on %s: %w", kind, v.name, err)
	}
	r := &v.job
	r.mu.Lock()
	if r.done != nil {
		r.mu.Unlock()
		return fmt.Errorf("%s on %s: %w (%s)", kind, v.name, ErrJobRunning, r.current.Kind)
	}
	if v.cond.is(stateClosing) || v.cfg.ReadOnly && !opt.DryRun {
		r.mu.Unlock()
		return fmt.Errorf("%s on %s: %w", kind, v.name, ErrReadOnly)
	}
	if err := v.mapsKnown(); err != nil && !opt.DryRun {
		r.mu.Unlock()
		return fmt.Errorf("%s on %s: %w", kind, v.name, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.current = JobStatus{Kind: kind, DryRun: opt.DryRun, Limit: opt.Rate}
	r.any, r.started, r.cancel, r.givenUp, r.done = true, time.Now(), cancel, false, make(chan struct{})
	r.mu.Unlock()
	if keep {
		if err := v.setTask(task); err != nil {
			v.endJob(err, false)
			return fmt.Errorf("%s on %s: %w", kind, v.name, err)
		}
	}
	if !opt.DryRun {
		v.log.Info("job begins", "job", kind, "rate", opt.Rate)
	}
	run := func() {
		j := &jobHandle{v: v, ctx: ctx, opt: opt, next: time.Now(), task: task, stored: keep}
		err := do(j)
		later := j.stored && v.goesOnLater(err) // the task is for the next start
		if j.stored && !later {
			if failed := v.setTask(remainsOf(task, err)); !errors.Is(err, failed) {
				err = errors.Join(err, failed)
			}
		}
		v.endJob(err, later)
	}
	if v.cfg.serial {
		r.mu.Lock()
		r.waiting = run
		r.mu.Unlock()
		return nil
	}
	go run()
	return nil
}

// remainsOf is what stays noted of a task that ended with err: the component that a
// replacement was filling, so that the same can be asked for again.
func remainsOf(t ondisk.Task, err error) ondisk.Task {
	if err != nil && t.Kind == ondisk.TaskReplace {
		return ondisk.Task{Target: t.Target}
	}
	return ondisk.Task{}
}

// WasReplacing reports whether the last job was a replacement that was cancelled or
// failed while it moved data to the component of that name.
func (v *Volume) WasReplacing(name string) bool {
	v.metaMu.Lock()
	defer v.metaMu.Unlock()
	t := v.meta.ext.rec.Task
	if t.Kind != ondisk.TaskNone || t.Target == 0 {
		return false
	}
	return slices.ContainsFunc(v.components(), func(c *component) bool { return c.member == t.Target && c.name() == name })
}

// mayStartJob refuses a job that could not change the map, and tells whether
// there is an extension block to keep it in.
func (v *Volume) mayStartJob(opt JobOptions) (room bool, err error) {
	v.metaMu.Lock()
	defer v.metaMu.Unlock()
	if opt.DryRun {
		return v.meta.ext.room, nil
	}
	if err := v.cond.refusal(deedStartJob); err != nil {
		return false, err
	}
	return v.meta.ext.room, v.mayChangeLocked()
}

// goesOnLater tells whether a job that ended with err was interrupted by the
// closing of the volume.
func (v *Volume) goesOnLater(err error) bool {
	r := &v.job
	r.mu.Lock()
	defer r.mu.Unlock()
	return v.cond.is(stateClosing) && !r.givenUp && (errors.Is(err, context.Canceled) || errors.Is(err, ErrClosed))
}

func (v *Volume) setTask(t ondisk.Task) error {
	v.metaMu.Lock()
	defer v.metaMu.Unlock()
	return v.writeExtensionLocked(func(e *ondisk.Extension) { e.Task = t })
}

// endJob ends the running job. later: it goes on at the next start if it was
// cancelled.
func (v *Volume) endJob(err error, later bool) {
	r := &v.job
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &r.current
	s.Elapsed, s.Err = time.Since(r.started), err
	switch {
	case err == nil:
		s.State = JobDone
	case errors.Is(err, context.Canceled), later:
		s.State = JobCancelled
	default:
		s.State = JobFailed
	}
	if !s.DryRun {
		r.addLocked(s.Kind, func(t *JobTotals) { t.Ended[s.State]++ })
		v.logJobEnd(*s, later)
	}
	r.cancel()
	close(r.done)
	r.done = nil
	v.emit(Event{Kind: EventJob, Err: err})
}

// logJobEnd tells how a job ended.
func (v *Volume) logJobEnd(s JobStatus, later bool) {
	log := v.log.With("job", s.Kind, "bytes", s.Done, "chunks", s.Moved, "seconds", s.Elapsed.Seconds())
	switch {
	case s.State == JobFailed:
		log.Error("job failed", "error", s.Err)
	case s.State == JobCancelled && later:
		log.Info("job interrupted; the next start goes on with it")
	case s.State == JobCancelled:
		log.Info("job cancelled")
	default:
		log.Info("job done", "result", s.Result)
	}
}

// addLocked changes the totals of a kind; r.mu is held.
func (r *jobRunner) addLocked(kind string, change func(*JobTotals)) {
	if r.totals == nil {
		r.totals = make(map[string]JobTotals)
	}
	t := r.totals[kind]
	change(&t)
	r.totals[kind] = t
}

// JobTotals sums up the jobs, by their kinds. Kinds that never ran are missing.
func (v *Volume) JobTotals() map[string]JobTotals {
	v.job.mu.Lock()
	defer v.job.mu.Unlock()
	return maps.Clone(v.job.totals)
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
	r.runHere()
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
	if !v.job.end(true) {
		return fmt.Errorf("%s: %w", v.name, ErrNoJob)
	}
	return nil
}

// interrupt ends the running job, if there is one, for the next start to go on
// with.
func (r *jobRunner) interrupt() { r.end(false) }

// end ends the running job after the chunk at hand, and waits for that. It
// reports whether there was one.
func (r *jobRunner) end(forGood bool) bool {
	r.mu.Lock()
	done, cancel := r.done, r.cancel
	if done != nil {
		r.givenUp = r.givenUp || forGood
	}
	r.mu.Unlock()
	if done == nil {
		return false
	}
	cancel()
	r.runHere()
	<-done
	return true
}

func (j *jobHandle) kind() string {
	j.v.job.mu.Lock()
	defer j.v.job.mu.Unlock()
	return j.v.job.current.Kind
}

func (j *jobHandle) total(n int64) {
	j.v.job.mu.Lock()
	j.v.job.current.Total = n
	j.v.job.mu.Unlock()
}

// more adds to the total what turns out to be needed as well.
func (j *jobHandle) more(n int64) {
	j.v.job.mu.Lock()
	j.v.job.current.Total += n
	j.v.job.mu.Unlock()
}

func (j *jobHandle) result(format string, args ...any) {
	j.v.job.mu.Lock()
	j.v.job.current.Result = strings.Join(append([]string{fmt.Sprintf(format, args...)}, j.notes...), "; ")
	j.v.job.mu.Unlock()
}

// note adds to the result that follows.
func (j *jobHandle) note(format string, args ...any) {
	j.notes = append(j.notes, fmt.Sprintf(format, args...))
}

// step reports n bytes done and waits as long as the rate asks for. It
// fails when the job is cancelled.
func (j *jobHandle) step(n int64, moved int64) error {
	r := &j.v.job
	r.mu.Lock()
	r.current.Done += n
	r.current.Moved += moved
	if !j.opt.DryRun {
		r.addLocked(r.current.Kind, func(t *JobTotals) { t.Bytes, t.Chunks = t.Bytes+n, t.Chunks+moved })
	}
	r.mu.Unlock()
	if j.opt.Rate > 0 && n > 0 {
		j.pace(n)
	}
	return j.ctx.Err()
}

// pace waits until n bytes more are due at the rate. What took longer than it
// may is not made good for.
func (j *jobHandle) pace(n int64) {
	now := time.Now()
	j.next = j.next.Add(time.Duration(min(float64(n)/float64(j.opt.Rate), maxPace.Seconds()) * float64(time.Second)))
	if !j.next.After(now) {
		j.next = now
		return
	}
	t := time.NewTimer(j.next.Sub(now))
	defer t.Stop()
	select {
	case <-t.C:
	case <-j.ctx.Done():
	}
}

// maxPace is as long as one step ever waits: a larger figure would overflow.
const maxPace = 365 * 24 * time.Hour
