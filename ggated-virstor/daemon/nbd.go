package daemon

import (
	"context"
	"fmt"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd"
)

// NBD publishes volumes as exports of an NBD server, named after them.
type NBD struct {
	Server *nbd.Server
	URIs   func(export string) []string // how clients name an export, one for each listener
}

// Publish implements Publisher.
func (n *NBD) Publish(v *virstor.Volume) (Published, error) {
	if err := n.Server.AddExport(v.Name(), v); err != nil {
		return nil, err
	}
	return &nbdExport{n, v}, nil
}

// Clients implements clientLister.
func (n *NBD) Clients() []control.ClientStatus {
	var all []control.ClientStatus
	for _, c := range n.Server.Clients() {
		s := control.ClientStatus{
			ID: c.Number, Address: c.Address, PID: c.PID, TLS: c.TLS, Name: c.Name, Volume: c.Export, ReadOnly: c.Reads,
			Since: c.Since, IdleSeconds: int64(c.Idle / time.Second), InFlight: c.InFlight, Held: c.Held,
			Requests: c.Requests, BytesRead: c.BytesRead, BytesWritten: c.BytesWritten,
		}
		if c.UID >= 0 {
			uid := uint32(c.UID)
			s.UID = &uid
		}
		all = append(all, s)
	}
	return all
}

// Disconnect implements clientLister.
func (n *NBD) Disconnect(id uint64) error { return n.Server.Disconnect(id) }

type nbdExport struct {
	nbd *NBD
	vol *virstor.Volume
}

func (e *nbdExport) Names() []string { return []string{e.vol.Name()} }

func (e *nbdExport) Describe() []control.Publication {
	name := e.vol.Name()
	conns := e.nbd.Server.Conns(name)
	var ps []control.Publication
	for _, uri := range e.nbd.URIs(name) {
		ps = append(ps, control.Publication{Kind: control.NBD, Name: name, URI: uri,
			Connections: conns, Mode: nbdMode(conns, e.vol.ReadOnly())})
	}
	return ps
}

// nbdMode is the connections as GEOM counts access.
func nbdMode(conns int, readOnly bool) control.Mode {
	if readOnly {
		return control.Mode{Read: conns}
	}
	return control.Mode{Read: conns, Write: conns}
}

func (e *nbdExport) Users() (int, string) {
	n := e.nbd.Server.Conns(e.vol.Name())
	if n == 1 {
		return n, "1 NBD client connected"
	}
	return n, fmt.Sprintf("%d NBD clients connected", n)
}

// lastAnswers is how long clients that are disconnected may take to get the
// answers to what they asked before.
const lastAnswers = 2 * time.Second

func (e *nbdExport) Disconnect() {
	ctx, cancel := context.WithTimeout(context.Background(), lastAnswers)
	defer cancel()
	e.nbd.Server.Kick(ctx, e.vol.Name())
}

// Settle implements settler.
func (e *nbdExport) Settle(ctx context.Context) error {
	return e.nbd.Server.AwaitOrphans(ctx, e.vol.Name())
}

func (e *nbdExport) Withdraw(context.Context) error {
	return e.nbd.Server.RemoveExport(e.vol.Name(), true)
}

// Leave is Withdraw: clients come back to the next daemon.
func (e *nbdExport) Leave(ctx context.Context) error { return e.Withdraw(ctx) }
