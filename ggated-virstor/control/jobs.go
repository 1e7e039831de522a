package control

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
)

// JobRequest starts a long job on a volume.
type JobRequest struct {
	Kind string          `json:"kind"` // "evacuate", "pack", …
	Args json.RawMessage `json:"args,omitempty"`
}

// JobState is how a job stands.
type JobState string

// The states of a job.
const (
	JobRunning  JobState = "running"
	JobDone     JobState = "done"
	JobFailed   JobState = "failed"
	JobCanceled JobState = "canceled"
)

// JobStatus is a long job at one moment.
type JobStatus struct {
	ID      string    `json:"id"`
	Volume  string    `json:"volume"`
	Kind    string    `json:"kind"`
	State   JobState  `json:"state"`
	Done    int64     `json:"done"`  // bytes
	Total   int64     `json:"total"` // bytes; 0 while it is not known
	Rate    int64     `json:"rate"`  // bytes a second since the start
	Started time.Time `json:"started"`
	Error   string    `json:"error,omitempty"` // of a failed one
}

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
	status JobStatus // but Rate; Jobs.mu guards it
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

// StartJob starts a job on the volume called exactly volume. Busy: it has one.
func (j *Jobs) StartJob(_ context.Context, volume string, r JobRequest) (JobStatus, error) {
	f := j.kinds[r.Kind]
	if f == nil {
		return JobStatus{}, Errorf(Invalid, "unknown job '%s'", r.Kind)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return JobStatus{}, Errorf(Busy, "the daemon is stopping")
	}
	if other := j.jobs[volume]; other != nil && other.status.State == JobRunning {
		return JobStatus{}, Errorf(Busy, "%s is busy with %s (job %s)", volume, other.status.Kind, other.status.ID)
	}
	if j.jobs == nil {
		j.jobs = make(map[string]*job)
	}
	j.last++
	ctx, cancel := context.WithCancel(context.Background())
	n := &job{cancel: cancel, status: JobStatus{
		ID: strconv.Itoa(j.last), Volume: volume, Kind: r.Kind, State: JobRunning, Started: time.Now(),
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
		n.status.State = JobDone
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		n.status.State = JobCanceled
	default:
		n.status.State, n.status.Error = JobFailed, err.Error()
	}
}

// Job tells how far the job is, or how it ended.
func (j *Jobs) Job(_ context.Context, id string) (JobStatus, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	n, err := j.findLocked(id)
	if err != nil {
		return JobStatus{}, err
	}
	return n.now(), nil
}

// CancelJob asks a job to end. It does not wait; Job tells when it has.
func (j *Jobs) CancelJob(_ context.Context, id string) (JobStatus, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	n, err := j.findLocked(id)
	if err != nil {
		return JobStatus{}, err
	}
	n.cancel()
	return n.now(), nil
}

// VolumeJob is the volume's running job, for VolumeStatus.Job; nil when it has
// none.
func (j *Jobs) VolumeJob(volume string) *JobStatus {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := j.jobs[volume]
	if n == nil || n.status.State != JobRunning {
		return nil
	}
	s := n.now()
	return &s
}

// List is every job that is known, in the order of their start.
func (j *Jobs) List() []JobStatus {
	j.mu.Lock()
	defer j.mu.Unlock()
	var all []JobStatus
	for _, n := range j.jobs {
		all = append(all, n.now())
	}
	slices.SortFunc(all, func(a, b JobStatus) int { return cmp.Or(a.Started.Compare(b.Started), cmp.Compare(a.ID, b.ID)) })
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

// findLocked finds a job; j.mu is held.
func (j *Jobs) findLocked(id string) (*job, error) {
	for _, n := range j.jobs {
		if n.status.ID == id {
			return n, nil
		}
	}
	return nil, fmt.Errorf("find a job: %w", Errorf(NotFound, "no job %s", id))
}

// now is the status with its rate; Jobs.mu is held.
func (n *job) now() JobStatus {
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
