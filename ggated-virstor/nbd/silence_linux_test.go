package nbd

import (
	"errors"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// lonelyNetwork connects two sockets through a loopback device of their own, which
// off turns off: what is sent from then on goes nowhere.
func lonelyNetwork(t *testing.T) (server, client net.Conn, off func()) {
	t.Helper()
	runtime.LockOSThread() // for ever: the thread ends with its goroutine
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("needs a network of its own: %v", err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	set := func(flags uint16) {
		t.Helper()
		ifr, err := unix.NewIfreq("lo")
		if err != nil {
			t.Fatal(err)
		}
		ifr.SetUint16(flags)
		if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
			t.Fatal(err)
		}
	}
	set(unix.IFF_UP | unix.IFF_LOOPBACK | unix.IFF_RUNNING)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err = net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err = ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close(); client.Close() })
	return server, client, func() { set(0) }
}

func TestAPeerThatFallsSilentIsGivenUp(t *testing.T) {
	for _, what := range []string{"nothing is sent", "a reply is on its way"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			server, _, off := lonelyNetwork(t)
			if err := endSilent(server, 2*time.Second); err != nil {
				t.Fatal(err)
			}
			off()
			if what != "nothing is sent" {
				if _, err := server.Write(make([]byte, 1000)); err != nil {
					t.Fatal(err)
				}
			}
			server.SetReadDeadline(time.Now().Add(patience))
			if _, err := server.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("a silent peer is kept: %v", err)
			}
		})
	}
}
