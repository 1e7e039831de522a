// Package controltest is a daemon's face without a daemon, for tests of those
// who talk to one.
package controltest

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

// Fake is a control.Backend over a Status that the test sets. What changes
// volumes changes that Status and is recorded in Calls. Its jobs are real. A verb
// that no test needs to do more of has no method here: see others.
type Fake struct {
	control.Hub
	Jobs
	others

	mu     sync.Mutex
	status control.Status
	calls  []string
	fail   map[string]error
	stops  map[string]control.StopResult

	alertFails bool
	clients    []control.ClientStatus
}

// others answers the verbs that Fake and Jobs have no method for: they are recorded,
// answer nothing, and fail as Fail says.
type others struct{ control.Verbs }

// New makes a Fake that serves s.
func New(s control.Status) *Fake {
	f := &Fake{status: s, fail: make(map[string]error), stops: make(map[string]control.StopResult)}
	f.others.Verbs = control.NewClient(func(_ context.Context, c control.Call) error { return f.record(c) })
	return f
}

// record notes a verb that has no method here.
func (f *Fake) record(c control.Call) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	what := c.Verb
	if c.Name != "" {
		what += " " + c.Name
	}
	f.calls = append(f.calls, fmt.Sprintf("%s %+v", what, c.Request))
	return f.fail[c.Verb]
}

// SetStatus replaces what is served.
func (f *Fake) SetStatus(s control.Status) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.status = s
}

// Fail makes verb ("status", "add", "remove", "stop", "serve", "start" of any job)
// fail with err, or succeed again when err is nil.
func (f *Fake) Fail(verb string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail[verb] = err
}

// Failure is what Fail set for verb, nil for nothing.
func (f *Fake) Failure(verb string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fail[verb]
}

// SetStopResult is what stopping volume answers.
func (f *Fake) SetStopResult(volume string, r control.StopResult) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stops[volume] = r
}

// Calls are the changes asked for so far, one line each.
func (f *Fake) Calls() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.calls)
}

// Status implements control.Backend.
func (f *Fake) Status(context.Context) (control.Status, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.status, f.fail["status"]
}

// Volume implements control.Backend.
func (f *Fake) Volume(_ context.Context, name string) (control.VolumeStatus, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.fail["status"]; err != nil {
		return control.VolumeStatus{}, err
	}
	i, err := f.findLocked(name)
	if err != nil {
		return control.VolumeStatus{}, err
	}
	return f.status.Volumes[i], nil
}

// Add implements control.Backend.
func (f *Fake) Add(_ context.Context, name string, r control.AddRequest) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	i, err := f.changeLocked("add", name, r)
	if err != nil {
		return err
	}
	v := &f.status.Volumes[i]
	for _, p := range r.Providers {
		v.Components = append(v.Components, control.ComponentStatus{Name: p, Index: len(v.Components)})
	}
	return nil
}

// Remove implements control.Backend.
func (f *Fake) Remove(_ context.Context, name string, r control.RemoveRequest) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	i, err := f.changeLocked("remove", name, r)
	if err != nil {
		return err
	}
	v := &f.status.Volumes[i]
	for _, p := range r.Providers {
		at := slices.IndexFunc(v.Components, func(c control.ComponentStatus) bool { return c.Name == p })
		if at < 0 {
			return control.Errorf(control.NotFound, "%s is no component of %s", p, v.Name)
		}
		v.Components = slices.Delete(slices.Clone(v.Components), at, at+1)
	}
	return nil
}

// Stop implements control.Backend. An open volume is busy.
func (f *Fake) Stop(_ context.Context, name string, r control.StopRequest) (control.StopResult, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i, err := f.changeLocked("stop", name, r)
	if err != nil {
		return control.StopResult{}, err
	}
	v := f.status.Volumes[i]
	for _, p := range v.Published {
		if !r.Force && (p.Connections > 0 || p.Mode != control.Mode{}) {
			return control.StopResult{}, control.Errorf(control.Busy, "%s is in use", p.Name)
		}
	}
	f.status.Volumes = slices.Delete(slices.Clone(f.status.Volumes), i, i+1)
	if result, ok := f.stops[v.Name]; ok {
		return result, nil
	}
	return control.StopResult{HandedBack: true}, nil
}

// Identify implements control.Backend. The new id is one more.
func (f *Fake) Identify(_ context.Context, name string, r control.IdentifyRequest) (control.VolumeStatus, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i, err := f.changeLocked("identify", name, r)
	if err != nil {
		return control.VolumeStatus{}, err
	}
	v := &f.status.Volumes[i]
	if r.Name != "" {
		v.Name = r.Name
	}
	if r.NewID {
		v.ID++
	}
	return *v, nil
}

// Reserve implements control.Backend.
func (f *Fake) Reserve(_ context.Context, name string, r control.ReserveRequest) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	i, err := f.changeLocked("reserve", name, r)
	if err == nil {
		f.status.Volumes[i].ReservedChunks = r.Chunks
	}
	return err
}

// Spare implements control.Backend.
func (f *Fake) Spare(_ context.Context, name string, r control.SpareRequest) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	i, err := f.changeLocked("spare", name, r)
	if err != nil {
		return err
	}
	v := &f.status.Volumes[i]
	v.Spares = slices.DeleteFunc(slices.Clone(v.Spares), func(s control.Spare) bool { return slices.Contains(r.Providers, s.Name) })
	if !r.Remove {
		for _, p := range r.Providers {
			v.Spares = append(v.Spares, control.Spare{Name: p})
		}
	}
	return nil
}

// TestAlert implements control.Backend.
func (f *Fake) TestAlert(_ context.Context, name string) (control.AlertTest, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.changeLocked("test-alert", name, control.None{}); err != nil {
		return control.AlertTest{}, err
	}
	return control.AlertTest{Channels: []control.AlertChannel{
		{Name: "log", Result: "written"}, {Name: "command", Result: "exit status 3", Failed: f.alertFails}}}, nil
}

// FailAlerts makes one channel of TestAlert fail.
func (f *Fake) FailAlerts() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.alertFails = true
}

// SetClients are who is connected.
func (f *Fake) SetClients(cs []control.ClientStatus) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.clients = cs
}

// Clients implements control.Backend.
func (f *Fake) Clients(context.Context) (control.Clients, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return control.Clients{Clients: slices.Clone(f.clients)}, f.fail["clients"]
}

// Disconnect implements control.Backend.
func (f *Fake) Disconnect(_ context.Context, r control.DisconnectRequest) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, fmt.Sprintf("disconnect %+v", r))
	i := slices.IndexFunc(f.clients, func(c control.ClientStatus) bool {
		return c.ID == r.ID && (r.Volume == "" || c.Volume == r.Volume)
	})
	if i < 0 {
		return control.Errorf(control.NotFound, "no client %d", r.ID)
	}
	f.clients = slices.Delete(slices.Clone(f.clients), i, i+1)
	return nil
}

// StartJob implements control.Backend.
func (f *Fake) StartJob(ctx context.Context, name string, r control.JobRequest) (control.JobStatus, error) {
	v, err := f.Volume(ctx, name)
	if err != nil {
		return control.JobStatus{}, err
	}
	if err := f.Failure("start"); err != nil {
		return control.JobStatus{}, err
	}
	j, err := f.Jobs.StartJob(ctx, v.Name, r)
	if err == nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.calls = append(f.calls, fmt.Sprintf("%s %s %s", r.Kind, v.Name, r.Args))
	}
	return j, err
}

// changeLocked records a change of a volume and finds it; f.mu is held.
func (f *Fake) changeLocked(verb, name string, r any) (int, error) {
	f.calls = append(f.calls, fmt.Sprintf("%s %s %+v", verb, name, r))
	if err := f.fail[verb]; err != nil {
		return 0, err
	}
	return f.findLocked(name)
}

// findLocked is the place of a volume; f.mu is held.
func (f *Fake) findLocked(name string) (int, error) {
	i := slices.IndexFunc(f.status.Volumes, func(v control.VolumeStatus) bool { return v.Is(name) })
	if i < 0 {
		return 0, control.Errorf(control.NotFound, "no volume %s", name)
	}
	return i, nil
}
