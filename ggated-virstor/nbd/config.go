package nbd

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Config sets a server up. The zero value of every field but TLS, RequireTLS,
// Grants and Idle stands for the default named there.
type Config struct {
	// Log receives what an administrator wants to know. Default: nothing.
	Log *slog.Logger

	// TLS offers STARTTLS. See LoadTLS.
	TLS *tls.Config
	// RequireTLS refuses clients that have not turned TLS on. It does not
	// concern Unix sockets: their mode says who may connect.
	RequireTLS bool

	// Grants say who may use which exports, and how. Without any, every client
	// that may connect may read and write all. A client that several are for
	// has the widest of them; what none is for is not there for it.
	Grants []Grant

	// MaxConns bounds the connections of all listeners together (256). At the
	// limit a newcomer takes the place of the connection that has been
	// negotiating longest, and is refused when all are past negotiation.
	MaxConns int
	// MaxPerPeer bounds the connections of one peer: an address of the network,
	// of which IPv6's count by 64 bits, or a user of Unix sockets (three quarters
	// of MaxConns, so that no peer shuts out all others).
	MaxPerPeer int
	// FirstRequest is how long a client that has chosen an export may ask for
	// nothing before it is disconnected (5 min).
	FirstRequest time.Duration
	// Idle is how long a client may ask for nothing later, with nothing in
	// flight; 0 is for ever. A client that does not connect again by itself, as
	// a kernel's, loses its disk by it.
	Idle time.Duration
	// HandshakeTimeout bounds the whole negotiation, TLS included (30 s).
	HandshakeTimeout time.Duration
	// StallTimeout is how long a peer may take for the next MiB of a reply that
	// it is sent, or of a write that it has announced (30 s). The server
	// disconnects it after three quarters of this at the earliest.
	StallTimeout time.Duration
	// SilenceTimeout is how long a client on another machine may not be heard of,
	// by the system's probes, before its connection is ended (60 s).
	SilenceTimeout time.Duration
	// DrainTimeout is how long the requests of a client that has said goodbye
	// may take before its connection is closed regardless (10 s). They are
	// carried out all the same.
	DrainTimeout time.Duration

	// MaxInFlight bounds the requests of a connection that are not answered
	// (4096). Beyond it the connection is not read.
	MaxInFlight int
	// ConnMemory bounds the bytes of payload a connection has in flight,
	// reads and writes each (128 MiB, at least 32 MiB). Beyond it the
	// connection is not read. It should exceed what a volume holds while full.
	ConnMemory int64
	// ReadMemory bounds the same for the reads of all connections together
	// (128 MiB, at least 32 MiB), WriteMemory for the writes of all connections
	// of one export (128 MiB, at least 32 MiB), so that writes which a full
	// volume holds take memory neither from reads nor from other exports. Each
	// connection has 256 KiB of its own for either beside these. Of ReadMemory a
	// connection leaves to others as much as it uses: one that does not take
	// what it asked for has half of it at most.
	ReadMemory, WriteMemory int64
	// OrphanMemory is how much the requests of clients that are gone may use, at
	// one export, before no new connection to it is read, bytes (64 MiB).
	OrphanMemory int64
}

// connReserve is the memory each connection has to itself, reads and writes
// each, bytes.
const connReserve = 256 << 10

// withDefaults fills in and checks.
func (c Config) withDefaults() (Config, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.RequireTLS && c.TLS == nil {
		return c, errors.New("nbd: TLS is required of clients, but there is no certificate")
	}
	setDefault(&c.MaxConns, 256)
	setDefault(&c.MaxPerPeer, max(1, c.MaxConns*3/4))
	setDefault(&c.FirstRequest, 5*time.Minute)
	setDefault(&c.HandshakeTimeout, 30*time.Second)
	setDefault(&c.StallTimeout, 30*time.Second)
	setDefault(&c.SilenceTimeout, time.Minute)
	setDefault(&c.DrainTimeout, 10*time.Second)
	setDefault(&c.MaxInFlight, 4096)
	setDefault(&c.ConnMemory, 128<<20)
	setDefault(&c.ReadMemory, 128<<20)
	setDefault(&c.WriteMemory, 128<<20)
	setDefault(&c.OrphanMemory, 64<<20)
	for _, v := range []struct {
		name string
		n    int64
		min  int64
	}{
		{"MaxConns", int64(c.MaxConns), 1},
		{"MaxPerPeer", int64(c.MaxPerPeer), 1},
		{"FirstRequest", int64(c.FirstRequest), 1},
		{"Idle", int64(c.Idle), 0},
		{"HandshakeTimeout", int64(c.HandshakeTimeout), 1},
		{"StallTimeout", int64(c.StallTimeout), 1},
		{"SilenceTimeout", int64(c.SilenceTimeout), 1},
		{"DrainTimeout", int64(c.DrainTimeout), 1},
		{"MaxInFlight", int64(c.MaxInFlight), 1},
		{"ConnMemory", c.ConnMemory, maxPayload},
		{"ReadMemory", c.ReadMemory, maxPayload},
		{"WriteMemory", c.WriteMemory, maxPayload},
		{"OrphanMemory", c.OrphanMemory, 1},
	} {
		if v.n < v.min {
			return c, fmt.Errorf("nbd: %s is %d, must be at least %d", v.name, v.n, v.min)
		}
	}
	return c, nil
}

func setDefault[T int | int64 | time.Duration](p *T, v T) {
	if *p == 0 {
		*p = v
	}
}
