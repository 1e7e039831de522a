package nbdcomp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/ownfile"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdclient"
)

// connectTimeout is how long connecting and negotiating may take.
const connectTimeout = 20 * time.Second

// Credentials are the files of tls-certificates, PEM. Each may be empty.
type Credentials struct {
	CA   []byte `json:"ca,omitempty"` // who signs servers; empty: the system's authorities
	Cert []byte `json:"cert,omitempty"`
	Key  []byte `json:"key,omitempty"`
}

// maxPEM bounds a file of certificates or a key, bytes.
const maxPEM = 4 << 20

// readCredentials reads the files that the URI names, by the names that libnbd and QEMU
// have for them. Those that others can write to, and a key that they can read, are
// refused (ownfile.ErrUnsafe).
func readCredentials(u nbdclient.URI) (c Credentials, err error) {
	if u.Certificates == "" {
		return c, nil
	}
	for _, file := range []struct {
		name   string
		secret ownfile.Secret
		into   *[]byte
	}{
		{"ca-cert.pem", ownfile.Public, &c.CA},
		{"client-cert.pem", ownfile.Public, &c.Cert},
		{"client-key.pem", ownfile.Private, &c.Key},
	} {
		b, err := ownfile.ReadTrusted(filepath.Join(u.Certificates, file.name), file.secret, maxPEM)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return c, err
		}
		*file.into = b
	}
	switch {
	case (c.Cert == nil) != (c.Key == nil):
		return c, fmt.Errorf("%s: of client-cert.pem and client-key.pem one is there, and the other is not", u.Certificates)
	case c.CA == nil && c.Cert == nil:
		return c, fmt.Errorf("%s: neither ca-cert.pem nor client-cert.pem is there", u.Certificates)
	}
	return c, nil
}

// config is how to speak TLS with the server of u.
func (c Credentials) config(u nbdclient.URI) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(c.CA) > 0 {
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(c.CA) {
			return nil, errors.New("ca-cert.pem: there is no certificate in it")
		}
	}
	if len(c.Cert) > 0 {
		pair, err := tls.X509KeyPair(c.Cert, c.Key)
		if err != nil {
			return nil, fmt.Errorf("client-cert.pem and client-key.pem: %w", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return u.Config(cfg), nil
}

// dial connects to the server of u, from this process.
func dial(ctx context.Context, u nbdclient.URI) (net.Conn, Credentials, error) {
	c, err := readCredentials(u)
	if err != nil {
		return nil, c, err
	}
	nc, err := new(net.Dialer).DialContext(ctx, u.Network, u.Addr)
	if t, ok := nc.(*net.TCPConn); ok && err == nil {
		// Whoever gives it up, or dies, resets it: nothing that the system still has of it
		// is sent later.
		if err = t.SetLinger(0); err != nil {
			return nil, c, errors.Join(err, nc.Close())
		}
	}
	return nc, c, err
}

// Connect implements geomlib.Connector: the connection is made, and nothing is said on it
// yet. What comes along are the Credentials.
func (Keeper) Connect(ctx context.Context, name string) (f *os.File, state []byte, err error) {
	u, err := nbdclient.ParseURI(name)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	nc, c, err := dial(ctx, u)
	if err != nil {
		return nil, nil, fmt.Errorf("connect to %s: %w", u, err)
	}
	defer nc.Close()
	if state, err = json.Marshal(c); err != nil {
		return nil, nil, fmt.Errorf("connect to %s: %w", u, err)
	}
	f, err = nc.(interface{ File() (*os.File, error) }).File()
	return f, state, err
}

// connect returns a new connection that by made, or this process.
func connect(ctx context.Context, by geomlib.Connector, u nbdclient.URI) (net.Conn, Credentials, error) {
	if by == nil {
		return dial(ctx, u)
	}
	var c Credentials
	f, state, err := by.Connect(ctx, u.String())
	if err != nil {
		return nil, c, err
	}
	defer f.Close()
	if err := json.Unmarshal(state, &c); err != nil {
		return nil, c, err
	}
	nc, err := net.FileConn(f)
	return nc, c, err
}

// negotiate enters the export of u on a new connection, whose answers come in batches.
func negotiate(ctx context.Context, by geomlib.Connector, u nbdclient.URI, batch *geomlib.Batch) (*nbdclient.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	nc, creds, err := connect(ctx, by, u)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", u, err)
	}
	opt := nbdclient.Options{Export: u.Export, LiesOn: true, Settle: batch.End}
	if u.TLS {
		if opt.TLS, err = creds.config(u); err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", u, err), nc.Close())
		}
	}
	c, err := nbdclient.New(ctx, nc, opt)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", u, err)
	}
	return c, nil
}
