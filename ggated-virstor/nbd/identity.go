package nbd

import (
	"crypto/x509"
	"net"
	"net/netip"
	"strconv"

	"github.com/gvirstor/gvirstor/ggated-virstor/peercred"
)

// identity is who a client is, as far as that can be known. But for cert, it is
// fixed when the connection is accepted; cert and tls are set by the
// reader under Server.mu once TLS is on.
type identity struct {
	unix  bool
	addr  string // of the network, HOST:PORT
	known bool   // pid and uid are known: the kernel tells them of a Unix socket
	pid   int    // 0 where the system does not tell it
	uid   uint32
	// cert is the client's certificate that the authority has signed, or nil.
	cert *x509.Certificate
	tls  string // version; empty without
	// peer is what one peer's connections have in common: the address, of
	// which 64 bits for IPv6, or the user.
	peer string
}

// identify looks at a connection that was just accepted.
func identify(nc net.Conn) identity {
	if nc.RemoteAddr().Network() != "unix" {
		addr := nc.RemoteAddr().String()
		return identity{addr: addr, peer: peerOf(addr)}
	}
	id := identity{unix: true, peer: "unix"}
	if p, err := peercred.Of(nc); err == nil {
		id.known, id.pid, id.uid = true, p.PID, p.UID
		id.peer = "uid " + strconv.FormatUint(uint64(p.UID), 10)
	}
	return id
}

// peerOf is the part of HOST:PORT by which connections are counted. A client
// of IPv6 commonly has a whole network of 64 bits.
func peerOf(addr string) string {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return addr
	}
	ip := ap.Addr().Unmap().WithZone("")
	if ip.Is4() || ip.IsLoopback() {
		return ip.String()
	}
	prefix, err := ip.Prefix(64)
	if err != nil {
		return ip.String()
	}
	return prefix.String()
}

// tlsName is what the client's certificate calls it: its common name, or else its
// first alternative name; empty without a certificate.
func (id *identity) tlsName() string {
	if id.cert == nil {
		return ""
	}
	if cn := id.cert.Subject.CommonName; cn != "" {
		return cn
	}
	if names := alternativeNames(id.cert); len(names) > 0 {
		return names[0]
	}
	return "(nameless)"
}
