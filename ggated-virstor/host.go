package main

import (
	"context"
	"crypto/tls"
	"errors"
	"net"

	"github.com/gvirstor/gvirstor/geomlib/history"
	"github.com/gvirstor/gvirstor/ggated-virstor/daemon"
	"github.com/gvirstor/gvirstor/ggated-virstor/gatepub"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd"
	"github.com/gvirstor/gvirstor/ggated-virstor/options"
	"github.com/gvirstor/gvirstor/ggated-virstor/space"
	"github.com/gvirstor/gvirstor/ggated-virstor/web"
)

// host is where the process that serves volumes has from what it needs: from itself
// (direct), or from its supervisor (worker). Its methods may be called by many
// goroutines.
type host interface {
	// Listeners are where clients connect. serve closes them.
	Listeners() listeners
	// Gate publishes volumes as devices, or is nil.
	Gate() *gatepub.Publisher
	// Providers are those to serve first; needed, if it is an error that none can be.
	Providers() (names []string, needed bool)
	// Opener opens what needs privilege.
	Opener() daemon.Opener
	// Archive keeps backups, and Memory what was served; each may be nil.
	Archive() daemon.Archive
	Memory() daemon.Memory
	// Figures tells those of this process, where it cannot read them itself; or nil.
	Figures() func() ([]web.Figure, error)

	// settings are what changes when the configuration is read again.
	settings

	// Note is told of requests that changed something; nil where another process sees to
	// that.
	Note() func(history.Deed)
	// Clients are those of NBD that the process before left to this one.
	Clients() []nbd.Handed
	// LeaveClients leaves clients to the next process; nil, if there is to be none.
	LeaveClients() func(context.Context, []nbd.Handed)
	// Ready tells that volumes are served.
	Ready() error
	// LastRoom is closed when the system goes down, and what lies on volumes needs the
	// reserves to be unmounted; nil, where that is not told.
	LastRoom() <-chan struct{}
	// Ended is closed when the service is to end, by End.
	Ended() <-chan struct{}
	End(d *daemon.Daemon) error
}

// settings are who does, or reads, what options say.
type settings interface {
	// Reloading and Reloaded are called before and after the configuration is read again.
	Reloading()
	Reloaded()
	// World is that of the configuration as it is now.
	World() (options.World, error)
	// Certificates are read from the files named at the start; nil: there are none.
	Certificates() (*tls.Config, error)
	// Runner runs the command of alerts, or is nil.
	Runner(o *options.Options) space.Runner
	// Fencer keeps hosts from the components of volumes, or is nil.
	Fencer(o *options.Options) daemon.Fencer
	// Grower grows volumes, or is nil.
	Grower(o *options.Options) space.Grower
}

// listeners are where clients connect, and the certificates that NBD clients are shown
// there.
type listeners struct {
	control net.Listener
	http    net.Listener // or nil
	nbd     []net.Listener
	certs   *tls.Config // or nil
}

// close closes everything that clients connect to.
func (ls listeners) close() error {
	err := errors.Join(ls.control.Close(), closeAll(ls.nbd))
	if ls.http != nil {
		err = errors.Join(err, ls.http.Close())
	}
	return err
}

// spaceOptions are what the daemon is told of alerts and of growth.
func spaceOptions(h settings, o *options.Options) (space.AlertOptions, space.SpareOptions) {
	return o.Alerts(h.Runner(o)), o.SpareOptions(h.Grower(o))
}
