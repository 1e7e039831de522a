package supervisor

import (
	"context"
	"errors"

	"github.com/gvirstor/gvirstor/ggated-virstor/publish"
)

// fence keeps a host from the components of a volume that the worker serves. What of it
// the worker can choose is told to the command as text, quoted by nobody: it is in the
// environment.
func (s *Supervisor) fence(ctx context.Context, v publish.Fenced) error {
	if s.opt.Fence == nil {
		return errors.New("fence a host off: --fence-command was not given")
	}
	if err := s.mayServe(v.ID); err != nil {
		return err
	}
	return s.opt.Fence(ctx, v)
}

// Fence implements daemon.Fencer: the supervisor does it.
func (c *Client) Fence(ctx context.Context, v publish.Fenced) error {
	_, err := c.peer.Call(ctx, methodFence, v, nil)
	return err
}
