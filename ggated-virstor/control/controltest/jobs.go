package controltest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

// JobFunc does a job on a volume until it is done or ctx ends; it then returns
// the context's error. It reports how far it is by progress, in bytes.
type JobFunc func(ctx context.Context, volume string, args json.RawMessage, progress func(done, total int64)) error

// Jobs runs long jobs, one a volume at a time, and remembers how the last one
// of each volume ended. Its methods are those that Backend asks for; a daemon
// embeds it. The zero value is ready; Handle comes before the first job.
type Jobs struct {
	kinds map[string]JobFunc

	mu     sync.Mutex
	last   int
	jobs   map[string]*job // by volume
	closed bool
	wg     sync.WaitGroup
}

type job struct {
	status control.JobStatus // but Rate; Jobs.mu guards it
	ended  time.Time
	cancel context.CancelFunc
}

// Handle makes f the job kind.
func (j *Jobs) Handle(kind string, f JobFunc) {
	if j.kinds == nil {
		j.kinds = make(map[string]JobFunc)
	}
	j.kinds[kind] = f
}

// StartJob starts a job on the volume called exactly volume. control.Busy: it has one.
func (j *Jobs) StartJob(_ context.Context, volume string, r control.JobRequest) (control.JobStatus, error) {
	f := j.kinds[r.Kind]
	if f == nil {
		return control.JobStatus{}, control.Errorf(control.Invalid, "unknown job '%s'", r.Kind)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return control.JobStatus{}, control.Errorf(control.Busy, "the daemon is stopping")
	}
	if other := j.jobs[volume]; other != nil && other.status.State == control.JobRunning {
		return control.JobStatus{}, control.Errorf(control.Busy, "%s is busy with %s (job %s)", volume, other.status.Kind, other.status.ID)
	}
	if j.jobs == nil {
		j.jobs = make(map[string]*job)
	}
	j.last++
	ctx, cancel := context.WithCancel(context.Background())
	n := &job{cancel: cancel, status: control.JobStatus{
		ID: strconv.Itoa(j.last), Volume: volume, Kind: r.Kind, State: control.JobRunning, Started: time.Now(),
	}}
	j.jobs[volume] = n
	j.wg.Go(func() { j.run(ctx, n, f, r.Args) })
	return n.status, nil
}

func (j *Jobs) run(ctx context.Context, n *job, f JobFunc, args json.RawMessage) {
	defer n.cancel()
	err := f(ctx, n.status.Volume, args, func(done, total int64) {
		j.mu.Lock()
		defer j.mu.Unlock()
		n.status.Done, n.status.Total = done, total
	})
	j.mu.Lock()
	defer j.mu.Unlock()
	n.ended = time.Now()
	switch {
	case err == nil:
		n.status.State = control.JobDone
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		n.status.State = control.JobCancelled
	default:
		n.status.State, n.status.Error = control.JobFailed, err.Error()
	}
}

// Job tells how far the job is, or how it ended.
func (j *Jobs) Job(_ context.Context, id string) (control.JobStatus, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	n, err := j.findLocked(id)
	if err != nil {
		return control.JobStatus{}, err
	}
	return n.now(), nil
}

// CancelJob asks a job to end. It does not wait; Job tells when it has.
func (j *Jobs) CancelJob(_ context.Context, id string) (control.JobStatus, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	n, err := j.findLocked(id)
	if err != nil {
		return control.JobStatus{}, err
	}
	n.cancel()
	return n.now(), nil
}

// VolumeJob is the volume's running job, for VolumeStatus.Job; nil when it has
// none.
func (j *Jobs) VolumeJob(volume string) *control.JobStatus {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := j.jobs[volume]
	if n == nil || n.status.State != control.JobRunning {
		return nil
	}
	s := n.now()
	return &s
}

// List is every job that is known, in the order of their start.
func (j *Jobs) List() []control.JobStatus {
	j.mu.Lock()
	defer j.mu.Unlock()
	var all []control.JobStatus
	for _, n := range j.jobs {
		all = append(all, n.now())
	}
	slices.SortFunc(all, func(a, b control.JobStatus) int { return cmp.Or(a.Started.Compare(b.Started), cmp.Compare(a.ID, b.ID)) })
	return all
}

// Close cancels every job and waits until they have ended.
func (j *Jobs) Close() {
	j.mu.Lock()
	j.closed = true
	for _, n := range j.jobs {
		n.cancel()
	}
	j.mu.Unlock()
	j.wg.Wait()
}

// findLocked finds a job by its id or its volume; j.mu is held.
func (j *Jobs) findLocked(id string) (*job, error) {
	for _, n := range j.jobs {
		if n.status.ID == id || n.status.Volume == id {
			return n, nil
		}
	}
	return nil, fmt.Errorf("find a job: %w", control.Errorf(control.NotFound, "no job %s", id))
}

// now is the status with its rate; Jobs.mu is held.
func (n *job) now() control.JobStatus {
	s := n.status
	end := n.ended
	if end.IsZero() {
		end = time.Now()
	}
	if d := end.Sub(s.Started).Seconds(); d > 0 {
		s.Rate = int64(float64(s.Done) / d)
	}
	return s
}
