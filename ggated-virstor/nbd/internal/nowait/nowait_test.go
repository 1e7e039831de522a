//go:build linux || freebsd

package nowait

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// connected returns two ends of a connection, by Unix or TCP sockets.
func connected(t *testing.T, network string) (a, b net.Conn) {
	t.Helper()
	addr := "127.0.0.1:0"
	if network == "unix" {
		addr = filepath.Join(t.TempDir(), "s")
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.Dial(network, l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func TestAReaderReadsAllThatWasSentAndThenTheEnd(t *testing.T) {
	for _, network := range []string{"unix", "tcp"} {
		t.Run(network, func(t *testing.T) {
			a, b := connected(t, network)
			sent := make([]byte, 3*most)
			src := rand.NewChaCha8([32]byte{7})
			_, _ = src.Read(sent) // never fails
			go func() {
				for rest := sent; len(rest) > 0; {
					n := min(len(rest), 1+int(src.Uint64()%4000))
					if _, err := a.Write(rest[:n]); err != nil {
						t.Error(err)
					}
					rest = rest[n:]
				}
				a.Close()
			}()
			var got []byte
			r := Reader(b)
			for p := make([]byte, most+1); ; {
				n, err := r.Read(p[:1+len(got)%len(p)])
				got = append(got, p[:n]...)
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if !bytes.Equal(got, sent) {
				t.Fatalf("%d bytes read are not the %d that were sent", len(got), len(sent))
			}
		})
	}
}

func TestAReaderEndsWithTheDeadlineAndTheConnection(t *testing.T) {
	_, b := connected(t, "tcp")
	r, p := Reader(b), make([]byte, 8)
	if err := b.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(p); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("after its deadline: %v", err)
	}
	if err := b.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() { _, err := r.Read(p); ended <- err }()
	b.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Fatalf("of a closed connection: %v", err)
	}

	a, b := connected(t, "tcp")
	if err := a.(*net.TCPConn).SetLinger(0); err != nil {
		t.Fatal(err)
	}
	a.Close()
	if _, err := Reader(b).Read(p); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("of a connection that was reset: %v", err)
	}
}

// A socket that another process shares may be set to block.
func TestAReaderDoesNotBlockOnASocketThatDoes(t *testing.T) {
	a, b := connected(t, "unix")
	rc, err := b.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := rc.Control(func(fd uintptr) { err = syscall.SetNonblock(int(fd), false) }); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	r := Reader(b).(*reader)
	r.p = make([]byte, 8)
	var had bool
	if err := rc.Control(func(fd uintptr) { had = r.receive(fd) }); err != nil || had {
		t.Fatalf("nothing was sent: %t, %v", had, err)
	}
	if _, err := a.Write([]byte("word")); err != nil {
		t.Fatal(err)
	}
	if n, err := r.Read(make([]byte, 8)); n != 4 || err != nil {
		t.Fatalf("read %d bytes of 4: %v", n, err)
	}
}

func TestAReaderThatNeverWaitsTellsTheSchedulerNowAndThen(t *testing.T) {
	a, b := connected(t, "unix")
	if _, err := a.Write(make([]byte, 4*turns)); err != nil {
		t.Fatal(err)
	}
	r, told := Reader(b).(*reader), 0
	for p := make([]byte, 1); told < 2; {
		before := r.turn
		if _, err := r.Read(p); err != nil {
			t.Fatal(err)
		}
		if r.turn > turns {
			t.Fatalf("%d reads in succession", r.turn)
		}
		if r.turn < before {
			told++
		}
	}
}

func TestAReaderAllocatesNothing(t *testing.T) {
	a, b := connected(t, "unix")
	r, p := Reader(b), make([]byte, 16)
	if n := testing.AllocsPerRun(100, func() {
		if _, err := a.Write(p); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Read(p); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Fatalf("%v allocations a read", n)
	}
}
