package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/daemon"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd"
)

// shutdownGrace is how long clients may take to get the answers to what they
// asked before.
const shutdownGrace = 10 * time.Second

// run serves until ctx ends.
func run(ctx context.Context, o options) error {
	log, err := newLogger(o)
	if err != nil {
		return err
	}
	policies, err := o.policies()
	if err != nil {
		return err
	}
	server, listeners, uris, err := openNBD(ctx, o, log)
	if err != nil {
		return err
	}
	ctl, err := control.Listen(o.control)
	if err != nil {
		return errors.Join(err, closeAll(listeners))
	}
	d := daemon.New(
		daemon.Options{Version: version, ReadOnly: o.readOnly, Volume: policies, PerVolume: o.perVolume},
		daemon.Direct{LockDir: o.runDir},
		[]daemon.Publisher{&daemon.NBD{Server: server, URIs: uris}},
		log)
	n := d.ServeAll(o.providers)
	if n == 0 && len(o.providers) > 0 {
		return errors.Join(errors.New("no volume on the given providers can be served"),
			d.Close(), ctl.Close(), closeAll(listeners))
	}
	defer watchReload(&reloader{args: os.Args[1:], now: o, daemon: d, log: log})()
	cs := control.NewServer(d, log)
	var wg sync.WaitGroup
	failed := make(chan error, 1+len(listeners))
	wg.Go(func() { failed <- cs.Serve(ctl) })
	for _, l := range listeners {
		wg.Go(func() { failed <- server.Serve(ctx, l) })
	}
	log.Info("ready", "volumes", n, "control", o.control)
	select {
	case <-ctx.Done():
		log.Info("stopping")
	case err = <-failed:
	}
	grace, cancel := context.WithTimeout(context.Background(), shutdownGrace)
	defer cancel()
	err = errors.Join(err, cs.Shutdown(grace))
	if e := server.Shutdown(grace); e != nil && !errors.Is(e, context.DeadlineExceeded) {
		err = errors.Join(err, e)
	}
	err = errors.Join(err, d.Close())
	wg.Wait()
	return err
}

// openNBD makes the NBD server and its listeners.
func openNBD(ctx context.Context, o options, log *slog.Logger) (*nbd.Server, []net.Listener, func(string) []string, error) {
	cfg := nbd.Config{Log: log}
	secure := o.tlsCert != "" || o.tlsKey != ""
	if secure {
		t, err := nbd.LoadTLS(o.tlsCert, o.tlsKey, o.tlsClientCA)
		if err != nil {
			return nil, nil, nil, err
		}
		cfg.TLS, cfg.RequireTLS = t, true
	} else if o.tlsClientCA != "" {
		return nil, nil, nil, errors.New("--tls-client-ca needs --tls-cert and --tls-key")
	}
	server, err := nbd.NewServer(cfg)
	if err != nil {
		return nil, nil, nil, err
	}
	var addrs []nbd.Address
	var listeners []net.Listener
	for _, s := range o.nbd {
		a, err := nbd.ParseListen(s)
		if err != nil {
			return nil, nil, nil, errors.Join(fmt.Errorf("--nbd %s: %w", s, err), closeAll(listeners))
		}
		l, err := nbd.Listen(ctx, a, nbd.ListenOptions{TLS: secure, Insecure: o.nbdInsecure})
		if err != nil {
			return nil, nil, nil, errors.Join(fmt.Errorf("--nbd %s: %w", s, err), closeAll(listeners))
		}
		addrs = append(addrs, a)
		listeners = append(listeners, l)
	}
	uris := func(export string) []string {
		var us []string
		for _, a := range addrs {
			us = append(us, nbd.URI(a, export, secure))
		}
		return us
	}
	return server, listeners, uris, nil
}

func closeAll(ls []net.Listener) error {
	var err error
	for _, l := range ls {
		err = errors.Join(err, l.Close())
	}
	return err
}
