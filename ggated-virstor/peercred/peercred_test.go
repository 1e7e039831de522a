package peercred

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
)

func TestThePeerOfAUnixSocketIsKnown(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	a, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	p, err := Of(a)
	if err != nil || int(p.UID) != os.Geteuid() {
		t.Fatalf("%v, %v", p, err)
	}
	if p.PID != os.Getpid() {
		t.Fatalf("%v, this is %d", p, os.Getpid())
	}
}

func TestThePeerOfANetworkConnectionIsNotKnown(t *testing.T) {
	c, other := net.Pipe()
	defer c.Close()
	defer other.Close()
	if _, err := Of(c); !errors.Is(err, ErrUnknown) {
		t.Fatal(err)
	}
}
