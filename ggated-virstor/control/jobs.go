package control

import (
	"fmt"
	"time"
)

// JobArgs are the arguments of a JobRequest. Each kind uses what concerns it.
type JobArgs struct {
	Providers []string `json:"providers,omitempty"` // evacuate, replace: the components that leave
	Target    string   `json:"target,omitempty"`    // replace: the component that takes their chunks
	Size      int64    `json:"size,omitempty"`      // resize: bytes
	Force     bool     `json:"force,omitempty"`     // resize: give up what lies beyond; replace: whatever the target holds
	Rate      int64    `json:"rate,omitempty"`      // bytes a second; 0: as fast as it goes
	DryRun    bool     `json:"dry_run,omitempty"`   // only tell
}

// JobState is how a job stands.
type JobState string

// The states of a job.
const (
	JobRunning   JobState = "running"
	JobDone      JobState = "done"
	JobFailed    JobState = "failed"
	JobCancelled JobState = "cancelled"
)

// JobStatus is a long job at one moment, or how the last one ended. A volume
// does one at a time, whose ID is the volume's name.
type JobStatus struct {
	ID      string    `json:"id"`
	Volume  string    `json:"volume"`
	Kind    string    `json:"kind"`
	State   JobState  `json:"state"`
	Done    int64     `json:"done"`   // bytes
	Total   int64     `json:"total"`  // bytes; 0 while it is not known
	Rate    int64     `json:"rate"`   // bytes a second since the start
	Chunks  int64     `json:"chunks"` // moved or freed
	Started time.Time `json:"started"`
	Result  string    `json:"result,omitempty"` // in words, of one that ended
	Error   string    `json:"error,omitempty"`  // of a failed one
}

// Progress is how far a running job is, in words: "evacuate 43%", or without a
// figure while it is not known how much there is to do.
func (j *JobStatus) Progress() string {
	if j.Total == 0 {
		return j.Kind
	}
	return fmt.Sprintf("%s %d%%", j.Kind, min(100, Percent(j.Done, j.Total)))
}
