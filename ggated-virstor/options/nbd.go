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
	case o.NBDMaxPeer < 0 || o.NBDMaxPeer > o.NBDMaxClients:
		return fmt.Errorf("--nbd-max-peer-clients %d: from 0 to --nbd-max-clients, which is %d", o.NBDMaxPeer, o.NBDMaxClients)
	}
	for _, g := range o.grants {
		if g.NeedsAuthority() && o.tlsClientCA == "" {
			return fmt.Errorf("--nbd-allow %s: needs --tls-client-ca, the file of who signs clients' certificates", g)
		}
	}
	return nil
}

// Grants are who may use which exports.
func (o *Options) Grants() []nbd.Grant { return o.grants }

// readGrant reads one of --nbd-allow.
func readGrant(text string) (nbd.Grant, error) {
	g, err := nbd.ParseGrant(text)
	if err != nil {
		return g, fmt.Errorf("--nbd-allow %w", err)
	}
	return g, nil
}

// readAddress reads one of --nbd.
func readAddress(text string) (nbd.Address, error) {
	a, err := nbd.ParseListen(text)
	if err != nil {
		return a, fmt.Errorf("--nbd %s: %w", text, err)
	}
	return a, nil
}

// checkAddresses refuses addresses that would be refused when they are listened on.
func (o *Options) checkAddresses() error {
	for _, a := range o.NBD {
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
