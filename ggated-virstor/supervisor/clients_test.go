package supervisor

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// socketPair is a client's connection and what a worker has of it.
func socketPair(t *testing.T) (client net.Conn, socket *os.File) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unix"})
	must(t, err)
	defer l.Close()
	client, err = net.Dial("unix", l.Addr().String())
	must(t, err)
	t.Cleanup(func() { client.Close() })
	served, err := l.AcceptUnix()
	must(t, err)
	defer served.Close()
	socket, err = served.File()
	must(t, err)
	return client, socket
}

// leave has the worker leave clients, and the supervisor take them.
func (p *pair) leave(t *testing.T, all ...Connection) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	left := make(chan error, 1)
	go func() { left <- p.c.LeaveClients(ctx, all) }()
	p.s.takeClients(ctx, p.w)
	must(t, <-left)
}

// ended waits until nobody has the other end of a connection.
func ended(t *testing.T, client net.Conn) {
	t.Helper()
	must(t, client.SetReadDeadline(time.Now().Add(time.Minute)))
	if _, err := client.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the connection is not closed: %v", err)
	}
}

// TestClientsGoFromOneWorkerToTheNext, all of them once, however many there are.
func TestClientsGoFromOneWorkerToTheNext(t *testing.T) {
	p := newPair(t)
	p.s.opt.MaxClients = 100
	const all = 2*clientsAtOnce + 3
	var clients []net.Conn
	var left []Connection
	for i := range all {
		client, socket := socketPair(t)
		clients = append(clients, client)
		left = append(left, Connection{socket, json.RawMessage(fmt.Sprintf(`{"n":%d}`, i))})
	}
	p.leave(t, left...)
	p.connect(t)
	taken, err := p.c.TakeClients(t.Context(), Start{Clients: p.s.clients.count()})
	must(t, err)
	if len(taken) != all || p.s.clients.count() != 0 {
		t.Fatalf("%d clients are taken, %d stay", len(taken), p.s.clients.count())
	}
	for i, c := range taken {
		if want := fmt.Sprintf(`{"n":%d}`, i); string(c.Session) != want {
			t.Errorf("client %d is %s", i, c.Session)
		}
		must(t, func() error { _, err := c.Socket.Write([]byte{byte(i)}); return err }())
		b := make([]byte, 1)
		if _, err := clients[i].Read(b); err != nil || b[0] != byte(i) {
			t.Fatalf("client %d reads %d, %v", i, b[0], err)
		}
		must(t, c.Socket.Close())
		ended(t, clients[i]) // the supervisor has none of it any more
	}
}

// TestASupervisorKeepsNothingButConnectionsForAWorker, and not more than it is to.
func TestASupervisorKeepsNothingButConnectionsForAWorker(t *testing.T) {
	p := newPair(t)
	p.s.opt.MaxClients = 3
	f, err := os.Open("/dev/null")
	must(t, err)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unix"})
	must(t, err)
	defer l.Close()
	lf, err := l.File()
	must(t, err)
	long, longSocket := socketPair(t)
	p.leave(t, Connection{f, json.RawMessage(`{}`)}, Connection{lf, json.RawMessage(`{}`)},
		Connection{longSocket, json.RawMessage(`"` + strings.Repeat("x", maxSession) + `"`)})
	if n := p.s.clients.count(); n != 0 {
		t.Errorf("%d are kept", n)
	}
	ended(t, long)
}

func TestASupervisorKeepsNoMoreClientsThanThereMayBe(t *testing.T) {
	p := newPair(t)
	p.s.opt.MaxClients = clientsAtOnce
	var clients []net.Conn
	var all []Connection
	for range clientsAtOnce + 1 {
		client, socket := socketPair(t)
		clients = append(clients, client)
		all = append(all, Connection{socket, json.RawMessage(`{}`)})
	}
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() { left <- p.c.LeaveClients(ctx, all) }()
	p.s.takeClients(ctx, p.w)
	cancel()
	<-left
	if n := p.s.clients.count(); n != clientsAtOnce {
		t.Errorf("%d are kept", n)
	}
	ended(t, clients[clientsAtOnce])
	p.s.clients.close()
	ended(t, clients[0])
}

// TestAWorkerEndsWithoutASupervisorThatTakesItsClients: they are closed.
func TestAWorkerEndsWithoutASupervisorThatTakesItsClients(t *testing.T) {
	p := newPair(t)
	client, socket := socketPair(t)
	p.w.peer.Close()
	if err := p.c.LeaveClients(t.Context(), []Connection{{socket, json.RawMessage(`{}`)}}); err == nil {
		t.Error("nobody has taken them")
	}
	ended(t, client)
}
