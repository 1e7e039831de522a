package nbd

import (
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParseListen(t *testing.T) {
	for in, want := range map[string]Address{
		"unix:/run/nbd.sock":  {"unix", "/run/nbd.sock"},
		"unix:a:b":            {"unix", "a:b"},
		"tcp:localhost:10809": {"tcp", "localhost:10809"},
		"tcp:localhost":       {"tcp", "localhost:10809"},
		"tcp::10809":          {"tcp", ":10809"},
		"tcp:[::1]:1":         {"tcp", "[::1]:1"},
		"tcp:[::1]":           {"tcp", "[::1]:10809"},
		"tcp:10.0.0.1":        {"tcp", "10.0.0.1:10809"},
	} {
		got, err := ParseListen(in)
		if err != nil || got != want {
			t.Errorf("%s: %v, %v, want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "unix", "unix:", "tcp:", "udp:x:1", "/run/nbd.sock", "tcp:::1", "tcp:a:b:c", "tcp:localhost:"} {
		if got, err := ParseListen(in); err == nil {
			t.Errorf("%q: %v", in, got)
		}
	}
}

func TestURI(t *testing.T) {
	for _, tt := range []struct {
		a    Address
		name string
		tls  bool
		want string
	}{
		{Address{"unix", "/run/nbd.sock"}, "mydata", true, "nbd+unix:///mydata?socket=/run/nbd.sock"},
		{Address{"unix", "/a b&c+d%?#=e"}, "ä/ b", false, "nbd+unix:///%C3%A4/%20b?socket=/a%20b%26c%2Bd%25%3F%23%3De"},
		{Address{"tcp", "[::1]:10809"}, "d", false, "nbd://[::1]:10809/d"},
		{Address{"tcp", "h:1"}, "d", true, "nbds://h:1/d"},
	} {
		got := URI(tt.a, tt.name, tt.tls)
		if got != tt.want {
			t.Errorf("%v %q: %s, want %s", tt.a, tt.name, got, tt.want)
		}
		u, err := url.Parse(got)
		if err != nil || strings.TrimPrefix(u.Path, "/") != tt.name || tt.a.Network == "unix" && u.Query().Get("socket") != tt.a.Addr {
			t.Errorf("%s is read back as %v, %v", got, u, err)
		}
	}
}

func TestUnixSocketIsPrivateAndReplacesADeadOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	a := Address{"unix", path}
	ln, err := Listen(t.Context(), a, ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(path)
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v, want 0600", fi.Mode(), err)
	}
	if _, err := Listen(t.Context(), a, ListenOptions{}); err == nil {
		t.Error("took the socket of a living server")
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false) // as if killed
	ln.Close()
	ln, err = Listen(t.Context(), a, ListenOptions{Mode: 0o660})
	if err != nil {
		t.Fatalf("a dead socket is in the way: %v", err)
	}
	fi, err = os.Stat(path)
	if err != nil || fi.Mode().Perm() != 0o660 {
		t.Errorf("mode %v, %v, want 0660", fi.Mode(), err)
	}
	ln.Close()
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the socket is left behind: %v", err)
	}

	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(t.Context(), a, ListenOptions{}); err == nil {
		t.Error("replaced a file that is no socket")
	}
	if b, err := fs.ReadFile(os.DirFS(filepath.Dir(path)), "s"); err != nil || string(b) != "precious" {
		t.Errorf("the file was touched: %q, %v", b, err)
	}
	_, err = Listen(t.Context(), Address{"unix", "/tmp/" + strings.Repeat("x", 200)}, ListenOptions{})
	if err == nil || !strings.Contains(err.Error(), "100 bytes") {
		t.Errorf("a path that is too long: %v", err)
	}
}

func TestOpenNetworkNeedsTLSOrConsent(t *testing.T) {
	for _, addr := range []string{":0", "0.0.0.0:0", "[::]:0"} {
		a := Address{"tcp", addr}
		if ln, err := Listen(t.Context(), a, ListenOptions{}); err == nil {
			ln.Close()
			t.Errorf("%s without TLS", addr)
		}
	}
	for _, tt := range []struct {
		addr string
		opt  ListenOptions
	}{
		{"127.0.0.1:0", ListenOptions{}},
		{"localhost:0", ListenOptions{}},
		{"0.0.0.0:0", ListenOptions{TLS: true}},
		{"0.0.0.0:0", ListenOptions{Insecure: true}},
	} {
		ln, err := Listen(t.Context(), Address{"tcp", tt.addr}, tt.opt)
		if err != nil {
			t.Errorf("%s %+v: %v", tt.addr, tt.opt, err)
			continue
		}
		ln.Close()
	}
}
