package supervisor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/gvirstor/gvirstor/ggated-virstor/space"
	"github.com/gvirstor/gvirstor/ggated-virstor/supervisor/internal/fdrpc"
)

// grow makes a provider for a volume that runs out of space.
func (s *Supervisor) grow(ctx context.Context, a growArgs) (fdrpc.Reply, error) {
	_, grower := s.helpers()
	if grower == nil {
		return fdrpc.Reply{}, fmt.Errorf("%s %s: --grow was not given", methodGrow, a.Volume)
	}
	var err error
	if a.Provider, err = grower.Grow(ctx, a.Volume); err != nil {
		return fdrpc.Reply{}, err
	}
	s.names.grew(a.Provider)
	return fdrpc.Reply{Body: a}, nil
}

// ungrow removes what grow made and what could not be added.
func (s *Supervisor) ungrow(ctx context.Context, a growArgs) error {
	_, grower := s.helpers()
	if grower == nil {
		return fmt.Errorf("%s %s: --grow was not given", methodUngrow, a.Volume)
	}
	if err := grower.Undo(ctx, a.Volume, a.Provider); err != nil {
		return err
	}
	s.names.ungrew(a.Provider)
	return nil
}

// alertLimit is the longest that a worker can have the command run.
const alertLimit = time.Hour

const (
	// maxAlerts is how many commands a worker can have run at once: more than
	// there are volumes that alert at the same time on any sane machine.
	maxAlerts = 64
	// maxAlertValue bounds one variable, in bytes.
	maxAlertValue = 4 << 10
)

// checkAlert refuses variables that are no facts of an alert: the command runs
// with more privilege than the worker has, and so does what it starts, such as
// gvirstor(8), which would ask another daemon for GVIRSTOR_CONTROL.
func checkAlert(env []string) error {
	for _, v := range env {
		name, value, _ := strings.Cut(v, "=")
		if !space.IsVariable(name) {
			return fmt.Errorf("run the alert command: %.40q is no variable of an alert", v)
		}
		if len(value) > maxAlertValue {
			return fmt.Errorf("run the alert command: %s has %d bytes, at most %d", name, len(value), maxAlertValue)
		}
	}
	return nil
}

// runAlert runs the administrator's command.
func (s *Supervisor) runAlert(ctx context.Context, a alertArgs) (fdrpc.Reply, error) {
	run, _ := s.helpers()
	if run == nil {
		return fdrpc.Reply{}, errors.New("run the alert command: --on-alert was not given")
	}
	if err := checkAlert(a.Env); err != nil {
		return fdrpc.Reply{}, err
	}
	defer s.alerts.Add(-1)
	if s.alerts.Add(1) > maxAlerts {
		return fdrpc.Reply{}, fmt.Errorf("run the alert command: %d of them run already", maxAlerts)
	}
	ctx, cancel := context.WithTimeout(ctx, min(a.Limit, alertLimit))
	defer cancel()
	out, err := run.Run(ctx, a.Env, a.Stdin)
	answer := alertAnswer{Output: out}
	if err != nil {
		answer.Failed = err.Error()
	}
	return fdrpc.Reply{Body: answer}, nil
}

// Run implements space.Runner: the supervisor runs its command.
func (c *Client) Run(ctx context.Context, env []string, stdin []byte) ([]byte, error) {
	limit := alertLimit
	if d, ok := ctx.Deadline(); ok {
		limit = time.Until(d)
	}
	var a alertAnswer
	if _, err := c.peer.Call(ctx, methodAlert, alertArgs{env, stdin, limit}, &a); err != nil {
		return nil, err
	}
	if a.Failed != "" {
		return a.Output, errors.New(a.Failed)
	}
	return a.Output, nil
}

// Growth is a space.Grower that has the supervisor grow the volumes that may
// grow.
type Growth struct {
	Client *Client
	May    func(volume string) bool
}

// Has implements space.Grower.
func (g Growth) Has(volume string) bool { return g.May(volume) }

// Grow implements space.Grower.
func (g Growth) Grow(ctx context.Context, volume string) (string, error) {
	var a growArgs
	_, err := g.Client.peer.Call(ctx, methodGrow, growArgs{Volume: volume}, &a)
	return a.Provider, err
}

// Undo implements space.Grower.
func (g Growth) Undo(ctx context.Context, volume, provider string) error {
	_, err := g.Client.peer.Call(ctx, methodUngrow, growArgs{Volume: volume, Provider: provider}, nil)
	return err
}
