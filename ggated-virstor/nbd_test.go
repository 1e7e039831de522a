package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gvirstor/gvirstor/ggated-virstor/nbd"
)

// listening is a listener with an address and nothing else.
type listening struct {
	net.Listener
	addr net.Addr
}

func (l listening) Addr() net.Addr { return l.addr }

// TestClientsElsewhereFindTheServer: sockets by their whole path, addresses as they
// were said, with the port that there is.
func TestClientsElsewhereFindTheServer(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	o := options{nbd: []string{"unix:nbd.sock", "tcp:localhost", "tcp::0", "tcp:[::1]:0"}, nbdMaxClients: 8}
	tcp := func(ip string, port int) net.Listener {
		return listening{addr: &net.TCPAddr{IP: net.ParseIP(ip), Port: port}}
	}
	listeners := []net.Listener{listening{addr: &net.UnixAddr{Net: "unix", Name: "nbd.sock"}}, tcp("127.0.0.1", 10809), tcp("::", 4711), tcp("::1", 4712),
		tcp("192.0.2.1", 4713)}
	_, uris, err := newNBD(o, nil, listeners, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		nbd.URI(nbd.Address{Network: "unix", Addr: filepath.Join(dir, "nbd.sock")}, "vol", false),
		"nbd://localhost:10809/vol", "nbd://:4711/vol", "nbd://[::1]:4712/vol", "nbd://192.0.2.1:4713/vol",
	}
	if got := uris("vol"); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestCheckConfigLooksAtTheWorld: what would end the start, or lets others in, is
// told before.
func TestCheckConfigLooksAtTheWorld(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, mode os.FileMode) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, nil, mode), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	none := filepath.Join(dir, "none")
	for want, args := range map[string][]string{
		"--nbd tcp:0.0.0.0:10809: other machines can reach this address": {"--nbd", "tcp:0.0.0.0"},
		"--nbd tcp:[::]:1: other machines can reach this address":        {"--nbd", "tcp:[::]:1"},
		"load TLS certificate " + none:                                   {"--tls-cert", none, "--tls-key", none},
		"refused: others can write to it; mend it with `chmod go-w":      {"--config", file("open", 0o666)},
		"refused: others can read it; mend it with `chmod o-r":           {"--tls-cert", none, "--tls-key", file("key", 0o644)},
		"--http a:b:c: HOST:PORT is needed":                              {"--http", "a:b:c"},
	} {
		var said bytes.Buffer
		if _, err := parseOptions(newHereWorld(), append([]string{"--check-config"}, args...), &said, &said); !errors.Is(err, errUsage) || !strings.Contains(said.String(), want) {
			t.Errorf("%q: %v, said %q, want %q", args, err, said.String(), want)
		}
	}
	var said bytes.Buffer
	args := []string{"--check-config", "--config", file("good", 0o644), "--nbd", "tcp:127.0.0.1:0", "--http", "0.0.0.0:9751"}
	_, err := parseOptions(newHereWorld(), args, &said, &said)
	if !errors.Is(err, errHelp) || !strings.Contains(said.String(), "the configuration is right") || !strings.Contains(said.String(), "warning: --http 0.0.0.0:9751: other machines") {
		t.Errorf("%v: %s", err, said.String())
	}
}

func TestAReloadKeepsCertificatesThatCannotBeReplaced(t *testing.T) {
	conf := write(t, "")
	args := []string{"--config", conf}
	var got recorded
	var log bytes.Buffer
	r := &reloader{args: args, look: lookHere, now: parse(t, args...), daemon: &got, space: spaceOf, clients: &got,
		readTLS: func() (*tls.Config, error) { return nil, errors.New("key.pem: no such file") }, log: slog.New(slog.NewTextHandler(&log, nil))}
	r.reload()
	if got.certs != nil || !strings.Contains(log.String(), "those before stay in force") || !strings.Contains(log.String(), "key.pem") {
		t.Errorf("certificates %v, log %s", got.certs, log.String())
	}
	if !strings.Contains(log.String(), "configuration read again") {
		t.Error("the rest of the configuration is not applied")
	}
}

// TestDescriptorsAreCountedBeforehand: one line says what the limit must be.
func TestDescriptorsAreCountedBeforehand(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	may := int(min(uint64(limit.Cur), 1<<20))
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	o := options{providers: make([]string, may), nbdMaxClients: 256}
	err := o.checkDescriptors(logger)
	if want := fmt.Sprintf("must be at least %d, and %d with all NBD clients; it is %d", may+ownDescriptors, may+ownDescriptors+256, limit.Cur); err == nil || !strings.Contains(err.Error(), want) {
		if uint64(limit.Cur) == uint64(may) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	o = options{providers: make([]string, max(0, may-ownDescriptors-255)), nbdMaxClients: 256}
	if err := o.checkDescriptors(logger); err != nil || uint64(limit.Cur) == uint64(may) && !strings.Contains(log.String(), "too few descriptors for all NBD clients") {
		t.Errorf("%v, log %q", err, log.String())
	}
	log.Reset()
	if err := (&options{nbdMaxClients: 1}).checkDescriptors(logger); err != nil || log.Len() > 0 {
		t.Errorf("%v, log %q", err, log.String())
	}
}
