package supervisor

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"strings"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/gate"
	"github.com/gvirstor/gvirstor/ggated-virstor/gatepub/units"
)

// answerUnits answers what concerns units. What changes one is done for volumes
// whose locks are held, and to their own units.
func (s *Supervisor) answerUnits(ctx context.Context, method string, body json.RawMessage) (reply, error) {
	k := s.opt.Units
	if method == methodAcquire {
		spec, err := decode[units.Spec](body)
		if err == nil {
			err = s.mayAcquire(spec)
		}
		if err != nil {
			return reply{}, err
		}
		u, err := k.Acquire(ctx, spec)
		return reply{body: u}, err
	}
	a, err := decode[unitArgs](body)
	if err != nil {
		return reply{}, err
	}
	switch method {
	case methodConfirm:
		return reply{}, k.Confirm(ctx, a.ID, a.Unit)
	case methodMode:
		var m geomlib.Mode
		m, err = k.Mode(ctx, a.Unit.Number)
		return reply{body: m}, err
	case methodResize:
		return reply{}, s.resizeUnit(a)
	case methodRecord:
		if err = s.mayServe(a.ID); err == nil {
			err = s.mayName(a.Providers)
		}
		if err != nil {
			return reply{}, err
		}
		return reply{}, k.RecordProviders(a.ID, a.Providers)
	case methodRelease:
		if err = s.mayServe(a.ID); err != nil {
			return reply{}, err
		}
		if ours, err := k.Recorded(a.ID, a.Unit.Number); err != nil || !ours {
			return reply{}, err // what is not recorded was released before
		}
		return reply{}, k.Release(a.ID, a.Unit.Number, a.Force)
	case methodLeftovers:
		var left map[uint32][]string
		left, err = k.Leftovers()
		return reply{body: left}, err
	case methodCheck:
		return reply{}, k.CheckComponents(ctx, a.Providers)
	}
	return reply{}, fmt.Errorf("the supervisor does not know %.40q: supervisor and worker must be of one version", method)
}

// mayServe refuses what concerns a volume that the worker has not locked.
func (s *Supervisor) mayServe(id uint32) error {
	if !s.store.hasLock(id) {
		return fmt.Errorf("volume %08x is not served here: %w", id, fs.ErrPermission)
	}
	return nil
}

// mayAcquire refuses units that the configuration does not ask for.
func (s *Supervisor) mayAcquire(spec units.Spec) error {
	if err := s.mayServe(spec.ID); err != nil {
		return err
	}
	if err := s.mayName(spec.Providers); err != nil {
		return err
	}
	name, want := spec.Name, s.opt.GateName
	if strings.HasSuffix(want, "/") {
		volume, ok := strings.CutPrefix(name, want)
		if !ok || volume == "" || volume == "." || volume == ".." || strings.ContainsAny(volume, "/\x00") {
			return fmt.Errorf("a device %.200q: the configuration asks for %sNAME: %w", name, want, fs.ErrPermission)
		}
		return nil
	}
	if name != want || name == "" && spec.Unit != s.opt.GateUnit {
		return fmt.Errorf("a device %.200q, unit %d: the configuration asks for %q, unit %d: %w", name, spec.Unit, want, s.opt.GateUnit, fs.ErrPermission)
	}
	return nil
}

// resizeUnit changes the size of a unit of a volume that is served.
func (s *Supervisor) resizeUnit(a unitArgs) error {
	made, err := s.opt.Units.Units()
	if err != nil {
		return err
	}
	for id, u := range made {
		if u.Number == a.Unit.Number && s.mayServe(id) == nil {
			return s.opt.Units.Resize(a.Unit.Number, a.Size)
		}
	}
	return &gate.OpError{Cmd: gate.CmdModify, Unit: a.Unit.Number, Err: gate.ErrGone}
}
