package nbd

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdtest"
)

// TestASilentPeerIsProbed: 30 s of silence and three probes, 10 s apart.
func TestASilentPeerIsProbed(t *testing.T) {
	r := startServer(t, Config{}, map[string]Disk{"disk": newDisk(t, nbdtest.Config{Size: 1 << 20})})
	nc, err := net.Dial("tcp", r.serveTCP().Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	peer{nc, t}.greet()
	rc, err := r.only().raw.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	get := func(level, option int) (n int) {
		t.Helper()
		if e := rc.Control(func(fd uintptr) { n, err = unix.GetsockoptInt(int(fd), level, option) }); e != nil || err != nil {
			t.Fatal(e, err)
		}
		return n
	}
	if get(unix.SOL_SOCKET, unix.SO_KEEPALIVE) == 0 {
		t.Error("no keepalive")
	}
	total := get(unix.IPPROTO_TCP, unix.TCP_KEEPIDLE) + get(unix.IPPROTO_TCP, unix.TCP_KEEPINTVL)*get(unix.IPPROTO_TCP, unix.TCP_KEEPCNT)
	if want := int(r.cfg.SilenceTimeout / time.Second); total != want {
		t.Errorf("a silent peer is given up after %d s, want %d", total, want)
	}
}
