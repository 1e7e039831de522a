// Package nbdpub makes an nbd.Server a publisher of the daemon: each volume is the
// export of its name.
package nbdpub

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd"
	"github.com/gvirstor/gvirstor/ggated-virstor/publish"
)

// Publisher publishes volumes as exports of an NBD server, named after them.
type Publisher struct {
	Server *nbd.Server
	URIs   func(export string) []string // how clients name an export, one for each listener
}

// Publish implements publish.Publisher.
func (p *Publisher) Publish(v *virstor.Volume) (publish.Published, error) {
	if err := p.Server.AddExport(v.Name(), v); err != nil {
		return nil, err
	}
	return &export{p, v}, nil
}

// Clients implements publish.ClientLister.
func (p *Publisher) Clients() []control.ClientStatus {
	var all []control.ClientStatus
	for _, c := range p.Server.Clients() {
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

// Disconnect implements publish.ClientLister.
func (p *Publisher) Disconnect(id uint64) error {
	err := p.Server.Disconnect(id)
	if errors.Is(err, nbd.ErrNoClient) {
		err = publish.ErrNoClient
	}
	return err
}

// export is one volume, published.
type export struct {
	pub *Publisher
	vol *virstor.Volume
}

func (e *export) Names() []string { return []string{e.vol.Name()} }

func (e *export) Describe() []control.Publication {
	name := e.vol.Name()
	conns, writers := e.pub.Server.Conns(name), e.pub.Server.Writers(name)
	var ps []control.Publication
	for _, uri := range e.pub.URIs(name) {
		ps = append(ps, control.Publication{Kind: control.NBD, Name: name, URI: uri,
			Connections: conns, Mode: control.Mode{Read: conns, Write: min(writers, conns)}})
	}
	return ps
}

func (e *export) Users() (int, string) {
	n := e.pub.Server.Conns(e.vol.Name())
	if n == 1 {
		return n, "1 NBD client connected"
	}
	return n, fmt.Sprintf("%d NBD clients connected", n)
}

// lastAnswers is how long clients that are disconnected may take to get the
// answers to what they asked before.
const lastAnswers = 2 * time.Second

func (e *export) Disconnect() {
	ctx, cancel := context.WithTimeout(context.Background(), lastAnswers)
	defer cancel()
	e.pub.Server.Kick(ctx, e.vol.Name())
}

// Drain implements publish.Drainer.
func (e *export) Drain(ctx context.Context) error {
	return e.pub.Server.AwaitOrphans(ctx, e.vol.Name())
}

func (e *export) Withdraw(context.Context) error {
	return e.pub.Server.RemoveExport(e.vol.Name(), true)
}

// Leave is Withdraw: clients come back to the next daemon.
func (e *export) Leave(ctx context.Context) error { return e.Withdraw(ctx) }
