package nbd

import (
	"net"
	"time"
)

// silence is when a peer of the network that does not answer the kernel's probes is
// given up: one that lost power or its cable says no goodbye.
const silence = time.Minute

// keepAlive has the kernel probe a connection of the network. A listener that was
// handed over does not do so by itself. Systems without the finer settings keep
// their own times.
func keepAlive(nc net.Conn) {
	if tcp, ok := nc.(*net.TCPConn); ok {
		tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: silence / 2, Interval: silence / 6, Count: 3})
	}
}
