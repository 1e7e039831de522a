package nbd

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/gvirstor/gvirstor/geomlib/ownfile"
)

// Certificates are what a server of TLS needs, PEM.
type Certificates struct {
	Chain []byte // the server's certificate, and those between it and its authority
	Key   []byte
	// ClientCA are certificates one of which must have signed a client's; empty:
	// clients show none.
	ClientCA []byte
}

// maxPEM bounds a file of certificates or a key, in bytes.
const maxPEM = 4 << 20

// ReadCertificates reads the files. clientCA may be empty. Files that others can
// write to, and a key that they can read, are refused (ownfile.ErrUnsafe).
func ReadCertificates(certFile, keyFile, clientCA string) (c Certificates, err error) {
	if c.Chain, err = ownfile.ReadTrusted(certFile, ownfile.Public, maxPEM); err == nil {
		c.Key, err = ownfile.ReadTrusted(keyFile, ownfile.Private, maxPEM)
	}
	if err != nil {
		return c, fmt.Errorf("load TLS certificate %s and key %s: %w", certFile, keyFile, err)
	}
	if clientCA == "" {
		return c, nil
	}
	if c.ClientCA, err = ownfile.ReadTrusted(clientCA, ownfile.Public, maxPEM); err != nil {
		return c, fmt.Errorf("load certificates that sign clients: %w", err)
	}
	if len(c.ClientCA) == 0 { // without any, clients would need no certificate
		return c, fmt.Errorf("load certificates that sign clients: %s is empty", clientCA)
	}
	return c, nil
}

// Config is what Config.TLS takes.
func (c Certificates) Config() (*tls.Config, error) {
	pair, err := tls.X509KeyPair(c.Chain, c.Key)
	if err != nil {
		return nil, fmt.Errorf("TLS certificate and key: %w", err)
	}
	cfg := &tls.Config{
		Certificates: []tls.Certificate{pair},
		MinVersion:   tls.VersionTLS12,
	}
	if len(c.ClientCA) == 0 {
		return cfg, nil
	}
	cfg.ClientCAs = x509.NewCertPool()
	if !cfg.ClientCAs.AppendCertsFromPEM(c.ClientCA) {
		return nil, errors.New("certificates that sign clients: there is no certificate among them")
	}
	cfg.ClientAuth = tls.RequireAndVerifyClientCert
	return cfg, nil
}

// LoadTLS is ReadCertificates and Config.
func LoadTLS(certFile, keyFile, clientCA string) (*tls.Config, error) {
	c, err := ReadCertificates(certFile, keyFile, clientCA)
	if err != nil {
		return nil, err
	}
	cfg, err := c.Config()
	if err != nil {
		return nil, fmt.Errorf("load TLS certificate %s, key %s, and who signs clients %q: %w", certFile, keyFile, clientCA, err)
	}
	return cfg, nil
}
