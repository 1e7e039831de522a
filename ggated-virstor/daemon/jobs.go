package daemon

import (
	"context"
	"time"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/publish"
	"github.com/gvirstor/gvirstor/ggated-virstor/verbs"
)

// StartJob implements control.Backend. A volume does one job at a time, so the
// volume's name is the job's.
func (d *Daemon) StartJob(ctx context.Context, name string, r control.JobRequest) (control.JobStatus, error) {
	s, err := d.findActive(name)
	if err != nil {
		return control.JobStatus{}, err
	}
	if verbs.OpensTarget(r) {
		d.verbs.Lock()
		defer d.verbs.Unlock()
	}
	j, err := d.verbsOf(s).StartJob(ctx, name, r)
	return d.jobFollowed(ctx, s, j), err
}

// Job implements control.Backend.
func (d *Daemon) Job(ctx context.Context, id string) (control.JobStatus, error) {
	s, err := d.findVolume(id)
	if err != nil {
		return control.JobStatus{}, err
	}
	j, err := d.verbsOf(s).Job(ctx, id)
	return d.jobFollowed(ctx, s, j), err
}

// jobFollowed is a job of s, which has not ended before the publications have followed.
func (d *Daemon) jobFollowed(ctx context.Context, s *served, j control.JobStatus) control.JobStatus {
	if j.State == control.JobDone {
		d.followed(ctx, s)
	}
	return j
}

// CancelJob implements control.Backend.
func (d *Daemon) CancelJob(ctx context.Context, id string) (control.JobStatus, error) {
	s, err := d.findVolume(id)
	if err != nil {
		return control.JobStatus{}, err
	}
	return d.verbsOf(s).CancelJob(ctx, id)
}

// drainTime is how long a verb waits for requests of clients that are gone.
const drainTime = 30 * time.Second

// drain waits for requests of clients that are gone: what they have at work was
// meant for the volume as it is.
func (s *served) drain(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, drainTime)
	defer cancel()
	for _, p := range s.pubs {
		if q, ok := p.(publish.Drainer); ok {
			if err := q.Drain(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}
