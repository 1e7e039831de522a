package control

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// stubBackend answers Stop when the test says so.
type stubBackend struct {
	Backend
	Hub
	stop chan struct{}
}

func (b *stubBackend) Volume(context.Context, string) (VolumeStatus, error) {
	return VolumeStatus{}, Errorf(NotFound, "no volume")
}

func (b *stubBackend) Stop(ctx context.Context, _ string, _ StopRequest) (StopResult, error) {
	select {
	case <-b.stop:
		return StopResult{HandedBack: true}, nil
	case <-ctx.Done():
		return StopResult{}, ctx.Err()
	}
}

func (b *stubBackend) Subscribe(ctx context.Context) (<-chan Event, error) {
	return b.Hub.Subscribe(ctx)
}

func startServer(t *testing.T, b Backend, l limits) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "s")
	listener, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(b, nil, l)
	served := make(chan error, 1)
	go func() { served <- s.Serve(listener) }()
	t.Cleanup(func() {
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return path
}

// Pipes is a listener whose connections are handed to it.
type Pipes struct {
	Conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func NewPipes() *Pipes { return &Pipes{Conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *Pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.Conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p *Pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *Pipes) Addr() net.Addr { return &net.UnixAddr{Net: "unix", Name: "pipe"} }

// inBubble runs test on a server whose times pass only while nobody has anything to
// do, however little the machine lets us do.
func inBubble(t *testing.T, b func() Backend, l limits, test func(t *testing.T, b Backend, connect func() net.Conn)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		pipes, backend := NewPipes(), b()
		s := newServer(backend, nil, l)
		served := make(chan error, 1)
		go func() { served <- s.Serve(pipes) }()
		test(t, backend, func() net.Conn {
			server, client := net.Pipe()
			pipes.Conns <- server
			return client
		})
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

// clientOf speaks to the server that connect connects to.
func clientOf(connect func() net.Conn) *Client {
	dial := func(context.Context, string, string) (net.Conn, error) { return connect(), nil }
	w := &wire{"pipe", http.Client{Transport: &http.Transport{DialContext: dial}}}
	return &Client{w.do, w}
}

func TestSlowVerbOutlivesTheReadTimeout(t *testing.T) {
	stub := func() Backend { return &stubBackend{stop: make(chan struct{})} }
	l := limits{read: 50 * time.Millisecond, write: time.Second, idle: time.Second, heartbeat: time.Second}
	inBubble(t, stub, l, func(t *testing.T, b Backend, connect func() net.Conn) {
		c := clientOf(connect)
		defer c.Close()
		timer := time.AfterFunc(time.Minute, func() { close(b.(*stubBackend).stop) })
		defer timer.Stop()
		if r, err := c.Stop(t.Context(), "a", StopRequest{}); err != nil || !r.HandedBack {
			t.Errorf("%+v, %v", r, err)
		}
	})
}

func TestHalfARequestIsCutOff(t *testing.T) {
	l := limits{read: 50 * time.Millisecond, write: time.Second, idle: time.Second, heartbeat: time.Second}
	inBubble(t, func() Backend { return &stubBackend{} }, l, func(t *testing.T, _ Backend, connect func() net.Conn) {
		c := connect()
		defer c.Close()
		begun := time.Now()
		if _, err := c.Write([]byte("POST /v1/serve HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")); err != nil {
			t.Fatal(err)
		}
		var answer bytes.Buffer
		if _, err := answer.ReadFrom(c); err != nil {
			t.Fatalf("the server keeps the connection: %v", err)
		}
		if !strings.Contains(answer.String(), " 400 ") {
			t.Errorf("answer %q", answer.String())
		}
		if d := time.Since(begun); d > time.Second {
			t.Errorf("cut off after %s", d)
		}
	})
}

func TestIdleEventStreamShowsSignsOfLife(t *testing.T) {
	l := limits{read: time.Second, write: time.Second, idle: time.Second, heartbeat: time.Minute}
	inBubble(t, func() Backend { return &stubBackend{} }, l, func(t *testing.T, _ Backend, connect func() net.Conn) {
		c := clientOf(connect)
		defer c.Close()
		s, err := c.Events(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		begun := time.Now()
		for range 3 {
			if !s.scan.Scan() || len(s.scan.Bytes()) != 0 {
				t.Fatalf("%q, %v", s.scan.Text(), s.scan.Err())
			}
		}
		if d := time.Since(begun); d > 4*l.heartbeat {
			t.Errorf("three signs of life in %s", d)
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"providers":["ada4","/tmp/x"],"hardcode":true,"sector_size":4096}`))
	f.Add([]byte(`{"kind":"evacuate","args":{"rate":"1m"}}`))
	f.Add([]byte(`{"force":true}`))
	f.Add([]byte(`{}{}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, q := range []any{new(AddRequest), new(RemoveRequest), new(StopRequest), new(ServeRequest), new(JobRequest)} {
			err := decode(bytes.NewReader(b), q)
			if err != nil && KindOf(err) != Invalid {
				t.Errorf("%T: %v is no Invalid", q, err)
			}
			if a, ok := q.(*AddRequest); ok && err == nil && (len(a.Providers) == 0 || a.SectorSize < 0) {
				t.Errorf("accepted %+v", a)
			}
		}
	})
}
