package supervisor

import (
	"context"

	"github.com/gvirstor/gvirstor/ggated-virstor/supervisor/internal/fdrpc"
)

// Certificates are those of the NBD server, PEM, as nbd.Certificates. The worker's
// user may not read the key's file.
type Certificates struct {
	Chain    []byte
	Key      []byte
	ClientCA []byte
}

// methodCertificates has the supervisor read the files that its configuration
// names; the worker cannot name any. → Certificates
const methodCertificates = "certificates"

// certificates answers methodCertificates.
func (s *Supervisor) certificates() (fdrpc.Reply, error) {
	if s.opt.Certificates == nil {
		return fdrpc.Reply{Body: Certificates{}}, nil
	}
	c, err := s.opt.Certificates()
	return fdrpc.Reply{Body: c}, err
}

// Certificates are the NBD server's as they are on disk now; empty without TLS.
func (c *Client) Certificates(ctx context.Context) (certs Certificates, err error) {
	_, err = c.peer.Call(ctx, methodCertificates, struct{}{}, &certs)
	return certs, err
}
