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
	case o.nbdMaxClients < 1:
		return fmt.Errorf("--nbd-max-clients %d: must be at least 1", o.nbdMaxClients)
	case o.nbdMaxPeer < 0 || o.nbdMaxPeer > o.nbdMaxClients:
		return fmt.Errorf("--nbd-max-peer-clients %d: from 0 to --nbd-max-clients, which is %d", o.nbdMaxPeer, o.nbdMaxClients)
	case o.nbdIdle < 0:
		return fmt.Errorf("--nbd-idle %s: must not be negative", o.nbdIdle)
	}
	grants, err := o.grants()
	if err != nil {
		return err
	}
	for _, g := range grants {
		if g.NeedsAuthority() && o.tlsClientCA == "" {
			return fmt.Errorf("--nbd-allow %s: needs --tls-client-ca, the file of who signs clients' certificates", g)
		}
	}
	return nil
}

// grants are who may use which exports.
func (o *options) grants() ([]nbd.Grant, error) {
	var all []nbd.Grant
	for _, s := range o.nbdAllow {
		g, err := nbd.ParseGrant(s)
		if err != nil {
			return nil, fmt.Errorf("--nbd-allow %w", err)
		}
		all = append(all, g)
	}
	return all, nil
}

// checkAddresses refuses addresses that would be refused when they are listened on.
func (o *options) checkAddresses() error {
	addrs, err := o.addresses()
	if err != nil {
		return err
	}
	for _, a := range addrs {
		if err := nbd.CheckListen(a, o.listenOptions()); err != nil {
			return fmt.Errorf("--nbd %s: %w", a, err)
		}
	}
	return nil
}

func (o *options) listenOptions() nbd.ListenOptions {
	return nbd.ListenOptions{TLS: o.tls(), Insecure: o.nbdInsecure}
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

// readCertificates reads the files of the certificates, for another process to load.
func (o *options) readCertificates() (nbd.Certificates, error) {
	return nbd.ReadCertificates(o.tlsCert, o.tlsKey, o.tlsClientCA)
}

// listenNBD opens the listeners for NBD clients.
func listenNBD(ctx context.Context, o options) ([]net.Listener, error) {
	addrs, err := o.addresses()
	if err != nil {
		return nil, err
	}
	var listeners []net.Listener
	for _, a := range addrs {
		l, err := nbd.Listen(ctx, a, o.listenOptions())
		if err != nil {
			return nil, errors.Join(fmt.Errorf("--nbd %s: %w", a, err), closeAll(listeners))
		}
		listeners = append(listeners, l)
	}
	return listeners, nil
}

// newNBD makes the NBD server, and tells how clients name its exports. With
// certificates, clients from the network must use TLS.
func newNBD(o options, certs *tls.Config, listeners []net.Listener, log *slog.Logger) (*nbd.Server, func(string) []string, error) {
	said, err := o.addresses()
	if err != nil {
		return nil, nil, err
	}
	grants, err := o.grants()
	if err != nil {
		return nil, nil, err
	}
	addrs, err := reached(said, listeners)
	if err != nil {
		return nil, nil, err
	}
	server, err := nbd.NewServer(nbd.Config{Log: log, TLS: certs, RequireTLS: certs != nil, Grants: grants,
		MaxConns: o.nbdMaxClients, MaxPerPeer: o.nbdMaxPeer, Idle: o.nbdIdle})
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
