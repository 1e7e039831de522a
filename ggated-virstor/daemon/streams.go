package daemon

import (
	"context"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
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
	s, err := d.findActive(name)
	if err != nil {
		return res, err
	}
	if n, what := s.users(); n > 0 {
		return res, control.Errorf(control.Busy, "%s: Device busy (%s)", s.vol.Name(), what)
	}
	return d.verbsOf(s).Receive(ctx, name, r)
}

// Write implements control.Backend.
func (d *Daemon) Write(ctx context.Context, name string, r control.WriteRequest) error {
	s, err := d.findActive(name)
	if err != nil {
		return err
	}
	return d.verbsOf(s).Write(ctx, name, r)
}
