package daemon

import (
	"context"
	"fmt"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/publish"
)

// Read implements control.Backend.
func (d *Daemon) Read(ctx context.Context, name string, r control.ReadRequest) (control.Data, error) {
	s, err := d.findPool(name)
	if err != nil {
		return control.Data{}, err
	}
	return d.verbsOf(s).Read(ctx, name, r)
}

// Receive implements control.Backend. Who has the volume open would see it change.
func (d *Daemon) Receive(ctx context.Context, name string, r control.ReceiveRequest) (res control.ReceiveResult, err error) {
	s, err := d.findActivePool(name)
	if err != nil {
		return res, err
	}
	if what := s.usersOf(name); what != "" {
		return res, control.Errorf(control.Busy, "%s: Device busy (%s)", fullName(name, ""), what)
	}
	return d.verbsOf(s).Receive(ctx, name, r)
}

// Write implements control.Backend.
func (d *Daemon) Write(ctx context.Context, name string, r control.WriteRequest) error {
	s, err := d.findActivePool(name)
	if err != nil {
		return err
	}
	return d.verbsOf(s).Write(ctx, name, r)
}

// usersOf tells who has a volume, or a further one of its pool, open; nobody is empty.
func (s *served) usersOf(name string) string {
	own := s.own(name)
	if own == "" {
		_, what := s.users()
		return what
	}
	return usersAmong(s.shown()[publish.Title(own, "")])
}

// usersAmong says who uses what is published there, or is empty.
func usersAmong(all []control.Publication) string {
	for _, p := range all {
		switch {
		case p.Connections > 0:
			return fmt.Sprintf("%d NBD clients connected", p.Connections)
		case p.Mode != control.Mode{}:
			return fmt.Sprintf("/dev/%s is open (%v)", p.Name, p.Mode)
		}
	}
	return ""
}
