package nbdclient

import (
	"bufio"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"

	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/internal/proto"
)

// TestWhoSendsDoesNotSendForOthersAlone: its own request may be answered long before they
// have no more.
func TestWhoSendsDoesNotSendForOthersAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		c := &Conn{nc: here, raw: here, done: make(chan struct{})}
		c.out.init(c)
		go c.out.loop(c)
		read := proto.Request{Type: proto.CmdRead, Length: 512}
		sent := false
		go func() {
			c.out.send(c, read, nil)
			sent = true
		}()
		synctest.Wait()
		if !c.out.add(c, read, nil) {
			t.Fatal("no room")
		}
		b := make([]byte, proto.RequestSize)
		if _, err := io.ReadFull(there, b); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if !sent {
			t.Error("it waits until the server takes what another has asked for")
		}
		if _, err := io.ReadFull(there, b); err != nil {
			t.Error(err)
		}
		close(c.done)
		synctest.Wait()
		here.Close()
		there.Close()
	})
}

// slowToEnd is a connection a write to which goes on for a while after it was closed, as
// another goroutine's does that encrypts.
type slowToEnd struct {
	net.Conn
	closed, let chan struct{}
}

func (s slowToEnd) Write([]byte) (int, error) {
	<-s.closed
	<-s.let
	return 0, net.ErrClosed
}

func (s slowToEnd) Close() error {
	close(s.closed)
	return s.Conn.Close()
}

// TestWhatIsSentIsTheCallersAgainWhenNobodyReadsIt, however the connection ends.
func TestWhatIsSentIsTheCallersAgainWhenNobodyReadsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		slow := slowToEnd{here, make(chan struct{}), make(chan struct{})}
		c := &Conn{nc: slow, raw: slow, from: slow, done: make(chan struct{})}
		c.in = bufio.NewReader(source{c})
		c.out.init(c)
		go c.out.loop(c)
		go c.receive()
		answered := false
		go func() {
			if _, err := c.WriteAt(make([]byte, 4096), 0); !errors.Is(err, ErrClosed) {
				t.Errorf("written: %v", err)
			}
			answered = true
		}()
		other := false
		go func() {
			_ = c.Flush() // is not being sent, and waits as well
			other = true
		}()
		synctest.Wait()
		there.Close()
		synctest.Wait()
		if answered {
			t.Error("the caller may change what is being sent")
		}
		close(slow.let)
		synctest.Wait()
		if !answered || !other {
			t.Error("somebody waits for ever")
		}
	})
}
