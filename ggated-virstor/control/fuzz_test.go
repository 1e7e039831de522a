package control_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/control/controltest"
)

// lastWords keeps what is logged.
type lastWords struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lastWords) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lastWords) has(s string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	found := bytes.Contains(l.b.Bytes(), []byte(s))
	l.b.Reset()
	return found
}

// played is a connection whose client has sent all it will ever send.
type played struct {
	in     *bytes.Reader
	out    bytes.Buffer
	once   sync.Once
	closed chan struct{}
}

func (c *played) Read(p []byte) (int, error)       { return c.in.Read(p) }
func (c *played) Write(p []byte) (int, error)      { return c.out.Write(p) }
func (c *played) Close() error                     { c.once.Do(func() { close(c.closed) }); return nil }
func (c *played) LocalAddr() net.Addr              { return &net.UnixAddr{Net: "unix", Name: "pipe"} }
func (c *played) RemoteAddr() net.Addr             { return &net.UnixAddr{Net: "unix"} }
func (c *played) SetDeadline(time.Time) error      { return nil }
func (c *played) SetReadDeadline(time.Time) error  { return nil }
func (c *played) SetWriteDeadline(time.Time) error { return nil }

// FuzzServer sends the server whatever a client may send, requests and what is none.
// None of its handlers may panic, and each answer that there is says what it is.
func FuzzServer(f *testing.F) {
	post := func(path, body string) []byte {
		return []byte("POST /v1/" + path + " HTTP/1.0\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body)
	}
	f.Add([]byte("GET /v1/status HTTP/1.0\r\n\r\n"))
	f.Add([]byte("GET /v1/volumes/%00%ff HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
	f.Add([]byte("GET /v1/clients HTTP/1.0\r\n\r\n"))
	f.Add([]byte("DELETE /v1/jobs/1 HTTP/1.0\r\n\r\n"))
	for _, path := range []string{"volumes/mydata/add", "volumes/mydata/remove", "volumes/mydata/spare", "serve", "release"} {
		f.Add(post(path, `{"providers":["ada4","/tmp/x"],"sector_size":4096}`))
	}
	f.Add(post("volumes/mydata/stop", `{"force":true}`))
	f.Add(post("volumes/mydata/reserve", `{"chunks":-1}`))
	f.Add(post("volumes/mydata/jobs", `{"kind":"evacuate","args":{"rate":1e400}}`))
	f.Add(post("disconnect", `{"id":18446744073709551615,"volume":"a"}`))
	f.Add([]byte("POST /v1/serve HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n"))

	fake := controltest.New(control.Status{Volumes: []control.VolumeStatus{volume("mydata")}})
	fake.Handle("evacuate", func(context.Context, string, json.RawMessage, func(done, total int64)) error { return nil })
	log, l := new(lastWords), control.NewPipes()
	s := control.NewServer(fake, slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	f.Cleanup(func() {
		l.Close()
		<-served
		fake.Close()
	})
	f.Fuzz(func(t *testing.T, b []byte) {
		c := &played{in: bytes.NewReader(b), closed: make(chan struct{})}
		l.Conns <- c
		<-c.closed
		if out := c.out.Bytes(); len(out) > 0 && !bytes.HasPrefix(out, []byte("HTTP/1.")) {
			t.Errorf("answered %.100q", out)
		}
		if log.has("panic") {
			t.Error("a handler panics")
		}
	})
}
