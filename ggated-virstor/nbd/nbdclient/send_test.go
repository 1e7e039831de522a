package nbdclient

import (
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
