package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"

	"github.com/gvirstor/gvirstor/ggated-virstor/nbd"
)

// checkNBD refuses NBD options that contradict themselves.
func (o *options) checkNBD() error {
	if _, err := o.addresses(); err != nil {
		return err
	}
	switch {
	case o.tlsCert != "" && o.tlsKey == "":
		return errors.New("--tls-cert needs --tls-key, the file with the certificate's key")
	case o.tlsCert == "" && o.tlsKey != "":
		return errors.New("--tls-key needs --tls-cert, the file with the certificate")
	case o.tlsClientCA != "" && !o.tls():
		return errors.New("--tls-client-ca needs --tls-cert and --tls-key")
	}
	return nil
}

func (o *options) tls() bool { return o.tlsCert != "" }

// addresses are where NBD clients are to be served.
func (o *options) addresses() ([]nbd.Address, error) {
	var addrs []nbd.Address
	for _, s := range o.nbd {
		a, err := nbd.ParseListen(s)
		if err != nil {
			return nil, fmt.Errorf("--nbd %s: %w", s, err)
		}
		addrs = append(addrs, a)
	}
	return addrs, nil
}

// loadTLS reads the certificates, which root alone may be allowed to. It is nil
// without.
func (o *options) loadTLS() (*tls.Config, error) {
	if !o.tls() {
		return nil, nil
	}
	return nbd.LoadTLS(o.tlsCert, o.tlsKey, o.tlsClientCA)
}

// listenNBD opens the listeners for NBD clients.
func listenNBD(ctx context.Context, o options) ([]net.Listener, error) {
	addrs, err := o.addresses()
	if err != nil {
		return nil, err
	}
	var listeners []net.Listener
	for _, a := range addrs {
		l, err := nbd.Listen(ctx, a, nbd.ListenOptions{TLS: o.tls(), Insecure: o.nbdInsecure})
		if err != nil {
			return nil, errors.Join(fmt.Errorf("--nbd %s: %w", a, err), closeAll(listeners))
		}
		listeners = append(listeners, l)
	}
	return listeners, nil
}

// newNBD makes the NBD server, and tells how clients name its exports. With
// certificates, clients from the network must use TLS.
func newNBD(o options, certs *tls.Config, log *slog.Logger) (*nbd.Server, func(string) []string, error) {
	addrs, err := o.addresses()
	if err != nil {
		return nil, nil, err
	}
	for i, a := range addrs {
		if a.Network != "unix" {
			continue
		}
		// Clients are elsewhere. To listen, the shorter name is better.
		if addrs[i].Addr, err = filepath.Abs(a.Addr); err != nil {
			return nil, nil, fmt.Errorf("--nbd %s: %w", a, err)
		}
	}
	server, err := nbd.NewServer(nbd.Config{Log: log, TLS: certs, RequireTLS: certs != nil})
	if err != nil {
		return nil, nil, err
	}
	uris := func(export string) []string {
		var us []string
		for _, a := range addrs {
			us = append(us, nbd.URI(a, export, o.tls()))
		}
		return us
	}
	return server, uris, nil
}

func closeAll(ls []net.Listener) error {
	var err error
	for _, l := range ls {
		err = errors.Join(err, l.Close())
	}
	return err
}
