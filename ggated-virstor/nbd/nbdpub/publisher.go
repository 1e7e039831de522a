// Package nbdpub makes an nbd.Server a publisher of the daemon: each volume is the
// export of its name, further ones of a pool too, and each snapshot a read-only one.
package nbdpub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
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
	Log    *slog.Logger
}

// Publish implements publish.Publisher.
func (p *Publisher) Publish(v *virstor.Volume) (publish.Published, error) {
	if err := p.Server.AddExport(v.Name(), v); err != nil {
		return nil, err
	}
	e := &export{pub: p, vol: v, shown: make(map[string]releaser), leaving: make(map[string]int)}
	if err := e.ShowSnapshots(); err != nil { // which keeps nobody from the volume
		p.Log.Error("a snapshot is no export", "volume", v.Name(), "error", err)
	}
	return e, nil
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

// export is one volume, published, with its snapshots and what else its pool has.
type export struct {
	pub *Publisher
	vol *virstor.Volume

	mu      sync.Mutex
	shown   map[string]releaser // by title, the snapshots and further volumes that are exports
	leaving map[string]int      // by title, those that are being deleted, how many times
	ended   bool
}

func (e *export) Names() []string { return []string{e.vol.Name()} }

func (e *export) Describe() []control.Publication { return e.describe(e.vol.Name()) }

// describe is what status tells of an export.
func (e *export) describe(name string) []control.Publication {
	conns, writers := e.pub.Server.Conns(name), e.pub.Server.Writers(name)
	var ps []control.Publication
	for _, uri := range e.pub.URIs(name) {
		ps = append(ps, control.Publication{Kind: control.NBD, Name: name, URI: uri,
			Connections: conns, Mode: control.Mode{Read: conns, Write: min(writers, conns)}})
	}
	return ps
}

func (e *export) Users() (int, string) {
	n := 0
	for _, name := range e.exports() {
		n += e.pub.Server.Conns(name)
	}
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
	for _, name := range e.exports() {
		e.pub.Server.Kick(ctx, name)
	}
}

// Drain implements publish.Drainer.
func (e *export) Drain(ctx context.Context) error {
	for _, name := range e.exports() {
		if err := e.pub.Server.AwaitOrphans(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

func (e *export) Withdraw(context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ended = true
	var err error
	for title := range e.shown {
		err = errors.Join(err, e.letGoLocked(title, true))
	}
	return errors.Join(err, e.pub.Server.RemoveExport(e.vol.Name(), true))
}

// Leave is Withdraw: clients come back to the next daemon.
func (e *export) Leave(ctx context.Context) error { return e.Withdraw(ctx) }
