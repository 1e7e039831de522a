package options

import (
	"crypto/tls"
	"errors"
	"fmt"

	"github.com/gvirstor/gvirstor/ggated-virstor/nbd"
)

// validateNBD refuses NBD options that contradict themselves.
func (o *Options) validateNBD() error {
	switch {
	case o.tlsCert != "" && o.tlsKey == "":
		return errors.New("--tls-cert needs --tls-key, the file with the certificate's key")
	case o.tlsCert == "" && o.tlsKey != "":
		return errors.New("--tls-key needs --tls-cert, the file with the certificate")
	case o.tlsClientCA != "" && !o.TLS():
		return errors.New("--tls-client-ca needs --tls-cert and --tls-key")
	case o.NBDMaxClients < 1:
		return fmt.Errorf("--nbd-max-clients %d: must be at least 1", o.NBDMaxClients)
	case o.NBDMaxPeer < 0 || o.NBDMaxPeer > o.NBDMaxClients:
		return fmt.Errorf("--nbd-max-peer-clients %d: from 0 to --nbd-max-clients, which is %d", o.NBDMaxPeer, o.NBDMaxClients)
	case o.NBDIdle < 0:
		return fmt.Errorf("--nbd-idle %s: must not be negative", o.NBDIdle)
	}
	grants, err := o.Grants()
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

// Grants are who may use which exports.
func (o *Options) Grants() ([]nbd.Grant, error) {
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
func (o *Options) checkAddresses() error {
	addrs, err := o.Addresses()
	if err != nil {
		return err
	}
	for _, a := range addrs {
		if err := nbd.CheckListen(a, o.ListenOptions()); err != nil {
			return fmt.Errorf("--nbd %s: %w", a, err)
		}
	}
	return nil
}

// ListenOptions are how the addresses are listened on.
func (o *Options) ListenOptions() nbd.ListenOptions {
	return nbd.ListenOptions{TLS: o.TLS(), Insecure: o.nbdInsecure}
}

// TLS reports whether the NBD server has a certificate.
func (o *Options) TLS() bool { return o.tlsCert != "" }

// Addresses are where NBD clients are to be served.
func (o *Options) Addresses() ([]nbd.Address, error) {
	var addrs []nbd.Address
	for _, s := range o.NBD {
		a, err := nbd.ParseListen(s)
		if err != nil {
			return nil, fmt.Errorf("--nbd %s: %w", s, err)
		}
		addrs = append(addrs, a)
	}
	return addrs, nil
}

// LoadTLS reads the certificates, which root alone may be allowed to. It is nil
// without.
func (o *Options) LoadTLS() (*tls.Config, error) {
	if !o.TLS() {
		return nil, nil
	}
	return nbd.LoadTLS(o.tlsCert, o.tlsKey, o.tlsClientCA)
}

// ReadCertificates reads the files of the certificates, for another process to load.
func (o *Options) ReadCertificates() (nbd.Certificates, error) {
	return nbd.ReadCertificates(o.tlsCert, o.tlsKey, o.tlsClientCA)
}
