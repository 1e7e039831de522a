package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/daemon"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdpub"
	"github.com/gvirstor/gvirstor/ggated-virstor/options"
	"github.com/gvirstor/gvirstor/ggated-virstor/publish"
	"github.com/gvirstor/gvirstor/ggated-virstor/web"
	"github.com/gvirstor/gvirstor/ondisk"
)

// serve serves volumes until h says that it is over. It closes the listeners.
func serve(o *options.Options, log *slog.Logger, h host) error {
	d, server, err := newDaemon(o, log, h)
	if err != nil {
		return errors.Join(err, h.Listeners().close())
	}
	defer after(h.Ended(), d.StopWaiting)()
	defer after(h.LastRoom(), d.GiveLastRoom)()
	n, err := serveFirst(d, h)
	if err != nil {
		return errors.Join(err, h.Listeners().close())
	}
	defer watchReload(&reloader{args: os.Args[1:], settings: h, now: o, daemon: d, clients: server, log: log})()
	goOn(h.Clients(), server, log) // before anybody can delete a snapshot that they compare, and take another of its name
	a := answer(o, log, h, d, server)
	if err = h.Ready(); err == nil {
		log.Info("ready", "volumes", n, "control", o.Control)
		select {
		case <-h.Ended():
			log.Info("stopping")
		case err = <-a.failed:
		}
	}
	err = errors.Join(err, a.shutdown(h.LeaveClients()))
	err = errors.Join(err, h.End(d))
	a.running.Wait()
	return err
}

// newDaemon puts the daemon together with its publishers. It serves nothing yet.
func newDaemon(o *options.Options, log *slog.Logger, h host) (*daemon.Daemon, *nbd.Server, error) {
	server, uris, err := newNBD(o, h.Listeners().certs, h.Listeners().nbd, log)
	if err != nil {
		return nil, nil, err
	}
	var publishers []publish.Publisher
	if gate := h.Gate(); gate != nil {
		publishers = append(publishers, gate) // first: it can refuse to stop
	}
	publishers = append(publishers, &nbdpub.Publisher{Server: server, URIs: uris, Log: log})
	alerts, spares := spaceOptions(h, o)
	d := daemon.New(daemon.Options{Version: version, ReadOnly: o.ReadOnly, Volume: o.Policies(), PerVolume: o.PerVolume,
		Alerts: alerts, Spares: spares, Archive: h.Archive(), Memory: h.Memory(), ForceOld: o.ForceOld,
		Lease: daemon.LeaseOptions{Interval: o.LeaseInterval, Settle: o.LeaseSettle, Host: options.HostID(), HostName: options.HostName(),
			TakeOver: o.TakeOver, Fencer: h.Fencer(o)}}, h.Opener(), publishers, log)
	return d, server, nil
}

// serveFirst serves what is on the first providers, and returns how many volumes that
// are.
func serveFirst(d *daemon.Daemon, h host) (int, error) {
	providers, needed := h.Providers()
	n, err := serveAll(d, providers, h.Ended())
	if err != nil {
		return 0, err // d hangs; it is left
	}
	if n == 0 && d.Waiting() == 0 && len(providers) > 0 && needed {
		st, err := d.Status(context.Background())
		return 0, errors.Join(err, nothingServed(st.Problems), d.Close())
	}
	return n, nil
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

// answering are the servers that answer clients.
type answering struct {
	control *control.Server
	web     *web.Server
	nbd     *nbd.Server
	running sync.WaitGroup
	failed  chan error // why one ended
}

// answer begins to answer clients.
func answer(o *options.Options, log *slog.Logger, h host, d *daemon.Daemon, server *nbd.Server) *answering {
	ls := h.Listeners()
	a := &answering{control: control.NewServer(d, log), nbd: server, failed: make(chan error, 2+len(ls.nbd)),
		web: web.NewServer(web.Config{Collector: web.NewCollector(d, server.Stats, version), Health: d, Overseer: d,
			Names: o.HTTPNames(), Process: h.Figures(), Log: log})}
	if note := h.Note(); note != nil {
		a.control.Audit(note)
	}
	if ls.http != nil {
		a.running.Go(func() { a.failed <- a.web.Serve(ls.http) })
		log.Info("status page, metrics and health", "http", ls.http.Addr().String())
		if !web.IsLoopback(ls.http.Addr()) {
			log.Warn("status page, metrics and health can be read from other machines, and travel as they are", "http", ls.http.Addr().String())
		}
	}
	a.running.Go(func() { a.failed <- a.control.Serve(ls.control) })
	if len(ls.nbd) == 0 && h.Gate() == nil {
		log.Warn("no client can reach the volumes: give --nbd unix:PATH or --nbd tcp:HOST:PORT")
	}
	for _, l := range ls.nbd {
		log.Info("NBD clients are served", "address", l.Addr().Network()+":"+l.Addr().String())
		a.running.Go(func() { a.failed <- server.Serve(context.Background(), l) })
	}
	return a
}

// shutdownGrace is how long clients may take to get the answers to what they
// asked before.
const shutdownGrace = 10 * time.Second

// goOn serves clients of the process before.
func goOn(clients []nbd.Handed, server *nbd.Server, log *slog.Logger) {
	n := 0
	for _, c := range clients {
		if err := server.Adopt(c); err != nil {
			log.Warn("an NBD client of the process before is disconnected", "error", err)
			continue
		}
		n++
	}
	if n > 0 {
		log.Info("NBD clients of the process before are served", "clients", n)
	}
}

// shutdown lets clients have their answers, and answers none any more. leave, unless it is
// nil, has NBD clients served on by the next process.
func (a *answering) shutdown(leave func(context.Context, []nbd.Handed)) error {
	grace, cancel := context.WithTimeout(context.Background(), shutdownGrace)
	defer cancel()
	err := errors.Join(a.control.Shutdown(grace), a.web.Shutdown(grace))
	if leave == nil {
		return errors.Join(err, unlessLate(a.nbd.Shutdown(grace)))
	}
	clients, e := a.nbd.HandOver(grace)
	passing, cancel := context.WithTimeout(context.Background(), shutdownGrace)
	defer cancel()
	leave(passing, clients)
	return errors.Join(err, unlessLate(e))
}

// unlessLate is err, unless that is only that a client did not answer in its time.
func unlessLate(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}
