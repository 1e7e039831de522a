package control

import (
	"context"
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

// ownedConn is a connection whose other end is known.
type ownedConn struct {
	net.Conn
	peer peercred.Peer
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
			return ownedConn{c, p}, nil
		}
		o.log.Warn("control connection refused: only root and the daemon's own user may ask", "peer", p.String(), "error", err)
		c.Close()
	}
}

type peerKey struct{}

// ConnContext is for http.Server: handlers find the peer with PeerOf.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	if o, ok := c.(ownedConn); ok {
		return context.WithValue(ctx, peerKey{}, o.peer)
	}
	return ctx
}

// PeerOf is who sent a request that came through OwnersOnly.
func PeerOf(ctx context.Context) (peercred.Peer, bool) {
	p, ok := ctx.Value(peerKey{}).(peercred.Peer)
	return p, ok
}
