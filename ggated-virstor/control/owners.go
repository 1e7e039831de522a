package control

import (
	"errors"
	"log/slog"
	"net"
	"os"

	"github.com/gvirstor/gvirstor/ggated-virstor/peercred"
)

// OwnersOnly is l for root and for the user of this process. The permissions of
// the socket say the same, but they can be changed, and the socket moved. Others
// are disconnected and named in the log.
func OwnersOnly(l net.Listener, log *slog.Logger) net.Listener {
	return &owners{Listener: l, log: log, of: peercred.Of, self: uint32(os.Geteuid())}
}

type owners struct {
	net.Listener
	log  *slog.Logger
	of   func(net.Conn) (peercred.Peer, error)
	self uint32
}

// Accept waits for a connection of somebody who may ask.
func (o *owners) Accept() (net.Conn, error) {
	for {
		c, err := o.Listener.Accept()
		if err != nil {
			return nil, err
		}
		p, err := o.of(c)
		if errors.Is(err, peercred.ErrUnknown) {
			return c, nil // the socket's mode alone keeps others off
		}
		if err == nil && (p.UID == 0 || p.UID == o.self) {
			return c, nil
		}
		o.log.Warn("control connection refused: only root and the daemon's own user may ask", "peer", p.String(), "error", err)
		c.Close()
	}
}
