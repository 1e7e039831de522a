package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd"
	"github.com/gvirstor/gvirstor/ggated-virstor/options"
	"github.com/gvirstor/gvirstor/ggated-virstor/providers"
)

// listenNBD opens the listeners for NBD clients.
func listenNBD(ctx context.Context, o *options.Options) ([]net.Listener, error) {
	var listeners []net.Listener
	for _, a := range o.NBD {
		l, err := nbd.Listen(ctx, a, o.ListenOptions())
		if err != nil {
			return nil, errors.Join(fmt.Errorf("--nbd %s: %w", a, err), closeAll(listeners))
		}
		listeners = append(listeners, l)
	}
	return listeners, nil
}

// newNBD makes the NBD server, and tells how clients name its exports. With
// certificates, clients from the network must use TLS.
func newNBD(o *options.Options, certs *tls.Config, listeners []net.Listener, log *slog.Logger) (*nbd.Server, func(string) []string, error) {
	addrs, err := reached(o.NBD, listeners)
	if err != nil {
		return nil, nil, err
	}
	server, err := nbd.NewServer(nbd.Config{Log: log, TLS: certs, RequireTLS: certs != nil, Grants: o.Grants(),
		MaxConns: o.NBDMaxClients, MaxPerPeer: o.NBDMaxPeer, Idle: o.NBDIdle})
	if err != nil {
		return nil, nil, err
	}
	uris := func(export string) []string {
		var us []string
		for _, a := range addrs {
			us = append(us, nbd.URI(a, export, certs != nil))
		}
		return us
	}
	return server, uris, nil
}

// providerOptions are how components are opened. rings may be nil.
func providerOptions(o *options.Options, rings *geomlib.Rings, log *slog.Logger) providers.Options {
	return providers.Options{NBDTimeout: o.NBDComponentTimeout, NBDGrace: o.NBDComponentGrace, Shared: o.Shared, Direct: o.Direct, Rings: rings, Log: log}
}

// reached are the addresses under which clients reach listeners: as they were said
// where they were, but with the port that the system chose, and for sockets the
// whole path, since clients are elsewhere.
func reached(said []nbd.Address, listeners []net.Listener) ([]nbd.Address, error) {
	var addrs []nbd.Address
	for i, l := range listeners {
		a := nbd.Address{Network: l.Addr().Network(), Addr: l.Addr().String()}
		if a.Network == "unix" {
			path, err := filepath.Abs(a.Addr) // to listen, the shorter name is better
			if err != nil {
				return nil, fmt.Errorf("--nbd %s: %w", a, err)
			}
			a.Addr = path
		} else if i < len(said) && said[i].Network == a.Network {
			host, _, err := net.SplitHostPort(said[i].Addr)
			if err != nil {
				return nil, fmt.Errorf("--nbd %s: %w", said[i], err)
			}
			_, port, err := net.SplitHostPort(a.Addr)
			if err != nil {
				return nil, fmt.Errorf("--nbd %s: %w", a, err)
			}
			a.Addr = net.JoinHostPort(host, port)
		}
		addrs = append(addrs, a)
	}
	return addrs, nil
}

func closeAll(ls []net.Listener) error {
	var err error
	for _, l := range ls {
		err = errors.Join(err, l.Close())
	}
	return err
}
