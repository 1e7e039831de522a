package blackbox

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdclient"
)

// pki is a folder of certificates as libnbd's --tls-certificates wants it, made by
// GnuTLS.
type pki struct {
	t   testing.TB
	dir string
}

func newPKI(t testing.TB, dir string) *pki {
	t.Helper()
	need(t, "certtool")
	p := &pki{t: t, dir: dir}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	p.key("ca")
	p.template("ca", "cn = authority\nca\ncert_signing_key\nexpiration_days = 2\n")
	p.certtool("--generate-self-signed", "--load-privkey", p.path("ca.key"), "--template", p.path("ca.tmpl"), "--outfile", p.path("ca.pem"))
	return p
}

func (p *pki) path(name string) string { return filepath.Join(p.dir, name) }

func (p *pki) certtool(args ...string) {
	p.t.Helper()
	command(p.t, "certtool", args...)
}

func (p *pki) key(name string) {
	p.t.Helper()
	p.certtool("--generate-privkey", "--key-type=ecdsa", "--outfile", p.path(name+".key"))
}

func (p *pki) template(name, text string) {
	p.t.Helper()
	if err := os.WriteFile(p.path(name+".tmpl"), []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// issue makes NAME.pem and NAME.key, for a server or a client.
func (p *pki) issue(name, cn string) {
	p.t.Helper()
	p.key(name)
	p.template(name, fmt.Sprintf("cn = %q\ndns_name = localhost\nip_address = 127.0.0.1\ntls_www_server\ntls_www_client\nsigning_key\nexpiration_days = 2\n", cn))
	p.certtool("--generate-certificate", "--load-privkey", p.path(name+".key"), "--load-ca-certificate", p.path("ca.pem"),
		"--load-ca-privkey", p.path("ca.key"), "--template", p.path(name+".tmpl"), "--outfile", p.path(name+".pem"))
}

// client is the folder of a client with a certificate of that name.
func (p *pki) client(cn string) string {
	p.t.Helper()
	p.issue("client-"+cn, cn)
	dir := p.path("folder-" + cn)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		p.t.Fatal(err)
	}
	for from, to := range map[string]string{"ca.pem": "ca-cert.pem", "client-" + cn + ".pem": "client-cert.pem", "client-" + cn + ".key": "client-key.pem"} {
		b, err := os.ReadFile(p.path(from))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, to), b, 0o600)
		}
		if err != nil {
			p.t.Fatal(err)
		}
	}
	return dir
}

// tlsURI is the volume for a client with certificates of a folder.
func (s *site) tlsURI(folder string) string {
	s.t.Helper()
	return s.tcpURI() + "?tls-certificates=" + url.QueryEscape(folder)
}

// tcpURI is the address of the network that the daemon tells of.
func (s *site) tcpURI() string {
	s.t.Helper()
	for _, p := range s.status().Published {
		if strings.HasPrefix(p.URI, "nbd://") || strings.HasPrefix(p.URI, "nbds://") {
			return p.URI
		}
	}
	s.t.Fatalf("no address of the network among %+v", s.status().Published)
	return ""
}

// info is what nbdinfo says of the volume for a client.
func info(t testing.TB, uri string) (readOnly bool, err error) {
	t.Helper()
	out, err := try(t, "nbdinfo", "--json", uri)
	if err != nil {
		return false, fmt.Errorf("%w: %s", err, out)
	}
	var answer struct {
		Exports []struct {
			ReadOnly bool `json:"is_read_only"`
		} `json:"exports"`
	}
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		return false, err
	}
	return answer.Exports[0].ReadOnly, nil
}

// TestCertificatesDecideWhoReadsAndWrites: through the front door of a daemon with
// a supervisor and without, with GnuTLS on the other side.
func TestCertificatesDecideWhoReadsAndWrites(t *testing.T) {
	need(t, "nbdinfo", "nbdcopy")
	for what, flags := range map[string][]string{"one process": nil, "supervised": {"--supervise"}} {
		t.Run(what, func(t *testing.T) {
			s := newSite(t, 64*mib)
			ca := newPKI(t, filepath.Join(s.dir, "pki"))
			ca.issue("server", "server")
			if os.Geteuid() == 0 { // the worker's user
				if err := os.Chmod(programs, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			s.label("-s", "64m", "-m", "1m")
			s.start(append(flags, "--nbd", "tcp:127.0.0.1:0", "--tls-cert", ca.path("server.pem"), "--tls-key", ca.path("server.key"),
				"--tls-client-ca", ca.path("ca.pem"), "--nbd-allow", "vol=rw:tls:alice", "--nbd-allow", "*=ro:tls:bob", "--nbd-allow", "vol=rw:unix")...)
			if uri := s.tcpURI(); strings.Contains(uri, ":0/") {
				t.Fatalf("the port that the system chose is told nowhere: %s", uri)
			}
			src := filepath.Join(s.dir, "src")
			image(t, src, 64*mib, mib, 20*mib)
			alice, bob := s.tlsURI(ca.client("alice")), s.tlsURI(ca.client("bob"))
			if ro, err := info(t, alice); err != nil || ro {
				t.Errorf("alice: read-only %v, %v", ro, err)
			}
			if ro, err := info(t, bob); err != nil || !ro {
				t.Errorf("bob: read-only %v, %v", ro, err)
			}
			if _, err := info(t, s.tlsURI(ca.client("carol"))); err == nil {
				t.Error("carol is let in")
			}
			if _, err := info(t, strings.Replace(s.tcpURI(), "nbds:", "nbd:", 1)); err == nil {
				t.Error("somebody without TLS is let in")
			}
			command(t, "nbdcopy", src, alice)
			if out, err := try(t, "nbdcopy", src, bob); err == nil {
				t.Errorf("bob writes: %s", out)
			}
			dst := filepath.Join(s.dir, "dst")
			command(t, "nbdcopy", bob, dst)
			same(t, src, dst)
			s.term()
		})
	}
}

// TestCertificatesAreReadAgainAtSIGHUP: by the supervisor, since its worker may not
// read the key; what cannot be used leaves those before in force.
func TestCertificatesAreReadAgainAtSIGHUP(t *testing.T) {
	need(t, "nbdinfo")
	for what, flags := range map[string][]string{"one process": nil, "supervised": {"--supervise"}} {
		t.Run(what, func(t *testing.T) {
			s := newSite(t, 64*mib)
			if os.Geteuid() == 0 {
				if err := os.Chmod(programs, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			before, after := newPKI(t, filepath.Join(s.dir, "before")), newPKI(t, filepath.Join(s.dir, "after"))
			before.issue("server", "first")
			after.issue("server", "second")
			cert, key := filepath.Join(s.dir, "cert"), filepath.Join(s.dir, "key")
			install := func(from *pki) {
				t.Helper()
				for src, dst := range map[string]string{"server.pem": cert, "server.key": key} {
					b, err := os.ReadFile(from.path(src))
					if err == nil {
						err = os.WriteFile(dst, b, 0o600)
					}
					if err != nil {
						t.Fatal(err)
					}
				}
			}
			install(before)
			s.label("-s", "64m", "-m", "1m")
			s.start(append(flags, "--nbd", "tcp:127.0.0.1:0", "--tls-cert", cert, "--tls-key", key)...)
			old, fresh := s.tlsURI(before.client("x")), s.tlsURI(after.client("x"))
			if _, err := info(t, old); err != nil {
				t.Fatal(err)
			}
			c := s.dial()
			hangup := func() {
				t.Helper()
				if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(key, []byte("nonsense"), 0o600); err != nil {
				t.Fatal(err)
			}
			hangup()
			s.said("TLS certificates not read again: those before stay in force")
			if _, err := info(t, old); err != nil {
				t.Errorf("the certificate before is not in force any more: %v", err)
			}
			install(after)
			hangup()
			s.said("TLS certificates read again")
			if _, err := info(t, fresh); err != nil {
				t.Errorf("the new certificate is not shown: %v", err)
			}
			if _, err := info(t, old); err == nil {
				t.Error("the certificate before is still shown")
			}
			if _, err := c.WriteAt([]byte{1}, 0); err != nil {
				t.Errorf("a connection in being: %v", err)
			}
			c.Close()
			s.term()
		})
	}
}

// clients are those of the daemon.
func (s *site) clients() []control.ClientStatus {
	s.t.Helper()
	var all control.Clients
	if err := json.Unmarshal([]byte(s.gvirstor("clients", "--json", "vol")), &all); err != nil {
		s.t.Fatal(err)
	}
	return all.Clients
}

func TestWhoIsConnectedIsShownAndCanBeDisconnected(t *testing.T) {
	s := newSite(t, 64*mib)
	s.label("-s", "64m", "-m", "1m")
	s.start("--nbd", "tcp:127.0.0.1:0")
	c, other := s.dial(), s.dial()
	if _, err := c.WriteAt(make([]byte, 12345), 0); err != nil {
		t.Fatal(err)
	}
	all := s.clients()
	if len(all) != 2 || all[0].PID != os.Getpid() || all[0].UID == nil || int(*all[0].UID) != os.Getuid() || all[0].BytesWritten != 12345 || all[0].Volume != "vol" {
		t.Fatalf("%+v", all)
	}
	if out := s.gvirstor("clients", "vol"); !strings.Contains(out, fmt.Sprintf("pid %d, user ", os.Getpid())) || strings.Count(out, "\n") != 3 {
		t.Errorf("shown:\n%s", out)
	}
	s.gvirstor("clients", "--disconnect", fmt.Sprint(all[0].ID), "vol")
	<-c.Done()
	if _, err := other.ReadAt(make([]byte, 100), 0); err != nil {
		t.Errorf("the other: %v", err)
	}
	if left := s.clients(); len(left) != 1 || left[0].ID != all[1].ID {
		t.Errorf("left: %+v", left)
	}
	if out, err := s.tryGvirstor("clients", "--disconnect", fmt.Sprint(all[0].ID), "vol"); err == nil {
		t.Errorf("twice: %s", out)
	}
	other.Close()
	s.term()
}

// TestTheModeCountsAsWritersThoseWhoMayWrite: each client once, whatever the number
// of addresses.
func TestTheModeCountsAsWritersThoseWhoMayWrite(t *testing.T) {
	s := newSite(t, 64*mib)
	s.label("-s", "64m", "-m", "1m")
	s.start("--nbd", "tcp:127.0.0.1:0", "--nbd-allow", "*=rw:unix", "--nbd-allow", "*=ro:any")
	mode := func(want string) {
		t.Helper()
		if out := s.gvirstor("list", "vol"); !strings.Contains(out, "Mode: "+want+"\n") {
			t.Errorf("not %s:\n%s", want, out)
		}
	}
	mode("r0w0e0")
	writer := s.dial()
	mode("r1w1e0")
	reader, err := nbdclient.Dial(t.Context(), s.tcpURI(), nbdclient.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Abort()
	mode("r2w1e0")
	for _, p := range s.status().Published {
		if p.Connections != 2 || p.Mode != (control.Mode{Read: 2, Write: 1}) {
			t.Errorf("%+v", p)
		}
	}
	writer.Close()
	s.until("the writer has left", func() bool { return s.status().Published[0].Connections == 1 })
	mode("r1w0e0")
	reader.Close()
	s.term()
}

// TestIdleClientsDoNotShutOutOthers: one peer takes its part of the places and no
// more, and is told of.
func TestIdleClientsDoNotShutOutOthers(t *testing.T) { atBothFronts(t, idleClients) }

func idleClients(t *testing.T, begin func(*site, ...string)) {
	s := newSite(t, 64*mib)
	s.label("-s", "64m", "-m", "1m")
	begin(s, "--nbd", "tcp:127.0.0.1:0", "--nbd-max-clients", "8")
	u, err := url.Parse(s.tcpURI())
	if err != nil {
		t.Fatal(err)
	}
	hold := func() net.Conn {
		t.Helper()
		nc, err := net.Dial("tcp", u.Host)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { nc.Close() })
		// Greeting, client flags, EXPORT_NAME vol; and no more.
		if _, err := io.WriteString(nc, "\x00\x00\x00\x03IHAVEOPT\x00\x00\x00\x01\x00\x00\x00\x03vol"); err != nil {
			t.Fatal(err)
		}
		io.ReadFull(nc, make([]byte, 18+10)) // fails for those that are refused
		return nc
	}
	for range 12 {
		hold()
	}
	c := s.dial() // by the Unix socket: another peer
	if _, err := c.ReadAt(make([]byte, 512), 0); err != nil {
		t.Fatalf("shut out: %v", err)
	}
	if n := len(s.clients()); n != 7 { // six of eight, and c
		t.Errorf("%d clients", n)
	}
	s.said("limit of one peer")
	if n := strings.Count(s.log.String(), "too many NBD connections"); n != 1 {
		t.Errorf("%d lines of the log for six refusals", n)
	}
	c.Close()
	s.term()
}

// TestRudeClientsDoNotFillTheLog: a line, and a minute later how many more.
func TestRudeClientsDoNotFillTheLog(t *testing.T) { atBothFronts(t, rudeClients) }

func rudeClients(t *testing.T, begin func(*site, ...string)) {
	s := newSite(t, 64*mib)
	s.label("-s", "64m", "-m", "1m")
	begin(s)
	for range 100 {
		nc, err := net.Dial("unix", s.socket)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(nc, "GET / HTTP/1.1\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, nc)
		nc.Close()
	}
	s.term()
	if n := strings.Count(s.log.String(), "NBD client disconnected"); n != 1 {
		t.Errorf("%d lines of the log:\n%s", n, s.log)
	}
}

func TestTooManyComponentsForTheDescriptorsIsOneLine(t *testing.T) {
	asUsers(t, func(t *testing.T, uid int) {
		s := newSite(t, 64*mib)
		s.own(uid)
		s.files = nil
		for i := range 400 {
			s.files = append(s.files, filepath.Join(s.dir, fmt.Sprintf("c%d", i)))
		}
		c, log := s.daemonAs(uid)
		c.Args = append([]string{"/bin/sh", "-c", `ulimit -n 64; exec "$0" "$@"`}, c.Args...)
		c.Path = "/bin/sh"
		mustRefuse(t, c, log, "`ulimit -n` must be at least 441, and 697 with all NBD clients; it is 64")
		if out := log.String(); strings.Count(out, "\n") != 1 {
			t.Errorf("%d bytes: %.400s", len(out), out)
		}
	})
}

// TestTheHTTPDoorIsNarrow: the address that was said, names of the server alone,
// reading alone, and a warning where others can reach it.
func TestTheHTTPDoorIsNarrow(t *testing.T) { atBothFronts(t, narrowHTTP) }

func narrowHTTP(t *testing.T, begin func(*site, ...string)) {
	s := newSite(t, 64*mib)
	s.label("-s", "64m", "-m", "1m")
	begin(s, "--http", "0.0.0.0:0", "--http-host", "storage.example")
	s.said("status page, metrics and health can be read from other machines")
	_, rest, _ := strings.Cut(s.log.String(), `msg="status page, metrics and health" `)
	_, rest, ok := strings.Cut(rest, "http=") // a worker says its number before
	if !ok {
		t.Fatal(s.log)
	}
	addr, _, _ := strings.Cut(rest, "\n")
	_, port, err := net.SplitHostPort(strings.TrimSpace(addr))
	if err != nil {
		t.Fatal(err)
	}
	if nc, err := net.Dial("tcp6", "[::1]:"+port); err == nil {
		nc.Close()
		t.Error("[::] is listened on for 0.0.0.0")
	}
	ask := func(method, host string) int {
		t.Helper()
		req, err := http.NewRequest(method, "http://127.0.0.1:"+port+"/healthz", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	for host, want := range map[string]int{"127.0.0.1:" + port: 200, "localhost": 200, "storage.example": 200, "evil.example": 421} {
		if got := ask(http.MethodGet, host); got != want {
			t.Errorf("asked as %s: %d, want %d", host, got, want)
		}
	}
	if got := ask(http.MethodPost, "localhost"); got != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", got)
	}
	s.term()
}
