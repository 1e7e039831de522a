package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// answerSpace does what concerns volumes that run out of space.
func (s *Supervisor) answerSpace(ctx context.Context, method string, body json.RawMessage) (reply, error) {
	if method == methodAlert {
		a, err := decode[alertArgs](body)
		if err != nil {
			return reply{}, err
		}
		return s.runAlert(ctx, a)
	}
	a, err := decode[growArgs](body)
	if err != nil {
		return reply{}, err
	}
	_, grower := s.helpers()
	if grower == nil {
		return reply{}, fmt.Errorf("%s %s: --grow was not given", method, a.Volume)
	}
	if method == methodUngrow {
		return reply{}, grower.Undo(ctx, a.Volume, a.Provider)
	}
	a.Provider, err = grower.Grow(ctx, a.Volume)
	return reply{body: a}, err
}

// alertLimit is the longest that a worker can have the command run.
const alertLimit = time.Hour

// alertPrefix is of the only variables that a worker may set for the command,
// which runs with more privilege than it has.
const alertPrefix = "GVIRSTOR_"

func (s *Supervisor) runAlert(ctx context.Context, a alertArgs) (reply, error) {
	run, _ := s.helpers()
	if run == nil {
		return reply{}, errors.New("run the alert command: --on-alert was not given")
	}
	for _, v := range a.Env {
		if !strings.HasPrefix(v, alertPrefix) {
			return reply{}, fmt.Errorf("run the alert command: %.40q is no variable of an alert", v)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, min(a.Limit, alertLimit))
	defer cancel()
	out, err := run.Run(ctx, a.Env, a.Stdin)
	answer := alertAnswer{Output: out}
	if err != nil {
		answer.Failed = err.Error()
	}
	return reply{body: answer}, nil
}

// Run implements alert.Runner: the supervisor runs its command.
func (c *Client) Run(ctx context.Context, env []string, stdin []byte) ([]byte, error) {
	limit := alertLimit
	if d, ok := ctx.Deadline(); ok {
		limit = time.Until(d)
	}
	var a alertAnswer
	if _, err := c.peer.call(ctx, methodAlert, alertArgs{env, stdin, limit}, &a); err != nil {
		return nil, err
	}
	if a.Failed != "" {
		return a.Output, errors.New(a.Failed)
	}
	return a.Output, nil
}

// Growth is a daemon.Grower that has the supervisor grow the volumes that may
// grow.
type Growth struct {
	Client *Client
	May    func(volume string) bool
}

// Has implements daemon.Grower.
func (g Growth) Has(volume string) bool { return g.May(volume) }

// Grow implements daemon.Grower.
func (g Growth) Grow(ctx context.Context, volume string) (string, error) {
	var a growArgs
	_, err := g.Client.peer.call(ctx, methodGrow, growArgs{Volume: volume}, &a)
	return a.Provider, err
}

// Undo implements daemon.Grower.
func (g Growth) Undo(ctx context.Context, volume, provider string) error {
	_, err := g.Client.peer.call(ctx, methodUngrow, growArgs{Volume: volume, Provider: provider}, nil)
	return err
}
