package control

import (
	"bytes"
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// stubBackend answers Stop when the test says so.
type stubBackend struct {
	Backend
	Hub
	stop chan struct{}
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

func TestSlowVerbOutlivesTheReadTimeout(t *testing.T) {
	b := &stubBackend{stop: make(chan struct{})}
	path := startServer(t, b, limits{read: 50 * time.Millisecond, write: time.Second, idle: time.Second, heartbeat: time.Second})
	c, err := Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	timer := time.AfterFunc(300*time.Millisecond, func() { close(b.stop) })
	defer timer.Stop()
	if r, err := c.Stop(t.Context(), "a", StopRequest{}); err != nil || !r.HandedBack {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestHalfARequestIsCutOff(t *testing.T) {
	path := startServer(t, &stubBackend{}, limits{read: 50 * time.Millisecond, write: time.Second, idle: time.Second, heartbeat: time.Second})
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("POST /v1/serve HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	var answer bytes.Buffer
	if _, err := answer.ReadFrom(c); err != nil {
		t.Fatalf("the server keeps the connection: %v", err)
	}
	if !strings.Contains(answer.String(), " 400 ") {
		t.Errorf("answer %q", answer.String())
	}
}

func TestIdleEventStreamShowsSignsOfLife(t *testing.T) {
	b := &stubBackend{}
	path := startServer(t, b, limits{read: time.Second, write: time.Second, idle: time.Second, heartbeat: 5 * time.Millisecond})
	c, err := Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := c.Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for range 3 {
		if !s.scan.Scan() || len(s.scan.Bytes()) != 0 {
			t.Fatalf("%q, %v", s.scan.Text(), s.scan.Err())
		}
	}
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
