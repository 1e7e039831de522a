package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd"
	"github.com/gvirstor/gvirstor/ggated-virstor/options"
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
	o := &options.Options{NBDMaxClients: 8}
	for _, said := range []string{"unix:nbd.sock", "tcp:localhost", "tcp::0", "tcp:[::1]:0"} {
		a, err := nbd.ParseListen(said)
		if err != nil {
			t.Fatal(err)
		}
		o.NBD = append(o.NBD, a)
	}
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

// TestDescriptorsAreCountedBeforehand: one line says what the limit must be.
func TestDescriptorsAreCountedBeforehand(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	may := int(min(uint64(limit.Cur), 1<<20))
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	o := &options.Options{Providers: make([]string, may), NBDMaxClients: 256}
	err := checkDescriptors(o, logger)
	if want := fmt.Sprintf("must be at least %d, and %d with all NBD clients; it is %d", may+ownDescriptors, may+ownDescriptors+256, limit.Cur); err == nil || !strings.Contains(err.Error(), want) {
		if uint64(limit.Cur) == uint64(may) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	o = &options.Options{Providers: make([]string, max(0, may-ownDescriptors-255)), NBDMaxClients: 256}
	if err := checkDescriptors(o, logger); err != nil || uint64(limit.Cur) == uint64(may) && !strings.Contains(log.String(), "too few descriptors for all NBD clients") {
		t.Errorf("%v, log %q", err, log.String())
	}
	plain := descriptors(&options.Options{IOUring: true})
	if n := descriptors(&options.Options{IOUring: true, Direct: true}); n != plain+geomlib.MaxRings {
		t.Errorf("%d descriptors with rings, and %d without", n, plain)
	}
	log.Reset()
	if err := checkDescriptors(&options.Options{NBDMaxClients: 1}, logger); err != nil || log.Len() > 0 {
		t.Errorf("%v, log %q", err, log.String())
	}
}
