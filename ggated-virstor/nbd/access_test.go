package nbd

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net/url"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/internal/proto"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdclient"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdtest"
)

func TestParseGrant(t *testing.T) {
	for in, want := range map[string]Grant{
		"*=ro:any":                   {export: "*", readOnly: true},
		"vol=rw:unix":                {export: "vol", who: whoUnix},
		"vol=rw:uid:0":               {export: "vol", who: whoUID},
		"vol=ro:uid:4294967295":      {export: "vol", readOnly: true, who: whoUID, uid: 1<<32 - 1},
		"a:b@c=rw:tls:host=rw:x":     {export: "a:b@c", who: whoTLS, name: "host=rw:x"},
		"v=x=ro:tls:*":               {export: "v=x", readOnly: true, who: whoTLS, name: "*"},
		"vol=rw:tls:CN, with spaces": {export: "vol", who: whoTLS, name: "CN, with spaces"},
	} {
		got, err := ParseGrant(in)
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v, want %+v", in, got, err, want)
		}
		if got.String() != in {
			t.Errorf("%q is printed as %q", in, got)
		}
	}
	for _, in := range []string{
		"", "vol", "vol=rw", "vol=rw:", "=rw:any", "vol=w:any", "vol=RW:any", "vol:rw:any", "vol=rw:all", "vol=rw:any:1", "vol=rw:unix:1",
		"vol=rw:uid", "vol=rw:uid:", "vol=rw:uid:-1", "vol=rw:uid:4294967296", "vol=rw:uid:root", "vol=rw:tls", "vol=rw:tls:", "a\x00=rw:any",
		"\xff=rw:any", strings.Repeat("x", 257) + "=rw:any",
	} {
		if g, err := ParseGrant(in); err == nil {
			t.Errorf("%q: taken for %v", in, g)
		} else if !strings.Contains(err.Error(), "=rw:WHO is needed") {
			t.Errorf("%q: %v", in, err)
		}
	}
}

func FuzzParseGrant(f *testing.F) {
	for _, s := range []string{"*=ro:any", "vol=rw:uid:7", "vol=rw:tls:x=ro:y", "=", "a=ro:b=rw:unix"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		g, err := ParseGrant(s)
		if err != nil {
			return
		}
		if again, err := ParseGrant(g.String()); err != nil || again != g {
			t.Errorf("%q is %+v, printed %q, which is %+v, %v", s, g, g, again, err)
		}
	})
}

// TestTheWidestGrantHoldsWhateverTheirOrder: grants are a set, and none takes
// away what another gives.
func TestTheWidestGrantHoldsWhateverTheirOrder(t *testing.T) {
	cert := &x509.Certificate{Subject: pkix.Name{CommonName: "alice"}, DNSNames: []string{"a.example"}}
	rapid.Check(t, func(t *rapid.T) {
		who := rapid.SampledFrom([]string{"any", "unix", "uid:0", "uid:5", "tls:alice", "tls:a.example", "tls:bob", "tls:*"})
		var grants []Grant
		for range rapid.IntRange(1, 6).Draw(t, "grants") {
			g, err := ParseGrant(rapid.SampledFrom([]string{"*", "one", "two"}).Draw(t, "export") + "=" +
				rapid.SampledFrom([]string{"ro", "rw"}).Draw(t, "mode") + ":" + who.Draw(t, "who"))
			if err != nil {
				t.Fatal(err)
			}
			grants = append(grants, g)
		}
		id := &identity{}
		if rapid.Bool().Draw(t, "unix") {
			id.unix, id.known, id.uid = true, true, 5
		}
		if rapid.Bool().Draw(t, "certificate") {
			id.cert = cert
		}
		got := accessOf(grants, id, "one")
		for _, g := range grants {
			if alone := accessOf([]Grant{g}, id, "one"); alone > got {
				t.Fatalf("%v gives %d, all of %v only %d", g, alone, grants, got)
			}
		}
		slices.Reverse(grants)
		if again := accessOf(grants, id, "one"); again != got {
			t.Fatalf("%v: %d in one order, %d in the other", grants, got, again)
		}
		more, err := ParseGrant("two=rw:any")
		if err != nil {
			t.Fatal(err)
		}
		if again := accessOf(append(grants, more), id, "one"); again != got {
			t.Fatalf("a grant for another export changed %d to %d", got, again)
		}
	})
}

func TestACertificateBearsItsNames(t *testing.T) {
	u, err := url.Parse("spiffe://x/y")
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{Subject: pkix.Name{CommonName: "cn"}, DNSNames: []string{"dns"}, EmailAddresses: []string{"m@x"}, URIs: []*url.URL{u}}
	for _, name := range []string{"cn", "dns", "m@x", "spiffe://x/y"} {
		if !bears(c, name) {
			t.Errorf("not %s", name)
		}
	}
	for _, name := range []string{"", "CN", "cn ", "*", "x"} {
		if bears(c, name) {
			t.Errorf("%q", name)
		}
	}
	if bears(&x509.Certificate{}, "") {
		t.Error("a nameless certificate bears the empty name")
	}
}

// mustGrants reads grants.
func mustGrants(t *testing.T, all ...string) (gs []Grant) {
	t.Helper()
	for _, s := range all {
		g, err := ParseGrant(s)
		if err != nil {
			t.Fatal(err)
		}
		gs = append(gs, g)
	}
	return gs
}

// TestGrantsDecideByCertificate: who may write, who may read, and for whom there
// is no such export.
func TestGrantsDecideByCertificate(t *testing.T) {
	ca := newAuthority(t)
	cfg, err := ca.load()
	if err != nil {
		t.Fatal(err)
	}
	r := startServer(t, Config{TLS: cfg, RequireTLS: true,
		Grants: mustGrants(t, "one=rw:tls:alice", "one=ro:tls:bob", "two=ro:tls:*", "two=rw:tls:alice")},
		map[string]Disk{"one": newDisk(t, nbdtest.Config{Size: 1 << 20}), "two": newDisk(t, nbdtest.Config{Size: 1 << 20})})
	addr := r.serveTCP()
	dial := func(who, export string) (*nbdclient.Conn, error) {
		cert, key := ca.leaf(who)
		return nbdclient.Dial(t.Context(), URI(addr, export, true), nbdclient.Options{TLS: ca.trust(cert, key)})
	}
	for _, tt := range []struct {
		who, export string
		want        access
	}{
		{"alice", "one", mayWrite}, {"bob", "one", mayRead}, {"carol", "one", noAccess},
		{"alice", "two", mayWrite}, {"carol", "two", mayRead}, {"carol", "", mayRead}, {"alice", "three", noAccess},
	} {
		c, err := dial(tt.who, tt.export)
		if tt.want == noAccess {
			var refused *nbdclient.OptionError
			if !errors.As(err, &refused) || refused.Reply != proto.RepErrUnknown {
				t.Errorf("%s on %q: %v, want as if it did not exist", tt.who, tt.export, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s on %q: %v", tt.who, tt.export, err)
			continue
		}
		if _, err := c.ReadAt(make([]byte, 512), 0); err != nil {
			t.Errorf("%s reads %q: %v", tt.who, tt.export, err)
		}
		if got := c.Info().ReadOnly(); got != (tt.want == mayRead) {
			t.Errorf("%s on %q: read-only %v is announced", tt.who, tt.export, got)
		}
		_, err = c.WriteAt(make([]byte, 512), 0)
		if (err == nil) != (tt.want == mayWrite) {
			t.Errorf("%s writes %q: %v", tt.who, tt.export, err)
		}
		c.Close()
	}
}

// load is a server's certificate, and the authority for its clients.
func (a *authority) load() (*tls.Config, error) {
	cert, key := a.leaf("server")
	return LoadTLS(cert, key, a.file)
}

func TestAClientSeesOnlyWhatItMayUse(t *testing.T) {
	r := startServer(t, Config{Grants: mustGrants(t, "one=ro:unix", "two=rw:uid:4294967295")},
		map[string]Disk{"one": newDisk(t, nbdtest.Config{Size: 1 << 20}), "two": newDisk(t, nbdtest.Config{Size: 1 << 20})})
	p := r.connect()
	if names, err := nbdclient.List(p.Conn); err != nil || !slices.Equal(names, []string{"one"}) {
		t.Errorf("listed: %v, %v", names, err)
	}
	p = r.connect()
	p.greet()
	for name, want := range map[string]uint32{"one": proto.RepAck, "": proto.RepAck, "two": proto.RepErrUnknown, "none": proto.RepErrUnknown} {
		if got := p.option(proto.OptInfo, append(proto.AppendString(nil, name), 0, 0)); got != want {
			t.Errorf("info of %q: %#x, want %#x", name, got, want)
		}
	}
	// Each command that changes anything is refused, and the stream goes on.
	p.enterAfterGreeting("one")
	for i, cmd := range []uint16{proto.CmdWrite, proto.CmdTrim, proto.CmdWriteZeroes, proto.CmdFlush} {
		n, payload := 512, []byte(nil)
		switch cmd {
		case proto.CmdWrite:
			payload = make([]byte, n)
		case proto.CmdFlush:
			n = 0
		}
		p.request(cmd, uint64(i), 0, n, payload)
		want := proto.EPERM
		if cmd == proto.CmdFlush {
			want = 0
		}
		if errno, _ := p.expectReply(); errno != want {
			t.Errorf("command %d: %d, want %d", cmd, errno, want)
		}
	}
}

// enterAfterGreeting is enter without the greeting.
func (p peer) enterAfterGreeting(export string) {
	p.t.Helper()
	p.send(append(proto.AppendOption(nil, proto.OptExportName, len(export)), export...))
	p.expect(proto.ExportInfoSize)
}

func TestNewGrantsAreForNewConnections(t *testing.T) {
	r := startServer(t, Config{}, map[string]Disk{"disk": newDisk(t, nbdtest.Config{Size: 1 << 20})})
	before := r.dial("disk", nbdclient.Options{})
	r.SetGrants(mustGrants(t, "disk=ro:any"))
	after := r.dial("disk", nbdclient.Options{})
	if before.Info().ReadOnly() || !after.Info().ReadOnly() {
		t.Errorf("read-only: %v before, %v after", before.Info().ReadOnly(), after.Info().ReadOnly())
	}
	if _, err := before.WriteAt([]byte{1}, 0); err != nil {
		t.Errorf("what was given is taken away: %v", err)
	}
	if _, err := after.WriteAt([]byte{1}, 0); err == nil {
		t.Error("written through a read-only export")
	}
}

// TestNewCertificatesAreForNewConnections: the others stay as they are.
func TestNewCertificatesAreForNewConnections(t *testing.T) {
	old, fresh := newAuthority(t), newAuthority(t)
	load := func(ca *authority) *tls.Config {
		cfg, err := ca.load()
		if err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	r := startServer(t, Config{TLS: load(old), RequireTLS: true}, map[string]Disk{"disk": newDisk(t, nbdtest.Config{Size: 1 << 20})})
	uri := URI(r.serveTCP(), "disk", true)
	dial := func(ca *authority) (*nbdclient.Conn, error) {
		cert, key := ca.leaf("client")
		return nbdclient.Dial(t.Context(), uri, nbdclient.Options{TLS: ca.trust(cert, key)})
	}
	c, err := dial(old)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.SetTLS(load(fresh)); err != nil {
		t.Fatal(err)
	}
	if other, err := dial(old); err == nil {
		other.Abort()
		t.Error("the certificate before is still shown")
	}
	next, err := dial(fresh)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []*nbdclient.Conn{c, next} {
		if err := exercise(c, 0, 1<<20, 1); err != nil {
			t.Error(err)
		}
		c.Close()
	}
	if err := r.SetTLS(nil); err == nil {
		t.Error("TLS is turned off under clients")
	}
}

func TestClientsAreToldAndEachCanBeDisconnected(t *testing.T) {
	ca := newAuthority(t)
	cfg, err := ca.load()
	if err != nil {
		t.Fatal(err)
	}
	r := startServer(t, Config{TLS: cfg, RequireTLS: true}, map[string]Disk{"disk": newDisk(t, nbdtest.Config{Size: 1 << 20})})
	addr := r.serveTCP()
	local := r.connect()
	local.enter("disk")
	cert, key := ca.leaf("alice")
	remote, err := nbdclient.Dial(t.Context(), URI(addr, "disk", true), nbdclient.Options{TLS: ca.trust(cert, key)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := remote.WriteAt(make([]byte, 3000), 0); err != nil {
		t.Fatal(err)
	}
	idle := r.connect()
	idle.greet()
	until(t, "all are there", func() bool { return len(r.Clients()) == 3 })
	all := r.Clients()
	if c := all[0]; !c.Unix || c.Export != "disk" || c.TLS != "" || (runtime.GOOS == "linux" || runtime.GOOS == "freebsd") && (c.PID != os.Getpid() || c.UID != int64(os.Getuid())) {
		t.Errorf("the local one: %+v", c)
	}
	if c := all[1]; c.Unix || c.Name != "alice" || c.TLS != "TLS 1.3" || c.Export != "disk" || c.BytesWritten != 3000 || !strings.HasPrefix(c.Address, "127.0.0.1:") {
		t.Errorf("the remote one: %+v", c)
	}
	if c := all[2]; c.Export != "" {
		t.Errorf("the one that negotiates: %+v", c)
	}
	for i, p := range []peer{local, idle} {
		if err := r.Disconnect(all[2*i].Number); err != nil {
			t.Error(err)
		}
		p.expectEnd()
	}
	if err := r.Disconnect(all[0].Number); !errors.Is(err, ErrNoClient) {
		t.Errorf("twice: %v", err)
	}
	if _, err := remote.ReadAt(make([]byte, 100), 0); err != nil {
		t.Errorf("another client: %v", err)
	}
	if left := r.Clients(); len(left) != 1 || left[0].Number != all[1].Number {
		t.Errorf("left: %+v", left)
	}
}

func TestOnePeerDoesNotShutOutOthers(t *testing.T) {
	r := newRig(t, Config{MaxConns: 4, MaxPerPeer: 3})
	var crowd []peer
	for range 3 {
		p := r.connect()
		p.enter("disk")
		crowd = append(crowd, p)
	}
	fourth := r.connect()
	fourth.expectEnd()
	// Another peer has a place.
	ln := r.serveTCP()
	c, err := nbdclient.Dial(t.Context(), URI(ln, "disk", false), nbdclient.Options{})
	if err != nil {
		t.Fatalf("another peer: %v", err)
	}
	c.Close()
	for _, p := range crowd {
		p.request(proto.CmdFlush, 1, 0, 0, nil)
		if errno, _ := p.expectReply(); errno != 0 {
			t.Errorf("reply %d", errno)
		}
	}
	crowd[0].Close()
	until(t, "there is room again", func() bool { return r.Stats().Conns == 2 })
	r.works()
}

func TestPeersOfTheNetwork(t *testing.T) {
	for in, want := range map[string]string{
		"10.1.2.3:4": "10.1.2.3", "[::ffff:10.1.2.3]:4": "10.1.2.3", "[::1]:4": "::1",
		"[2001:db8:1:2:3:4:5:6]:7": "2001:db8:1:2::/64", "[fe80::1%eth0]:7": "fe80::/64", "pipe": "pipe",
	} {
		if got := peerOf(in); got != want {
			t.Errorf("%s is of %s, want %s", in, got, want)
		}
	}
}

// TestClientsThatHoldNothingGo: those that never ask for anything, and with Idle
// those that do not any more. One whose request is at work stays.
func TestClientsThatHoldNothingGo(t *testing.T) {
	before, entered, open := gate()
	defer open()
	d := newDisk(t, nbdtest.Config{Size: 1 << 20, Workers: 2, Before: before})
	r := startServer(t, Config{FirstRequest: time.Hour, Idle: 2 * time.Hour}, map[string]Disk{"disk": d})
	never, once, busy := r.connect(), r.connect(), r.connect()
	for _, p := range []peer{never, once, busy} {
		p.enter("disk")
		p.SetDeadline(time.Now().Add(patience))
	}
	once.request(proto.CmdCache, 1, 0, 1, nil)
	once.expectReply()
	busy.request(proto.CmdFlush, 1, 0, 0, nil)
	<-entered
	until(t, "one request is at work", func() bool {
		n := int64(0)
		for _, c := range r.Clients() {
			n += c.InFlight
		}
		return n == 1
	})
	now := time.Now()
	r.sweepOnce(now)
	r.sweepOnce(now.Add(59 * time.Minute))
	if n := r.Stats().Conns; n != 3 {
		t.Fatalf("%d connections before the time is over", n)
	}
	r.sweepOnce(now.Add(61 * time.Minute))
	never.expectEnd()
	r.sweepOnce(now.Add(119 * time.Minute))
	if n := r.Stats().Conns; n != 2 {
		t.Fatalf("%d connections, want those that have asked for something", n)
	}
	r.sweepOnce(now.Add(121 * time.Minute))
	once.expectEnd()
	open()
	if errno, _ := busy.expectReply(); errno != 0 {
		t.Errorf("the busy one: %d", errno)
	}
}

func TestRudeClientsAreOneLineAMinute(t *testing.T) {
	r := newRig(t, Config{})
	for range 50 {
		p := r.connect()
		p.expect(18)
		p.send([]byte("GET / HTTP/1.1\r\n\r\n"))
		p.expectEnd()
	}
	until(t, "all are gone", func() bool { return r.log.count("unknown client flags") == 50 })
	warned := func() int { return r.log.count("level=WARN") }
	if r.sweepOnce(time.Now()); warned() != 1 {
		t.Errorf("%d warnings within a minute", warned())
	}
	r.sweepOnce(time.Now().Add(time.Minute))
	if warned() != 2 || r.log.count("times=49") != 1 {
		t.Errorf("%d warnings after a minute", warned())
	}
	r.sweepOnce(time.Now().Add(time.Hour))
	if warned() != 2 {
		t.Error("nothing is told again")
	}
}
