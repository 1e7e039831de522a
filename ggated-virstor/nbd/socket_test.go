package nbd

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// socketPair is a connection over a Unix socket.
func socketPair(t *testing.T) (here, there net.Conn) {
	t.Helper()
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	there, err = net.Dial("unix", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	here, err = ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { here.Close(); there.Close() })
	return here, there
}

func TestSocketReadsAsConnDoes(t *testing.T) {
	for _, pollers := range []int32{0, 1} {
		here, there := socketPair(t)
		var free atomic.Int32
		free.Store(pollers)
		s := newSocket(here, &free)
		read := make(chan error, 1)
		b := make([]byte, 8)
		readIn := func() { // what is not there yet, too
			_, err := io.ReadFull(s, b)
			read <- err
		}
		go readIn()
		for _, part := range []string{"abc", "defgh"} {
			if _, err := there.Write([]byte(part)); err != nil {
				t.Fatal(err)
			}
		}
		if err := <-read; err != nil || string(b) != "abcdefgh" {
			t.Errorf("%d pollers: %q, %v", pollers, b, err)
		}
		if s.inputWaits() {
			t.Errorf("%d pollers: input waits when all is read", pollers)
		}
		if _, err := there.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if !s.inputWaits() {
			t.Errorf("%d pollers: no input waits when there is some", pollers)
		}
		if n, err := s.Read(b); n != 1 || err != nil {
			t.Errorf("%d pollers: Read = %d, %v", pollers, n, err)
		}
		go readIn()
		here.SetReadDeadline(longAgo)
		if err := <-read; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%d pollers: after the deadline: %v", pollers, err)
		}
		here.SetReadDeadline(time.Time{})
		there.Close()
		if n, err := s.Read(b); n != 0 || err != io.EOF {
			t.Errorf("%d pollers: at the end: %d, %v", pollers, n, err)
		}
		here.Close()
		if _, err := s.Read(b); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%d pollers: closed: %v", pollers, err)
		}
		if got := free.Load(); got != pollers {
			t.Errorf("%d pollers became %d", pollers, got)
		}
	}
}
