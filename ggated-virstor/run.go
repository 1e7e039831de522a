package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/daemon"
	"github.com/gvirstor/gvirstor/ggated-virstor/gatepub"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdpub"
	"github.com/gvirstor/gvirstor/ggated-virstor/options"
	"github.com/gvirstor/gvirstor/ggated-virstor/publish"
	"github.com/gvirstor/gvirstor/ggated-virstor/space"
	"github.com/gvirstor/gvirstor/ggated-virstor/supervisor"
	"github.com/gvirstor/gvirstor/ggated-virstor/web"
	"github.com/gvirstor/gvirstor/ondisk"
)

// shutdownGrace is how long clients may take to get the answers to what they
// asked before.
const shutdownGrace = 10 * time.Second

// run serves until ctx ends: in this process, or as the supervisor of another
// or its worker.
func run(ctx context.Context, o *options.Options) error {
	log := newLogger(o)
	err := runAs(ctx, o, log)
	if err != nil && o.Syslog {
		log.Error("the daemon ends", "error", err)
	}
	return err
}

func runAs(ctx context.Context, o *options.Options, log *slog.Logger) error {
	if supervisor.IsWorker() {
		return work(o)
	}
	if err := o.CheckFolders(); err != nil {
		return err
	}
	if o.Supervise {
		return supervise(ctx, o, log)
	}
	// What ends a supervisor at the system's shutdown ends this, too.
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGUSR1)
	defer stop()
	if err := checkDescriptors(o, log); err != nil {
		return err
	}
	g, err := o.Grower(o.Gate)
	if err != nil {
		return err
	}
	certs, err := o.LoadTLS()
	if err != nil {
		return err
	}
	listeners, err := listenNBD(ctx, o)
	if err != nil {
		return err
	}
	ctl, err := control.Listen(o.Control)
	if err != nil {
		return errors.Join(err, closeAll(listeners))
	}
	http, err := listenHTTP(o)
	if err != nil {
		return errors.Join(err, ctl.Close(), closeAll(listeners))
	}
	svc := service{
		http:    http,
		control: control.OwnersOnly(ctl, log), nbd: listeners, certs: certs, readTLS: o.LoadTLS, look: lookHere, providers: slices.Concat(o.Providers, o.SpareProviders()), mustServe: true,
		opener: daemon.Direct{LockDir: o.RunDir}, runner: (*options.Options).Runner,
		grower: func(g *space.FileGrower) space.Grower { return g },
		stop:   ctx.Done(), end: (*daemon.Daemon).Close,
	}
	if dir := o.Archive(); dir != nil {
		svc.archive = dir
	}
	if dir := o.Memory(); dir != nil {
		svc.memory = dir
	}
	if g != nil {
		svc.providers = append(svc.providers, grown(ctx, g, log)...)
	}
	return serve(o, log, svc)
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

// service is what one process needs to serve.
type service struct {
	control   net.Listener
	http      net.Listener // or nil
	nbd       []net.Listener
	certs     *tls.Config                   // or nil
	readTLS   func() (*tls.Config, error)   // again
	look      func() (options.World, error) // at the configuration, again
	process   func() ([]web.Figure, error)  // of /metrics, or nil
	opener    daemon.Opener
	gate      *gatepub.Publisher // or nil
	providers []string
	mustServe bool                                 // without any volume it is an error
	runner    func(*options.Options) space.Runner  // of --on-alert; it returns nil without
	grower    func(*space.FileGrower) space.Grower // who makes the files of --grow
	archive   daemon.Archive                       // of backups, or nil
	memory    daemon.Memory                        // of what was served, or nil
	ready     func() error
	stop      <-chan struct{}
	end       func(*daemon.Daemon) error
}

// space is what the daemon is told of alerts and of growth.
func (svc *service) space(o *options.Options) (space.AlertOptions, space.SpareOptions, error) {
	g, err := o.Grower(o.Gate)
	if err != nil {
		return space.AlertOptions{}, space.SpareOptions{}, err
	}
	var grower space.Grower
	if g != nil {
		grower = svc.grower(g)
	}
	return o.Alerts(svc.runner(o)), o.SpareOptions(grower), nil
}

// listeners are all but the control socket.
func (svc *service) listeners() []net.Listener {
	if svc.http == nil {
		return svc.nbd
	}
	return append(svc.nbd[:len(svc.nbd):len(svc.nbd)], svc.http)
}

// close closes everything that clients connect to.
func (svc *service) close() error { return errors.Join(svc.control.Close(), closeAll(svc.listeners())) }

// serve serves until svc.stop. It closes the listeners.
func serve(o *options.Options, log *slog.Logger, svc service) error {
	policies, err := o.Policies()
	if err != nil {
		return errors.Join(err, svc.close())
	}
	server, uris, err := newNBD(o, svc.certs, svc.nbd, log)
	if err != nil {
		return errors.Join(err, svc.close())
	}
	var publishers []publish.Publisher
	if svc.gate != nil {
		publishers = append(publishers, svc.gate) // first: it can refuse to stop
	}
	publishers = append(publishers, &nbdpub.Publisher{Server: server, URIs: uris})
	alerts, spares, err := svc.space(o)
	if err != nil {
		return errors.Join(err, svc.close())
	}
	d := daemon.New(daemon.Options{Version: version, ReadOnly: o.ReadOnly, Volume: policies, PerVolume: o.PerVolume,
		Alerts: alerts, Spares: spares, Archive: svc.archive, Memory: svc.memory, ForceOld: o.ForceOld}, svc.opener, publishers, log)
	n, err := serveAll(d, svc.providers, svc.stop)
	if err != nil {
		return errors.Join(err, svc.close()) // d hangs; it is left
	}
	if n == 0 && len(svc.providers) > 0 && svc.mustServe {
		st, err := d.Status(context.Background())
		return errors.Join(err, nothingServed(st.Problems), d.Close(), svc.close())
	}
	defer watchReload(&reloader{args: os.Args[1:], look: svc.look, now: o, daemon: d, space: svc.space, clients: server, readTLS: svc.readTLS, log: log})()
	cs := control.NewServer(d, log)
	var wg sync.WaitGroup
	failed := make(chan error, 2+len(svc.nbd))
	ms := web.NewServer(web.NewCollector(d, server.Stats, version), d, o.HTTPNames(), svc.process, log)
	if svc.http != nil {
		wg.Go(func() { failed <- ms.Serve(svc.http) })
		log.Info("metrics and health", "http", svc.http.Addr().String())
		if !web.IsLoopback(svc.http.Addr()) {
			log.Warn("metrics and health can be read from other machines, and travel as they are", "http", svc.http.Addr().String())
		}
	}
	wg.Go(func() { failed <- cs.Serve(svc.control) })
	for _, l := range svc.nbd {
		log.Info("NBD clients are served", "address", l.Addr().Network()+":"+l.Addr().String())
		wg.Go(func() { failed <- server.Serve(context.Background(), l) })
	}
	if svc.ready != nil {
		err = svc.ready()
	}
	if err == nil {
		log.Info("ready", "volumes", n, "control", o.Control)
		select {
		case <-svc.stop:
			log.Info("stopping")
		case err = <-failed:
		}
	}
	grace, cancel := context.WithTimeout(context.Background(), shutdownGrace)
	defer cancel()
	err = errors.Join(err, cs.Shutdown(grace), ms.Shutdown(grace))
	if e := server.Shutdown(grace); e != nil && !errors.Is(e, context.DeadlineExceeded) {
		err = errors.Join(err, e)
	}
	err = errors.Join(err, svc.end(d))
	wg.Wait()
	return err
}

// startGrace is how long what is being opened may go on after the stop.
const startGrace = 2 * time.Second

// serveAll serves what is on the providers. It gives up some time after stop is
// closed: where opening a disk hangs, nobody has been answered yet.
func serveAll(d *daemon.Daemon, providers []string, stop <-chan struct{}) (int, error) {
	served := make(chan int, 1)
	go func() { served <- d.ServeAll(providers) }()
	select {
	case n := <-served:
		return n, nil
	case <-stop:
	}
	select {
	case n := <-served:
		return n, nil
	case <-time.After(startGrace):
		return 0, errors.New("stopped at the start, while opening providers took long")
	}
}

// nothingServed says why there is no volume.
func nothingServed(problems []control.Problem) error {
	var why []string
	for _, p := range problems {
		what := strings.TrimSpace(p.Volume + " " + ondisk.Printable(strings.Join(p.Providers, " ")))
		if what == "" || strings.HasPrefix(p.Reason, what) {
			why = append(why, p.Reason)
		} else {
			why = append(why, what+": "+p.Reason)
		}
	}
	return fmt.Errorf("no volume on the given providers can be served: %s", strings.Join(why, "; "))
}
