package main

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/history"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/daemon"
	"github.com/gvirstor/gvirstor/ggated-virstor/gatepub"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd"
	"github.com/gvirstor/gvirstor/ggated-virstor/options"
	"github.com/gvirstor/gvirstor/ggated-virstor/providers"
	"github.com/gvirstor/gvirstor/ggated-virstor/space"
	"github.com/gvirstor/gvirstor/ggated-virstor/web"
)

// direct is the host of a process without a supervisor, which does all by itself.
type direct struct {
	o         *options.Options
	log       *slog.Logger
	listening listeners
	providers []string
	rings     *geomlib.Rings // or nil
	ended     <-chan struct{}
	announcer *announcer
	child     *child // nil without --run
	ctx       context.Context
}

// serveHere serves in this process until ctx ends. It calls serving when it begins to.
func serveHere(ctx context.Context, o *options.Options, log *slog.Logger, serving func()) error {
	// What ends a supervisor at the system's shutdown ends this, too.
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGUSR1)
	defer stop()
	ctx, end := context.WithCancel(ctx)
	defer end()
	if err := checkDescriptors(o, log); err != nil {
		return err
	}
	upgrades := make(chan os.Signal, 1)
	signal.Notify(upgrades, syscall.SIGUSR2)
	defer signal.Stop(upgrades)
	go refuseUpgrades(ctx, upgrades, log)
	ls, err := listen(ctx, o, log)
	if err != nil {
		return err
	}
	rings := newRings(o, nil, log)
	defer closeRings(rings, log)
	h := &direct{o: o, log: log, rings: rings, listening: ls, ended: ctx.Done(), ctx: ctx, announcer: &announcer{o: o, log: log}, providers: slices.Concat(o.Providers, o.SpareProviders())}
	if g := o.Grower(o.Gate); g != nil {
		h.providers = append(h.providers, grown(ctx, g, log)...)
	}
	serving()
	if o.Run == "" {
		return serve(o, log, h)
	}
	h.child = &child{command: o.Run, control: o.Control, end: end}
	err = serve(o, log, h)
	return errors.Join(err, h.child.wait())
}

// refuseUpgrades says to each signal, until ctx ends, that it asks for what only a
// supervisor does.
func refuseUpgrades(ctx context.Context, upgrades <-chan os.Signal, log *slog.Logger) {
	for {
		select {
		case <-upgrades:
			log.Warn("no upgrade: SIGUSR2 is for a daemon with --supervise; restart this one")
		case <-ctx.Done():
			return
		}
	}
}

// listen opens the listeners of a process that opens them itself.
func listen(ctx context.Context, o *options.Options, log *slog.Logger) (ls listeners, err error) {
	if ls.certs, err = o.LoadTLS(); err != nil {
		return ls, err
	}
	g, err := takeGiven(o)
	if err != nil {
		return ls, err
	}
	if ls.nbd, err = listenNBD(ctx, o); err != nil {
		return ls, errors.Join(err, g.close())
	}
	ls.nbd = append(ls.nbd, g.nbd...)
	ctl, err := g.listenControl(o)
	if err != nil {
		return ls, errors.Join(err, closeAll(ls.nbd))
	}
	if ls.http, err = listenHTTP(o); err != nil {
		return ls, errors.Join(err, ctl.Close(), closeAll(ls.nbd))
	}
	ls.control = control.OwnersOnly(ctl, log)
	return ls, nil
}

// listenHTTP is nil without --http.
func listenHTTP(o *options.Options) (net.Listener, error) {
	if o.HTTP == "" {
		return nil, nil
	}
	return web.Listen(o.HTTP)
}

// grown are the providers that volumes have grown by before.
func grown(ctx context.Context, g *space.FileGrower, log *slog.Logger) []string {
	names, err := g.Grown(ctx)
	if err != nil {
		log.Error("what volumes have grown by is not all found", "error", err)
	}
	return names
}

func (h *direct) Listeners() listeners                   { return h.listening }
func (h *direct) Gate() *gatepub.Publisher               { return nil } // devices are a worker's
func (h *direct) Providers() (names []string, must bool) { return h.providers, true }
func (h *direct) Opener() daemon.Opener {
	return daemon.Direct{Registry: providers.Registry(providerOptions(h.o, h.rings, h.log)), LockDir: h.o.RunDir}
}
func (h *direct) Clients() []nbd.Handed                             { return nil }
func (h *direct) LeaveClients() func(context.Context, []nbd.Handed) { return nil }
func (h *direct) Figures() func() ([]web.Figure, error)             { return nil }
func (h *direct) Note() func(history.Deed)                          { return noter(h.o, h.log) }
func (h *direct) LastRoom() <-chan struct{}                         { return nil }
func (h *direct) Ended() <-chan struct{}                            { return h.ended }
func (h *direct) End(d *daemon.Daemon) error                        { h.announcer.end(); return d.Close() }
func (h *direct) Reloading()                                        { h.announcer.reloading() }
func (h *direct) Reloaded()                                         { h.announcer.ready() }
func (h *direct) World() (options.World, error)                     { return options.NewHere(), nil }
func (h *direct) Certificates() (*tls.Config, error)                { return h.o.LoadTLS() }
func (h *direct) Runner(o *options.Options) space.Runner            { return o.Runner() }

// Ready implements host. With --run the command begins.
func (h *direct) Ready() error {
	h.announcer.ready()
	if h.child == nil {
		return nil
	}
	return h.child.start(h.ctx)
}

func (h *direct) Archive() daemon.Archive {
	if dir := h.o.Archive(); dir != nil {
		return dir
	}
	return nil
}

func (h *direct) Memory() daemon.Memory {
	if dir := h.o.Memory(); dir != nil {
		return dir
	}
	return nil
}

func (h *direct) Fencer(o *options.Options) daemon.Fencer {
	if f := fencerOf(o); f != nil {
		return f
	}
	return nil
}

func (h *direct) Grower(o *options.Options) space.Grower {
	if g := o.Grower(o.Gate); g != nil { // a nil *space.FileGrower is no nil Grower
		return g
	}
	return nil
}
