package daemon

import (
	"context"
	"errors"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd"
)

// clientLister is a Publisher whose clients can be told apart.
type clientLister interface {
	Clients() []control.ClientStatus
	// Disconnect ends a connection (nbd.ErrNoClient).
	Disconnect(id uint64) error
}

// Clients implements control.Backend.
func (d *Daemon) Clients(context.Context) (control.Clients, error) {
	all := control.Clients{Clients: []control.ClientStatus{}}
	for _, p := range d.publish {
		if l, ok := p.(clientLister); ok {
			all.Clients = append(all.Clients, l.Clients()...)
		}
	}
	return all, nil
}

// Disconnect implements control.Backend.
func (d *Daemon) Disconnect(_ context.Context, r control.DisconnectRequest) error {
	for _, p := range d.publish {
		l, ok := p.(clientLister)
		if !ok {
			continue
		}
		for _, c := range l.Clients() {
			if c.ID != r.ID || r.Volume != "" && c.Volume != r.Volume {
				continue
			}
			if err := l.Disconnect(r.ID); !errors.Is(err, nbd.ErrNoClient) {
				return err
			}
		}
	}
	if r.Volume != "" {
		return control.Errorf(control.NotFound, "no client %d of %s is connected", r.ID, r.Volume)
	}
	return control.Errorf(control.NotFound, "no client %d is connected", r.ID)
}
