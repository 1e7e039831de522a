package nbd

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/internal/proto"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdclient"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdtest"
)

// authority signs certificates.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.file, _, a.key = a.issue("ca", a.cert, nil)
	return a
}

// issue makes a certificate; without a parent it signs itself.
func (a *authority) issue(name string, template *x509.Certificate, parent *ecdsa.PrivateKey) (certFile, keyFile string, key *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	if parent == nil {
		parent = key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, parent)
	if err != nil {
		a.t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	return a.write(name+".crt", "CERTIFICATE", der), a.write(name+".key", "PRIVATE KEY", keyDER), key
}

func (a *authority) write(name, kind string, der []byte) string {
	a.t.Helper()
	path := filepath.Join(a.dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return path
}

// leaf makes a certificate for localhost, or for a client.
func (a *authority) leaf(name string) (certFile, keyFile string) {
	certFile, keyFile, _ = a.issue(name, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.key)
	return certFile, keyFile
}

// trust is what a client has that trusts the authority and shows a certificate,
// if any.
func (a *authority) trust(certFile, keyFile string) *tls.Config {
	a.t.Helper()
	cfg := &tls.Config{RootCAs: x509.NewCertPool()}
	cfg.RootCAs.AddCert(a.parsed())
	if certFile != "" {
		cert, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			a.t.Fatal(err)
		}
		cfg.Certificates = []tls.Certificate{cert}
	}
	return cfg
}

func (a *authority) parsed() *x509.Certificate {
	a.t.Helper()
	b, err := os.ReadFile(a.file)
	if err != nil {
		a.t.Fatal(err)
	}
	block, _ := pem.Decode(b)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert
}

// serveTCP lets the server listen on the loopback network too.
func (r *rig) serveTCP() Address {
	r.t.Helper()
	a, err := ParseListen("tcp:127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	ln, err := Listen(r.t.Context(), a, ListenOptions{TLS: true})
	if err != nil {
		r.t.Fatal(err)
	}
	go r.Serve(context.Background(), ln)
	return Address{"tcp", ln.Addr().String()}
}

func TestTLS(t *testing.T) {
	ca := newAuthority(t)
	serverCert, serverKey := ca.leaf("server")
	clientCert, clientKey := ca.leaf("client")
	cfg, err := LoadTLS(serverCert, serverKey, ca.file)
	if err != nil {
		t.Fatal(err)
	}
	d := newDisk(t, nbdtest.Config{Size: 64 << 20, Workers: 2})
	r := startServer(t, Config{TLS: cfg, RequireTLS: true}, map[string]Disk{"disk": d})
	addr := r.serveTCP()
	uri := URI(addr, "disk", true)

	t.Run("a client with a certificate is served", func(t *testing.T) {
		c, err := nbdclient.Dial(t.Context(), uri, nbdclient.Options{TLS: ca.trust(clientCert, clientKey)})
		if err != nil {
			t.Fatal(err)
		}
		if err := exercise(c, 0, 3<<20, 1); err != nil {
			t.Error(err)
		}
		big := bytes.Repeat([]byte("0123456789abcdef"), 2<<20)
		got := make([]byte, len(big))
		if _, err := c.WriteAt(big, 0); err != nil {
			t.Error(err)
		}
		if _, err := c.ReadAt(got, 0); err != nil || !bytes.Equal(got, big) {
			t.Errorf("32 MiB do not come back: %v", err)
		}
		if err := c.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	t.Run("a client without a certificate is refused", func(t *testing.T) {
		if c, err := nbdclient.Dial(t.Context(), uri, nbdclient.Options{TLS: ca.trust("", "")}); err == nil {
			c.Abort()
			t.Error("served")
		}
	})
	t.Run("a client with a stranger's certificate is refused", func(t *testing.T) {
		stranger := newAuthority(t)
		cert, key := stranger.leaf("client")
		if c, err := nbdclient.Dial(t.Context(), uri, nbdclient.Options{TLS: ca.trust(cert, key)}); err == nil {
			c.Abort()
			t.Error("served")
		}
	})
	t.Run("a client without TLS is told so", func(t *testing.T) {
		var refused *nbdclient.OptionError
		_, err := nbdclient.Dial(t.Context(), URI(addr, "disk", false), nbdclient.Options{Simple: true})
		if !errors.As(err, &refused) || refused.Reply != proto.RepErrTLSReqd {
			t.Errorf("go: %v", err)
		}
		if c, err := nbdclient.Dial(t.Context(), URI(addr, "disk", false), nbdclient.Options{Simple: true, ExportName: true}); err == nil {
			c.Abort()
			t.Error("the oldest option goes around TLS")
		}
		nc, err := net.Dial("tcp", addr.Addr)
		if err != nil {
			t.Fatal(err)
		}
		if names, err := nbdclient.List(nc); err == nil {
			t.Errorf("the exports are listed: %v", names)
		}
	})
	t.Run("a Unix socket does without", func(t *testing.T) {
		r.works()
	})
	t.Run("a client that hangs in the handshake is disconnected", func(t *testing.T) {
		r := startServer(t, Config{TLS: cfg, HandshakeTimeout: time.Second}, map[string]Disk{"disk": d})
		p := r.connect()
		p.greet()
		if got := p.option(proto.OptStartTLS, nil); got != proto.RepAck {
			t.Fatalf("STARTTLS: %#x", got)
		}
		p.expectEnd()
	})
	t.Run("state from before TLS is forgotten", func(t *testing.T) {
		r := startServer(t, Config{TLS: cfg}, map[string]Disk{"disk": d})
		p := r.connect()
		p.greet()
		p.option(proto.OptExtendedHeaders, nil)
		p.option(proto.OptStartTLS, nil)
		client := ca.trust(clientCert, clientKey)
		client.ServerName = "localhost"
		p = peer{tls.Client(p.Conn, client), t}
		if got := p.option(proto.OptStartTLS, nil); got != proto.RepErrInvalid {
			t.Errorf("TLS in TLS: %#x", got)
		}
		if got := p.option(proto.OptGo, append(proto.AppendString(nil, "disk"), 0, 0)); got != proto.RepAck {
			t.Fatalf("go: %#x", got)
		}
		p.request(proto.CmdRead, 1, 0, 1, nil)
		if errno, _ := p.expectReply(); errno != 0 {
			t.Errorf("simple read: %d", errno)
		}
	})
	r.expectMemoryBack()
}

func TestLoadTLSNamesWhatIsWrong(t *testing.T) {
	ca := newAuthority(t)
	cert, key := ca.leaf("server")
	if _, err := LoadTLS(cert, key, ""); err != nil {
		t.Errorf("without client CA: %v", err)
	}
	for _, files := range [][3]string{
		{cert + "x", key, ""}, {cert, key + "x", ""}, {cert, key, "nowhere"}, {cert, key, key}, {key, cert, ""},
	} {
		if _, err := LoadTLS(files[0], files[1], files[2]); err == nil {
			t.Errorf("%q: no error", files)
		}
	}
	if _, err := NewServer(Config{RequireTLS: true}); err == nil {
		t.Error("TLS is required without a certificate")
	}
	if _, err := NewServer(Config{ReadMemory: 1}); err == nil {
		t.Error("less memory than the largest read")
	}
}
