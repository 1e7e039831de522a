package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"github.com/gvirstor/gvirstor/geomlib/state"
	"github.com/gvirstor/gvirstor/ggated-virstor/supervisor/internal/fdrpc"
)

var errNoMemory = errors.New("what this host serves: no directory for it was given")

// remembers is h where it is noted what this host has served. A worker learns, and
// notes, only what it serves; a generation rises, but when the volume is handed back:
// then any set of the volume counts as no older, which is all that a worker that lies
// can bring about, and it can write to that volume anyhow.
func (s *Supervisor) remembers(h fdrpc.Handler) fdrpc.Handler {
	return func(ctx context.Context, body json.RawMessage) (fdrpc.Reply, error) {
		if s.opt.Memory == nil {
			return fdrpc.Reply{}, errNoMemory
		}
		return h(ctx, body)
	}
}

func (s *Supervisor) recall(id uint32) (fdrpc.Reply, error) {
	if err := s.mayServe(id); err != nil {
		return fdrpc.Reply{}, err
	}
	s.remembering.Lock()
	defer s.remembering.Unlock()
	v, known, err := s.opt.Memory.Recall(id)
	if err == nil && known {
		s.names.served(v.Providers)
	}
	return fdrpc.Reply{Body: recallAnswer{known, v}}, err
}

func (s *Supervisor) remember(v state.Volume) error {
	if err := s.mayServe(v.ID); err != nil {
		return err
	}
	s.remembering.Lock()
	defer s.remembering.Unlock()
	old, _, err := s.opt.Memory.Recall(v.ID)
	if err != nil {
		old = state.Volume{} // it is written anew
	}
	// A later start opens what is noted: no worker has a say in that.
	v.Providers = slices.Clone(v.Providers)
	for i, name := range v.Providers {
		if s.mayName([]string{name}) != nil && !slices.Contains(old.Providers, name) {
			v.Providers[i] = ""
		}
	}
	return s.opt.Memory.Remember(v)
}

func (s *Supervisor) beginAnew(id uint32) error {
	if err := s.mayServe(id); err != nil {
		return err
	}
	s.remembering.Lock()
	defer s.remembering.Unlock()
	return s.opt.Memory.BeginAnew(id)
}

// Memory is a daemon.Memory that has the supervisor remember.
type Memory struct{ Client *Client }

// Recall implements daemon.Memory.
func (m Memory) Recall(id uint32) (v state.Volume, known bool, err error) {
	var a recallAnswer
	_, err = m.Client.peer.Call(m.Client.peer.Context(), methodRecall, lockArgs{id}, &a)
	return a.Volume, a.Known, err
}

// Remember implements daemon.Memory.
func (m Memory) Remember(v state.Volume) error {
	_, err := m.Client.peer.Call(m.Client.peer.Context(), methodServes, v, nil)
	return err
}

// BeginAnew implements daemon.Memory.
func (m Memory) BeginAnew(id uint32) error {
	_, err := m.Client.peer.Call(m.Client.peer.Context(), methodAnew, lockArgs{id}, nil)
	return err
}
