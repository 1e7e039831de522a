package supervisor

import (
	"encoding/json"
	"errors"

	"github.com/gvirstor/gvirstor/geomlib/state"
)

var errNoMemory = errors.New("what this host serves: no directory for it was given")

// answerMemory does what concerns what this host has served. A worker learns, and
// notes, only what it serves; a generation rises, but when the volume is handed back:
// then any set of the volume counts as no older, which is all that a worker that lies
// can bring about, and it can write to that volume anyhow.
func (s *Supervisor) answerMemory(method string, body json.RawMessage) (reply, error) {
	if s.opt.Memory == nil {
		return reply{}, errNoMemory
	}
	a, err := decode[state.Volume](body) // whose id is that of lockArgs, too
	if err == nil {
		err = s.mayServe(a.ID)
	}
	if err != nil {
		return reply{}, err
	}
	s.remembering.Lock()
	defer s.remembering.Unlock()
	switch method {
	case methodRecall:
		v, known, err := s.opt.Memory.Recall(a.ID)
		return reply{body: recallAnswer{known, v}}, err
	case methodAnew:
		return reply{}, s.opt.Memory.BeginAnew(a.ID)
	}
	return reply{}, s.opt.Memory.Remember(a)
}

// Memory is a daemon.Memory that has the supervisor remember.
type Memory struct{ Client *Client }

// Recall implements daemon.Memory.
func (m Memory) Recall(id uint32) (v state.Volume, known bool, err error) {
	var a recallAnswer
	_, err = m.Client.peer.call(m.Client.peer.ctx, methodRecall, lockArgs{id}, &a)
	return a.Volume, a.Known, err
}

// Remember implements daemon.Memory.
func (m Memory) Remember(v state.Volume) error {
	_, err := m.Client.peer.call(m.Client.peer.ctx, methodServes, v, nil)
	return err
}

// BeginAnew implements daemon.Memory.
func (m Memory) BeginAnew(id uint32) error {
	_, err := m.Client.peer.call(m.Client.peer.ctx, methodAnew, lockArgs{id}, nil)
	return err
}
