package supervisor

import (
	"context"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/gate"
	"github.com/gvirstor/gvirstor/ggated-virstor/gatepub/units"
	"github.com/gvirstor/gvirstor/ggated-virstor/supervisor/internal/fdrpc"
)

// What changes a unit is done for volumes whose locks are held, and to their own units.

func (s *Supervisor) acquire(ctx context.Context, spec units.Spec) (fdrpc.Reply, error) {
	if err := s.mayAcquire(spec); err != nil {
		return fdrpc.Reply{}, err
	}
	u, err := s.opt.Units.Acquire(ctx, spec)
	return fdrpc.Reply{Body: u}, err
}

// modeLimit is the longest that a worker's question may stay with GEOM.
const modeLimit = time.Minute

func (s *Supervisor) mode(ctx context.Context, a unitArgs) (fdrpc.Reply, error) {
	ctx, cancel := context.WithTimeout(ctx, min(a.Limit, modeLimit))
	defer cancel()
	m, err := s.opt.Units.Mode(ctx, a.Unit.Number)
	return fdrpc.Reply{Body: m}, err
}

func (s *Supervisor) recordProviders(a unitArgs) error {
	err := s.mayServe(a.ID)
	if err == nil {
		err = s.mayName(a.Providers)
	}
	if err != nil {
		return err
	}
	return s.opt.Units.RecordProviders(a.ID, a.Providers)
}

func (s *Supervisor) releaseUnit(a unitArgs) error {
	if err := s.mayServe(a.ID); err != nil {
		return err
	}
	if ours, err := s.opt.Units.Recorded(a.Key, a.Unit.Number); err != nil || !ours {
		return err // what is not recorded was released before
	}
	return s.opt.Units.Release(a.Key, a.Unit.Number, a.Force)
}

func (s *Supervisor) leftovers() (fdrpc.Reply, error) {
	left, err := s.opt.Units.Leftovers()
	return fdrpc.Reply{Body: left}, err
}

func (s *Supervisor) unitsOf(id uint32) (fdrpc.Reply, error) {
	if err := s.mayServe(id); err != nil {
		return fdrpc.Reply{}, err
	}
	us, err := s.opt.Units.UnitsOf(id)
	return fdrpc.Reply{Body: us}, err
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
	wantUnit := s.opt.GateUnit
	if spec.Map != 0 { // a snapshot or a further volume, of which there may be many
		wantUnit = gate.UnitAuto
		if behind, ok := strings.CutPrefix(name, want); ok && want != "" && strings.IndexAny(behind, "+@") == 0 && !strings.ContainsAny(behind, "/\x00") {
			return nil
		}
		want = ""
	}
	if name != want || name == "" && spec.Unit != wantUnit {
		return fmt.Errorf("a device %.200q, unit %d: the configuration asks for %q, unit %d: %w", name, spec.Unit, want, wantUnit, fs.ErrPermission)
	}
	return nil
}

// resizeUnit changes the size of a unit of a volume that is served.
func (s *Supervisor) resizeUnit(a unitArgs) error {
	made, err := s.opt.Units.Units()
	if err != nil {
		return err
	}
	for k, u := range made {
		if u.Number == a.Unit.Number && s.mayServe(k.ID) == nil {
			return s.opt.Units.Resize(a.Unit.Number, a.Size)
		}
	}
	return &gate.OpError{Cmd: gate.CmdModify, Unit: a.Unit.Number, Err: gate.ErrGone}
}
