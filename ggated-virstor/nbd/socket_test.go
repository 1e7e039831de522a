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
	for _, seats := range []int32{0, 1} {
		here, there := socketPair(t)
		var free atomic.Int32
		free.Store(seats)
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
			t.Errorf("%d seats: %q, %v", seats, b, err)
		}
		if s.inputWaits() {
			t.Errorf("%d seats: input waits when all is read", seats)
		}
		if _, err := there.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if !s.inputWaits() {
			t.Errorf("%d seats: no input waits when there is some", seats)
		}
		if n, err := s.Read(b); n != 1 || err != nil {
			t.Errorf("%d seats: Read = %d, %v", seats, n, err)
		}
		go readIn()
		here.SetReadDeadline(longAgo)
		if err := <-read; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%d seats: after the deadline: %v", seats, err)
		}
		here.SetReadDeadline(time.Time{})
		there.Close()
		if n, err := s.Read(b); n != 0 || err != io.EOF {
			t.Errorf("%d seats: at the end: %d, %v", seats, n, err)
		}
		here.Close()
		if _, err := s.Read(b); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%d seats: closed: %v", seats, err)
		}
		if got := free.Load(); got != seats {
			t.Errorf("%d seats became %d", seats, got)
		}
	}
}
