package supervisor

import (
	"context"
	"os"
	"slices"

	"github.com/gvirstor/gvirstor/ggated-virstor/supervisor/internal/fdrpc"
)

// openNamed answers methodOpen: with what is held, or with what may be opened.
func (s *Supervisor) openNamed(ctx context.Context, t tenure, a openArgs) (fdrpc.Reply, error) {
	a.ReadOnly = a.ReadOnly || s.opt.ReadOnly
	if o, f := s.store.reopen(t, a); f != nil {
		return fdrpc.One(o, f, nil)
	}
	name, err := s.names.mayOpen(a.Name)
	if err != nil {
		return fdrpc.Reply{}, err
	}
	a.Name = name
	o, f, err := s.store.open(ctx, t, a)
	if err == nil {
		s.names.opened(name, o.Name)
	}
	return fdrpc.One(o, f, err)
}

// peekNamed is openNamed for methodPeek.
func (s *Supervisor) peekNamed(ctx context.Context, t tenure, a openArgs) (fdrpc.Reply, error) {
	a.ReadOnly = true
	if o, f := s.store.reopen(t, a); f != nil {
		return fdrpc.One(o, f, nil)
	}
	name, err := s.names.mayOpen(a.Name)
	if err != nil {
		return fdrpc.Reply{}, err
	}
	a.Name = name
	o, f, err := s.store.peek(ctx, a)
	if err != nil {
		return fdrpc.Reply{}, err
	}
	s.names.opened(name, o.Name)
	return fdrpc.Reply{Body: o, Once: []*os.File{f}}, nil
}

// connectNamed answers methodConnect: with a new connection to what the worker has
// open, or may open.
func (s *Supervisor) connectNamed(ctx context.Context, a openArgs) (fdrpc.Reply, error) {
	if err := s.mayName([]string{a.Name}); err != nil {
		return fdrpc.Reply{}, err
	}
	f, state, err := s.opt.Registry.Connect(ctx, a.Name)
	if err != nil {
		return fdrpc.Reply{}, err
	}
	return fdrpc.Reply{Body: openAnswer{Name: a.Name, State: state}, Once: []*os.File{f}}, nil
}

// mayName reports that a worker may have the supervisor note these names: it has
// them open, or may open them.
func (s *Supervisor) mayName(all []string) error {
	for _, name := range all {
		if s.store.holds(name) {
			continue
		}
		if _, err := s.names.mayOpen(name); err != nil {
			return err
		}
	}
	return nil
}

// remembered are the providers in the records of devices that a former daemon, or
// a former worker, left. mayName kept others out of them.
func (s *Supervisor) remembered() ([]string, error) {
	left, err := s.opt.Units.Leftovers()
	if err != nil {
		return nil, err
	}
	var all []string
	for _, providers := range left {
		all = append(all, providers...)
	}
	slices.Sort(all)
	return all, nil
}
