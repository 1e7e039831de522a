package nbd

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gvirstor/gvirstor/ggated-virstor/peercred"
)

// ErrNoClient means that no client of that number is connected.
var ErrNoClient = errors.New("no such NBD client")

// Client is a connection at one moment.
type Client struct {
	Number  uint64    // in order of arrival, from 1; of this server alone
	Unix    bool      // connected through a Unix socket
	Address string    // HOST:PORT, but for a Unix socket
	PID     int       // of the process on a Unix socket; 0: not known
	UID     int64     // of that process; -1: not known
	TLS     string    // version, "TLS 1.3"; empty without
	Name    string    // of its certificate; empty without
	Export  string    // empty while it negotiates
	Reads   bool      // it may only read
	Since   time.Time // when it connected
	// Idle is how long it has asked for nothing, to a few seconds.
	Idle time.Duration

	InFlight     int64 // requests taken and not answered
	Held         int64 // of these, writes that wait for space
	Requests     uint64
	BytesRead    uint64
	BytesWritten uint64
}

// Clients are the connections, in order of arrival, those that negotiate included.
func (s *Server) Clients() []Client {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Client, 0, len(s.conns))
	for c := range s.conns {
		all = append(all, c.describeLocked(now))
	}
	slices.SortFunc(all, func(a, b Client) int { return cmp.Compare(a.Number, b.Number) })
	return all
}

// describeLocked describes a connection; Server.mu is held.
func (c *conn) describeLocked(now time.Time) Client {
	d := Client{
		Number: c.number, Unix: c.id.unix, Address: c.id.addr, PID: c.id.pid, UID: -1,
		TLS: c.id.tls, Name: c.id.tlsName(), Since: c.since,
		InFlight: c.outstanding.Load(), Held: c.heldWrites.Load(), Requests: c.counters.requests(),
		BytesRead: c.counters.bytesRead.Load(), BytesWritten: c.counters.bytesWritten.Load(),
	}
	if c.id.known {
		d.UID = int64(c.id.uid)
	}
	if c.exp == nil {
		d.Idle = now.Sub(c.since)
		return d
	}
	d.Export, d.Reads = c.exp.name, c.readOnly || c.exp.disk.ReadOnly()
	if d.InFlight == 0 && d.Requests == c.lull.requests {
		d.Idle = now.Sub(c.lull.since)
	}
	return d
}

// Disconnect ends the connection of that number. Requests that the disk has are
// carried out, and not answered. It returns when nothing more of the connection
// is submitted to any disk. It fails with ErrNoClient.
func (s *Server) Disconnect(number uint64) error {
	s.mu.Lock()
	var found *conn
	for c := range s.conns {
		if c.number == number {
			found = c
		}
	}
	s.mu.Unlock()
	if found == nil {
		return fmt.Errorf("disconnect client %d: %w", number, ErrNoClient)
	}
	s.disconnect([]*conn{found})
	return nil
}

// certify notes what TLS says of a client. A certificate counts only when the
// authority for clients has signed it.
func (s *Server) certify(c *conn, st tls.ConnectionState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.id.tls = tls.VersionName(st.Version)
	if len(st.VerifiedChains) > 0 {
		c.id.cert = st.VerifiedChains[0][0]
	}
}

// String is how the log calls a client.
func (id *identity) String() string {
	switch {
	case !id.unix:
		return id.addr
	case !id.known:
		return "unix"
	}
	return "unix, " + peercred.Peer{UID: id.uid, PID: id.pid}.String()
}
