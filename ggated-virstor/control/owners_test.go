package control

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gvirstor/gvirstor/ggated-virstor/peercred"
)

func TestOnlyRootAndTheOwnerMayAsk(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var log bytes.Buffer
	self := uint32(os.Geteuid())
	stranger := self + 1000
	who := []peercred.Peer{{UID: stranger, PID: 7}, {UID: self, PID: 8}, {UID: stranger}, {UID: 0, PID: 9}}
	o := OwnersOnly(l, slog.New(slog.NewTextHandler(&log, nil))).(*owners)
	next := 0
	o.of = func(net.Conn) (peercred.Peer, error) {
		next++
		return who[next-1], nil
	}
	for range who {
		c, err := net.Dial("unix", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	for _, want := range []int{8, 9} {
		c, err := o.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if p := who[next-1]; p.PID != want {
			t.Errorf("let in: %v", p)
		}
	}
	if n := strings.Count(log.String(), "control connection refused"); n != 2 || !strings.Contains(log.String(), "pid 7") {
		t.Errorf("the log says:\n%s", &log)
	}
}

func TestWhereTheSystemDoesNotTellTheModeOfTheSocketDecides(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	o := OwnersOnly(l, slog.New(slog.DiscardHandler)).(*owners)
	o.of = func(net.Conn) (peercred.Peer, error) { return peercred.Peer{}, peercred.ErrUnknown }
	c, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	a, err := o.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	l.Close()
	if _, err := o.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}
