package web

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/gvirstor/gvirstor/ggated-virstor/nbd"
)

// serveNamed serves with names of its own and returns the address.
func serveNamed(t *testing.T, names ...string) string {
	t.Helper()
	l, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(Config{Collector: NewCollector(source{}, func() nbd.Stats { return nbd.Stats{} }, "1"), Health: health{}, Overseer: &overseer{},
		Names: names, Log: slog.New(slog.DiscardHandler)})
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		if err := s.Shutdown(t.Context()); err != nil {
			t.Log(err)
		}
		<-served
	})
	return l.Addr().String()
}

// TestOnlyNamesOfTheServerAreAnswered: a page whose name was made to resolve to
// this address cannot read anything.
func TestOnlyNamesOfTheServerAreAnswered(t *testing.T) {
	addr := serveNamed(t, "Storage.example")
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]int{
		addr: 200, "127.0.0.1": 200, "localhost:" + port: 200, "LOCALHOST": 200, "storage.example.:99": 200, "storage.example": 200,
		"evil.example": 421, "evil.example:" + port: 421, "localhost.evil.example": 421, "127.0.0.1.evil.example": 421,
		"192.0.2.1:" + port: 421, "[::1]:" + port: 421, "storage.example.evil": 421, "example": 421, ".": 200,
	} {
		req, err := http.NewRequest(http.MethodGet, "http://"+addr+"/healthz", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		if got := status(t, req); got != want {
			t.Errorf("Host %q: %d, want %d", host, got, want)
		}
	}
}

func status(t *testing.T, req *http.Request) int {
	t.Helper()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode == http.StatusMisdirectedRequest && !strings.Contains(string(b), "--http-host") {
		t.Errorf("no remedy in %q", b)
	}
	return resp.StatusCode
}

func TestAClientThatIsNoBrowserNeedsNoName(t *testing.T) {
	nc, err := net.Dial("tcp", serveNamed(t))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := io.WriteString(nc, "GET /healthz HTTP/1.0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(nc)
	if err != nil || !strings.HasPrefix(string(b), "HTTP/1.0 200 ") {
		t.Errorf("%q, %v", b, err)
	}
}

func TestHTTPIsOnlyRead(t *testing.T) {
	addr := serveNamed(t)
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"} {
		for _, path := range []string{"/metrics", "/healthz", "/readyz", "/", "/other"} {
			req, err := http.NewRequest(method, "http://"+addr+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := status(t, req); got != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %d", method, path, got)
			}
		}
	}
	req, err := http.NewRequest(http.MethodHead, "http://"+addr+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := status(t, req); got != http.StatusOK {
		t.Errorf("HEAD: %d", got)
	}
}

// TestWhatWasSaidIsListenedOn: all addresses of IPv4 are none of IPv6.
func TestWhatWasSaidIsListenedOn(t *testing.T) {
	for said, want := range map[string]string{"0.0.0.0:0": "0.0.0.0:", "127.0.0.1:0": "127.0.0.1:", "[::1]:0": "[::1]:", "[::]:0": "[::]:"} {
		l, err := Listen(said)
		if err != nil {
			if strings.HasPrefix(said, "[") {
				t.Logf("no IPv6 here: %v", err)
				continue
			}
			t.Fatal(err)
		}
		defer l.Close()
		if got := l.Addr().String(); !strings.HasPrefix(got, want) {
			t.Errorf("%s listens on %s", said, got)
		}
		if IsLoopback(l.Addr()) != strings.Contains(said, "1") {
			t.Errorf("%s: loopback %v", said, IsLoopback(l.Addr()))
		}
	}
}
