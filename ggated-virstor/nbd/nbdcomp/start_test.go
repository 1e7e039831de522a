package nbdcomp

import (
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/internal/proto"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdtest"
)

// started reads and writes by transfers, where they begin, and waits for them.
type started struct{ p *provider }

// ended waits for a transfer.
type ended struct {
	t    geomlib.Transfer
	done chan struct{}
}

func (e *ended) Ended(*geomlib.Transfer) { e.done <- struct{}{} }

var endings = sync.Pool{New: func() any { return &ended{done: make(chan struct{}, 1)} }}

func (s started) do(b []byte, off int64, start func(*geomlib.Transfer) bool) (ok bool, err error) {
	e := endings.Get().(*ended)
	defer endings.Put(e)
	e.t = geomlib.Transfer{Data: b, Offset: off, End: e}
	if !start(&e.t) {
		return false, nil
	}
	s.p.Push()
	<-e.done
	return true, e.t.Err
}

// begunWrite is a write of three sectors of 7 at sector 5, which was sent.
func begunWrite(t *testing.T, p *provider) *ended {
	t.Helper()
	e := &ended{done: make(chan struct{}, 1)}
	e.t = geomlib.Transfer{Data: sectors(3, 7), Offset: 5 * sector, End: e}
	if !p.StartWrite(&e.t) {
		t.Fatal("not begun")
	}
	p.Push()
	return e
}

// ReadAt asks again when the session was lost, as who starts reads must.
func (s started) ReadAt(b []byte, off int64) (int, error) {
	if ok, err := s.do(b, off, s.p.StartRead); ok && err == nil {
		return len(b), nil
	}
	return s.p.ReadAt(b, off)
}

func (s started) WriteAt(b []byte, off int64) (int, error) {
	if ok, err := s.do(b, off, s.p.StartWrite); ok {
		return len(b), err
	}
	return s.p.WriteAt(b, off)
}

// A write that was started is done again like any other when its server comes back, and
// ends then.
func TestAStartedWriteEndsWhenItsServerIsBack(t *testing.T) {
	s := newForgetful(t, 1000)
	p := provide(t, s, Opener{})
	mustFlush(t, p)
	asked := make(chan struct{})
	dead := make(chan struct{})
	var once sync.Once
	s.hook(hooks{before: func(r proto.Request) uint32 {
		if r.Type == proto.CmdWrite {
			once.Do(func() { close(asked) })
			<-dead
		}
		return 0
	}})
	e := begunWrite(t, p)
	<-asked
	s.die(nil)
	close(dead)
	select {
	case <-e.done:
		t.Fatalf("it ends while the server is dead: %v", e.t.Err)
	default:
	}
	s.rise()
	<-e.done
	if e.t.Err != nil {
		t.Errorf("%v", e.t.Err)
	}
	if is := reads(t, p, 5, 3); is != 7 {
		t.Errorf("holds %d", is)
	}
}

// An error of the server is the transfer's.
func TestAnErrorOfTheServerEndsATransfer(t *testing.T) {
	s := newForgetful(t, 1000)
	p := provide(t, s, Opener{})
	s.hook(hooks{before: func(r proto.Request) uint32 {
		if r.Type == proto.CmdWrite || r.Type == proto.CmdRead {
			return uint32(syscall.EIO)
		}
		return 0
	}})
	for what, start := range map[string]func(*geomlib.Transfer) bool{"read": p.StartRead, "write": p.StartWrite} {
		ok, err := started{p}.do(sectors(1, 1), 0, start)
		if !ok || !errors.Is(err, syscall.EIO) {
			t.Errorf("%s: %t, %v", what, ok, err)
		}
	}
	if n := p.Reach().Unflushed; n != 0 {
		t.Errorf("%d bytes of a write that was refused are kept", n)
	}
}

// What overlaps a write that is on its way, is out of range, or is forbidden by the lease,
// does not begin: who may wait does it.
func TestWhatWouldWaitDoesNotBegin(t *testing.T) {
	s := newForgetful(t, 1000)
	p := provide(t, s, Opener{})
	release := make(chan struct{})
	s.hook(hooks{before: func(r proto.Request) uint32 {
		if r.Type == proto.CmdWrite {
			<-release
		}
		return 0
	}})
	e := begunWrite(t, p)
	over := geomlib.Transfer{Data: sectors(1, 8), Offset: 7 * sector, End: e}
	if p.StartWrite(&over) {
		t.Error("an overlapping write begins")
	}
	beyond := geomlib.Transfer{Data: sectors(2, 8), Offset: 999 * sector, End: e}
	if p.StartWrite(&beyond) || p.StartRead(&beyond) {
		t.Error("what is out of range begins")
	}
	p.Guard(forbids{})
	other := geomlib.Transfer{Data: sectors(1, 8), Offset: 50 * sector, End: e}
	if p.StartWrite(&other) {
		t.Error("what the lease forbids begins")
	}
	p.Guard(nil)
	close(release)
	<-e.done
}

// forbids is a Guard that lets nothing be sent.
type forbids struct{ geomlib.Guard }

func (forbids) MaySend() bool { return false }

// A server that takes nothing more does not hold up who starts requests.
func TestAServerThatTakesNothingHoldsUpNobodyWhoStarts(t *testing.T) {
	ln, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	s := newForgetful(t, 1<<16)
	go func() { // all of the connections are led to s, which gets no requests when it has greeted
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("unix", s.path)
			if err != nil {
				c.Close()
				return
			}
			go io.Copy(c, up)
			go func() {
				io.CopyN(up, c, 1<<20)
				<-t.Context().Done()
				c.Close()
				up.Close()
			}()
		}
	}()
	p := open(t, "nbd+unix:///disk?socket="+ln.Addr().String(), geomlib.OpenOptions{})
	q := of(p)
	within := time.AfterFunc(time.Minute, func() { panic("somebody waits") })
	defer within.Stop()
	n, refused := 0, 0
	done := make(chan struct{}, 1<<16)
	for i := range 1 << 12 {
		e := &counting{done: done}
		e.t = geomlib.Transfer{Data: sectors(16, 1), Offset: int64(i) * 16 * sector, End: e}
		if q.StartWrite(&e.t) {
			n++
		} else if refused++; refused > 8 {
			break
		}
		q.Push()
	}
	if refused == 0 {
		t.Error("nothing is refused")
	}
	q.Abandon(errors.New("given up"))
	q.session.reset()
	for range n {
		<-done
	}
}

type counting struct {
	t    geomlib.Transfer
	done chan struct{}
}

func (e *counting) Ended(*geomlib.Transfer) { e.done <- struct{}{} }

// batchOf joins the batch that its transfer ends in, as who sends replies together does.
type batchOf struct{ ended chan struct{} }

func (b batchOf) Ended(t *geomlib.Transfer) {
	if t.Batch == nil {
		close(b.ended) // there is nothing to wait for
		return
	}
	t.Batch.After(b)
}

func (b batchOf) BatchEnded() { close(b.ended) }

// What waits for the end of a batch is told while the connection lives, over TLS as well.
func TestABatchEndsBeforeTheConnectionIsWaitedFor(t *testing.T) {
	dir := certify(t)
	tls, err := nbd.LoadTLS(filepath.Join(dir, "client-cert.pem"), filepath.Join(dir, "client-key.pem"), filepath.Join(dir, "ca-cert.pem"))
	if err != nil {
		t.Fatal(err)
	}
	plain, _ := serve(t, nbd.Config{}, unixSocket(t), nbdtest.Config{Size: 1 << 20})
	secret, _ := serve(t, nbd.Config{TLS: tls, RequireTLS: true}, "tcp:127.0.0.1:0", nbdtest.Config{Size: 1 << 20})
	for what, uri := range map[string]string{"plain": plain, "TLS": secret + "?tls-certificates=" + dir} {
		t.Run(what, func(t *testing.T) {
			p := of(open(t, uri, geomlib.OpenOptions{}))
			b := batchOf{make(chan struct{})}
			if !p.StartRead(&geomlib.Transfer{Data: make([]byte, 4096), End: b}) {
				t.Fatal("not begun")
			}
			p.Push()
			select {
			case <-b.ended:
			case <-time.After(10 * time.Second):
				t.Error("the batch does not end")
			}
		})
	}
}
