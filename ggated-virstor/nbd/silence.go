package nbd

import (
	"net"
	"time"
)

// endSilent has the system end a connection to another machine when nothing was
// heard of the peer for span: neither an answer to the probes that are sent while
// nothing else is, nor an acknowledgement of what was. A peer on a Unix socket is
// never silent: its end is seen.
func endSilent(nc net.Conn, span time.Duration) error {
	t, ok := nc.(*net.TCPConn)
	if !ok {
		return nil
	}
	const probes = 3
	err := t.SetKeepAliveConfig(net.KeepAliveConfig{
		Enable:   true,
		Idle:     max(span/2, time.Second),
		Interval: max(span/2/probes, time.Second),
		Count:    probes,
	})
	if err != nil {
		return err
	}
	rc, err := t.SyscallConn()
	if err != nil {
		return err
	}
	var limit error
	if err := rc.Control(func(fd uintptr) { limit = limitUnacked(fd, span) }); err != nil {
		return err
	}
	return limit
}
