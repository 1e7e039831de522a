package daemon

import (
	"context"
	"errors"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/publish"
)

// Clients implements control.Backend.
func (d *Daemon) Clients(context.Context) (control.Clients, error) {
	all := control.Clients{Clients: []control.ClientStatus{}}
	for _, p := range d.publishers {
		if l, ok := p.(publish.ClientLister); ok {
			all.Clients = append(all.Clients, l.Clients()...)
		}
	}
	return all, nil
}

// Disconnect implements control.Backend.
func (d *Daemon) Disconnect(_ context.Context, r control.DisconnectRequest) error {
	for _, p := range d.publishers {
		l, ok := p.(publish.ClientLister)
		if !ok {
			continue
		}
		for _, c := range l.Clients() {
			if c.ID != r.ID || r.Volume != "" && c.Volume != r.Volume {
				continue
			}
			if err := l.Disconnect(r.ID); !errors.Is(err, publish.ErrNoClient) {
				return err
			}
		}
	}
	if r.Volume != "" {
		return control.Errorf(control.NotFound, "no client %d of %s is connected", r.ID, r.Volume)
	}
	return control.Errorf(control.NotFound, "no client %d is connected", r.ID)
}
