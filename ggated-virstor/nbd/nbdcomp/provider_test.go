package nbdcomp

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/geomlib/ownfile"
	"github.com/gvirstor/gvirstor/geomlib/providertest"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdtest"
	"github.com/gvirstor/gvirstor/ondisk"
)

// serve serves a disk in memory as "disk" until end is called, or the test ends.
func serve(t *testing.T, cfg nbd.Config, listen string, disk nbdtest.Config) (uri string, end func()) {
	t.Helper()
	d := nbdtest.New(disk)
	t.Cleanup(d.Close)
	return serveDisk(t, cfg, listen, d)
}

func serveDisk(t *testing.T, cfg nbd.Config, listen string, d nbd.Disk) (uri string, end func()) {
	t.Helper()
	s, err := nbd.NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.AddExport("disk", d); err != nil {
		t.Fatal(err)
	}
	a, err := nbd.ParseListen(listen)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := nbd.Listen(t.Context(), a, nbd.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if a.Network == "tcp" {
		a.Addr = ln.Addr().String()
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(context.Background(), ln) }()
	ended := false
	end = func() {
		if ended {
			return
		}
		ended = true
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		s.Shutdown(ctx)
		if err := <-served; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(end)
	return nbd.URI(a, "disk", cfg.TLS != nil), end
}

func unixSocket(t *testing.T) string { return "unix:" + filepath.Join(t.TempDir(), "s") }

// open opens an export until the test ends.
func open(t *testing.T, uri string, o geomlib.OpenOptions) geomlib.Provider {
	t.Helper()
	p, err := Opener{RunDir: t.TempDir()}.Open(uri, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// of is the provider that p is.
func of(p geomlib.Provider) *provider {
	if s, ok := p.(sparse); ok {
		return s.provider
	}
	return p.(*provider)
}

func TestAnExportOfOursDoesWhatProvidersDo(t *testing.T) {
	providertest.Run(t, func(t *testing.T) geomlib.Provider {
		uri, _ := serve(t, nbd.Config{}, unixSocket(t), nbdtest.Config{Size: 8 << 20, ChunkSize: 64 << 10, Workers: 2})
		p := open(t, uri, geomlib.OpenOptions{})
		if n := len(of(p).session.conns); n != connections {
			t.Errorf("%d connections to a server that says that it takes several", n)
		}
		return p
	})
}

// tool starts a server, which must be installed where GVIRSTOR_REQUIRE_TOOLS=1, and waits
// until ready is there.
func tool(t *testing.T, ready, name string, args ...string) (kill func()) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil && os.Getenv("GVIRSTOR_REQUIRE_TOOLS") == "1" {
		t.Fatalf("%s is missing, and GVIRSTOR_REQUIRE_TOOLS=1", name)
	}
	if err != nil {
		t.Skipf("%s is missing", name)
	}
	cmd := exec.Command(path, args...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	kill = sync.OnceFunc(func() {
		cmd.Process.Kill()
		<-ended
	})
	t.Cleanup(kill)
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(ready); err == nil {
			return kill
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("%s ends as it starts: %v", name, err)
		default:
		}
		if time.Now().After(end) {
			t.Fatalf("%s does not start", name)
		}
	}
}

func TestExportsOfStrangersDoWhatProvidersDo(t *testing.T) {
	servers := map[string]func(t *testing.T, dir, socket string) (ready string, command []string){
		"nbdkit's memory": func(_ *testing.T, dir, socket string) (string, []string) {
			pid := filepath.Join(dir, "pid")
			return pid, []string{"nbdkit", "-f", "-P", pid, "-U", socket, "memory", "8M"}
		},
		"nbdkit's memory with blocks": func(_ *testing.T, dir, socket string) (string, []string) {
			pid := filepath.Join(dir, "pid")
			return pid, []string{"nbdkit", "-f", "-P", pid, "-U", socket, "--filter=blocksize-policy", "memory", "8M",
				"blocksize-minimum=4096", "blocksize-preferred=4096", "blocksize-maximum=64K", "blocksize-error-policy=error"}
		},
		"nbdkit without zeroes and extents": func(_ *testing.T, dir, socket string) (string, []string) {
			pid := filepath.Join(dir, "pid")
			return pid, []string{"nbdkit", "-f", "-P", pid, "-U", socket, "--filter=nozero", "--filter=noextents", "memory", "8M"}
		},
		"qemu-nbd's file": func(t *testing.T, dir, socket string) (string, []string) {
			image := filepath.Join(dir, "image")
			if err := os.WriteFile(image, make([]byte, 8<<20), 0o600); err != nil {
				t.Fatal(err)
			}
			pid := filepath.Join(dir, "pid")
			return pid, []string{"qemu-nbd", "--persistent", "-e", "16", "-k", socket, "-f", "raw", "--discard=unmap", "--pid-file=" + pid, image}
		},
	}
	for name, start := range servers {
		t.Run(name, func(t *testing.T) {
			providertest.Run(t, func(t *testing.T) geomlib.Provider {
				dir := t.TempDir()
				socket := filepath.Join(dir, "s")
				ready, command := start(t, dir, socket)
				tool(t, ready, command[0], command[1:]...)
				return open(t, "nbd+unix:///?socket="+socket, geomlib.OpenOptions{})
			})
		})
	}
}

func TestHolesAreThoseOfTheServer(t *testing.T) {
	const chunk = 64 << 10
	uri, _ := serve(t, nbd.Config{}, unixSocket(t), nbdtest.Config{Size: 100 * chunk, ChunkSize: chunk})
	p := open(t, uri, geomlib.OpenOptions{})
	for _, i := range []int64{3, 4, 7} {
		if _, err := p.WriteAt(bytes.Repeat([]byte{1}, 512), i*chunk+4096); err != nil {
			t.Fatal(err)
		}
	}
	h := p.(geomlib.HoleFinder)
	for _, tt := range []struct{ off, limit, start, end int64 }{
		{0, 100 * chunk, 3 * chunk, 5 * chunk},
		{3 * chunk, 100 * chunk, 3 * chunk, 5 * chunk},
		{3*chunk + 512, 4 * chunk, 3*chunk + 512, 4 * chunk},
		{5 * chunk, 100 * chunk, 7 * chunk, 8 * chunk},
		{8 * chunk, 100 * chunk, 100 * chunk, 100 * chunk},
		{0, 2 * chunk, 2 * chunk, 2 * chunk},
		{chunk, chunk, chunk, chunk},
	} {
		start, end, err := h.NextData(tt.off, tt.limit)
		if err != nil || start != tt.start || tt.start < tt.limit && end != tt.end {
			t.Errorf("from %d to %d: [%d, %d), %v, want [%d, %d)", tt.off, tt.limit, start, end, err, tt.start, tt.end)
		}
	}
	if _, _, err := h.NextData(0, 101*chunk); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("beyond the end: %v", err)
	}
}

func TestAllConnectionsAreGivenUpWithOne(t *testing.T) {
	uri, _ := serve(t, nbd.Config{}, unixSocket(t), nbdtest.Config{Size: 1 << 20})
	p := of(open(t, uri, geomlib.OpenOptions{}))
	old := p.session.conns
	if err := old[2].Abort(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is reached again", func() bool { return p.Reach().Regained == 1 })
	for i, c := range old {
		select {
		case <-c.Done():
		default:
			t.Errorf("connection %d is used still", i)
		}
	}
	if _, err := p.ReadAt(make([]byte, 512), 0); err != nil {
		t.Error(err)
	}
}

// TestAFlushThatFailsIsNoted: a worker that takes over must know of it.
func TestAFlushThatFailsIsNoted(t *testing.T) {
	var failed []string
	uri, end := serve(t, nbd.Config{}, unixSocket(t), nbdtest.Config{Size: 1 << 20})
	p, err := Opener{RunDir: t.TempDir(), Timeout: 10 * time.Millisecond, silence: patience}.Open(uri, geomlib.OpenOptions{FlushFails: func(name string) { failed = append(failed, name) }})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Flush(); err != nil || failed != nil {
		t.Fatalf("flush: %v, %q", err, failed)
	}
	end()
	if err := p.Flush(); !errors.Is(err, syscall.EIO) || len(failed) != 1 || failed[0] != p.Name() {
		t.Errorf("flush: %v, %q", err, failed)
	}
}

func TestErrorsOfTheServerAreThoseOfTheProvider(t *testing.T) {
	fail := errors.New("broken")
	uri, _ := serve(t, nbd.Config{}, unixSocket(t), nbdtest.Config{Size: 1 << 20, Before: func(r *virstor.Request) error {
		if r.Op == virstor.OpWrite {
			return virstor.ErrNoSpace
		}
		return fail
	}})
	p := open(t, uri, geomlib.OpenOptions{})
	if _, err := p.WriteAt(make([]byte, 512), 0); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("write: %v", err)
	}
	if err := p.Flush(); !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), p.Name()) {
		t.Errorf("flush: %v", err)
	}
	if err := p.(geomlib.Zeroer).WriteZeroes(0, 512); !errors.Is(err, syscall.EIO) {
		t.Errorf("zeroes: %v", err)
	}
}

func TestWhatNoComponentCanBeOnIsRefused(t *testing.T) {
	readOnly, _ := serve(t, nbd.Config{}, unixSocket(t), nbdtest.Config{Size: 1 << 20, ReadOnly: true})
	odd, _ := serve(t, nbd.Config{}, unixSocket(t), nbdtest.Config{Size: 1<<20 + 100})
	good, _ := serve(t, nbd.Config{}, unixSocket(t), nbdtest.Config{Size: 1 << 20})
	for _, tt := range []struct {
		what, uri string
		o         geomlib.OpenOptions
		want      error
		word      string
	}{
		{"a server that lets nobody write", readOnly, geomlib.OpenOptions{}, syscall.EROFS, "write"},
		{"half a sector", odd, geomlib.OpenOptions{}, nil, "right export"},
		{"a sector size that is none", good, geomlib.OpenOptions{SectorSize: 3000}, nil, "power of two"},
		{"a sector size that is too small", good, geomlib.OpenOptions{SectorSize: 256}, nil, "power of two"},
		{"another export", strings.Replace(good, "disk", "other", 1), geomlib.OpenOptions{}, nil, "other"},
		{"nobody there", "nbd+unix:///?socket=/nowhere/at/all", geomlib.OpenOptions{}, os.ErrNotExist, "connect"},
		{"no URI", "nbd://", geomlib.OpenOptions{}, nil, "host"},
	} {
		p, err := Opener{RunDir: t.TempDir()}.Open(tt.uri, tt.o)
		if err == nil {
			p.Close()
		}
		if err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.word) {
			t.Errorf("%s: %v", tt.what, err)
		}
	}
	p := open(t, readOnly, geomlib.OpenOptions{ReadOnly: true})
	if _, err := p.WriteAt(make([]byte, 512), 0); !errors.Is(err, syscall.EROFS) {
		t.Errorf("write to what was opened read-only: %v", err)
	}
}

// TestAServerThatKnowsNoFlushIsWrittenToByNobody: one that is read is another matter.
func TestAServerThatKnowsNoFlushIsWrittenToByNobody(t *testing.T) {
	dir := t.TempDir()
	socket, pid := filepath.Join(dir, "s"), filepath.Join(dir, "pid")
	tool(t, pid, "nbdkit", "-f", "-P", pid, "-U", socket, "eval", "get_size=echo 1M", "pread=head -c $3 /dev/zero", "pwrite=cat >/dev/null")
	uri := "nbd+unix:///?socket=" + socket
	if p, err := (Opener{RunDir: dir}).Open(uri, geomlib.OpenOptions{}); err == nil || !strings.Contains(err.Error(), "SEND_FLUSH") {
		t.Errorf("to write: %v, %v", p, err)
	}
	p := open(t, uri, geomlib.OpenOptions{ReadOnly: true})
	if err := p.Flush(); !errors.Is(err, geomlib.ErrNotSupported) {
		t.Errorf("flush: %v", err)
	}
}

func TestAnExportIsLockedOnThisHostHoweverItIsSpelled(t *testing.T) {
	run := t.TempDir()
	uri, _ := serve(t, nbd.Config{}, unixSocket(t), nbdtest.Config{Size: 1 << 20})
	p, err := Opener{RunDir: run}.Open(uri, geomlib.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{uri, strings.Replace(uri, "nbd+unix", "NBD+UNIX", 1), strings.Replace(uri, "/disk", "/%64isk", 1)} {
		for _, by := range []geomlib.Opener{Opener{RunDir: run}, Keeper{RunDir: run}} {
			if _, err := by.Open(name, geomlib.OpenOptions{}); !errors.Is(err, geomlib.ErrLocked) {
				t.Errorf("%s: %v", name, err)
			}
			if _, err := by.Open(name, geomlib.OpenOptions{ReadOnly: true}); !errors.Is(err, geomlib.ErrLocked) {
				t.Errorf("%s to read: %v", name, err)
			}
		}
	}
	look, err := Opener{RunDir: run}.Open(uri, geomlib.OpenOptions{ReadOnly: true, NoLock: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(look.Close(), p.Close()); err != nil {
		t.Fatal(err)
	}
	p, err = Opener{RunDir: run}.Open(uri, geomlib.OpenOptions{})
	if err != nil {
		t.Fatalf("after it was closed: %v", err)
	}
	p.Close()
}

// TestAnExportWhoseWriterDiedIsLeftAloneForAWhile: what that sent may be done until then.
func TestAnExportWhoseWriterDiedIsLeftAloneForAWhile(t *testing.T) {
	slept := time.Duration(0)
	o := Opener{RunDir: t.TempDir(), Grace: time.Minute, sleep: func(d time.Duration) { slept += d }}
	uri, _ := serve(t, nbd.Config{}, unixSocket(t), nbdtest.Config{Size: 1 << 20})
	waits := func(what string, opt geomlib.OpenOptions, want bool) geomlib.Provider {
		t.Helper()
		slept = 0
		p, err := o.Open(uri, opt)
		if err != nil {
			t.Fatal(err)
		}
		if want != (slept == o.Grace) || !want && slept != 0 {
			t.Errorf("%s: opened after %v", what, slept)
		}
		return p
	}
	die := func(p geomlib.Provider) {
		c := of(p)
		c.mu.Lock()
		c.endLocked(closed, errClosed) // nothing is said to the server, or to the lock
		c.mu.Unlock()
		if err := errors.Join(c.session.reset(), c.lock.Close()); err != nil {
			t.Error(err)
		}
		c.cancel()
		c.tasks.Wait()
	}
	die(waits("the first", geomlib.OpenOptions{}, false))
	waits("who reads does not wait", geomlib.OpenOptions{ReadOnly: true}, false).Close()
	waits("after a death", geomlib.OpenOptions{}, true).Close()
	waits("after a goodbye", geomlib.OpenOptions{}, false).Close()
	die(waits("who reads", geomlib.OpenOptions{ReadOnly: true}, false))
	waits("after the death of who read", geomlib.OpenOptions{}, false).Close()
	if _, err := o.Open(uri, geomlib.OpenOptions{SectorSize: 3000}); err == nil {
		t.Error("sectors of 3000 bytes")
	}
	waits("after an opening that failed", geomlib.OpenOptions{}, false).Close()
}

// volume makes a volume with that id on p, and opens it.
func volume(t *testing.T, id uint32, p geomlib.Provider) *virstor.Volume {
	t.Helper()
	l, err := ondisk.Plan(ondisk.LabelRequest{Name: fmt.Sprint("v", id), VirtualSize: 8 << 20, ChunkSize: 128 << 10, ID: id, ChunkMultiple: ondisk.MinChunkMultiple,
		Providers: []ondisk.LabelProvider{{Name: p.Name(), Size: p.MediaSize(), SectorSize: p.SectorSize()}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := virstor.Label(t.Context(), []geomlib.Provider{p}, l, virstor.LabelOptions{}); err != nil {
		t.Fatal(err)
	}
	m, err := geomlib.ReadMetadata(p)
	if err != nil {
		t.Fatal(err)
	}
	v, err := virstor.Open(virstor.Assemble([]virstor.Member{{Provider: p, Metadata: m}})[0], virstor.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestAVolumeNeverLiesOnItself: neither at once nor by way of another.
func TestAVolumeNeverLiesOnItself(t *testing.T) {
	lower := volume(t, 1, disktest.New("disk", 16<<20, 512))
	lowerURI, _ := serveDisk(t, nbd.Config{}, unixSocket(t), lower)
	upper := volume(t, 2, open(t, lowerURI, geomlib.OpenOptions{}))
	upperURI, _ := serveDisk(t, nbd.Config{}, unixSocket(t), upper)
	for uri, want := range map[string]string{lowerURI: "[1]", upperURI: "[1 2]"} {
		p, err := Opener{RunDir: t.TempDir()}.Open(uri, geomlib.OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(geomlib.LiesOn(p)); got != want {
			t.Errorf("%s lies on %s, want %s", uri, got, want)
		}
		if err := lower.Add([]geomlib.Provider{p}, virstor.AddOptions{Force: true}); !errors.Is(err, virstor.ErrLoop) {
			t.Errorf("add %s to what it lies on: %v", uri, err)
		}
		if err := lower.MayJoin(virstor.AddOptions{Force: true}, p); !errors.Is(err, virstor.ErrLoop) {
			t.Errorf("%s may join what it lies on: %v", uri, err)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
	other, _ := serve(t, nbd.Config{}, unixSocket(t), nbdtest.Config{Size: 16 << 20})
	if err := lower.Add([]geomlib.Provider{open(t, other, geomlib.OpenOptions{})}, virstor.AddOptions{}); err != nil {
		t.Errorf("add what lies on nothing: %v", err)
	}
	if err := errors.Join(upper.Close(), lower.Close()); err != nil {
		t.Error(err)
	}
}

// TestAWorkerServesWhatItsSupervisorKeeps: one process has the lock and connects, the
// other speaks.
func TestAWorkerServesWhatItsSupervisorKeeps(t *testing.T) {
	providertest.Run(t, func(t *testing.T) geomlib.Provider {
		uri, _ := serve(t, nbd.Config{}, unixSocket(t), nbdtest.Config{Size: 1 << 20})
		run := t.TempDir()
		supervisor := geomlib.Registry{"nbd+unix": Keeper{RunDir: run}}
		held, err := supervisor.Open(uri, geomlib.OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { held.Close() })
		worker := func() (geomlib.Provider, error) {
			f, state, ok := geomlib.DescriptorOf(held)
			if !ok {
				t.Fatal("nothing to pass on")
			}
			fd, err := syscall.Dup(int(f.Fd()))
			if err != nil {
				t.Fatal(err)
			}
			return Opener{RunDir: run, By: supervisor}.Adopt(os.NewFile(uintptr(fd), "lock"), held.Name(), state, geomlib.OpenOptions{})
		}
		first, err := worker()
		if err != nil {
			t.Fatal(err)
		}
		if err := first.Close(); err != nil { // it died
			t.Fatal(err)
		}
		if _, err := supervisor.Open(uri, geomlib.OpenOptions{}); !errors.Is(err, geomlib.ErrLocked) {
			t.Errorf("the lock went with the worker: %v", err)
		}
		second, err := worker()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { second.Close() })
		if _, err := held.ReadAt(make([]byte, 512), 0); !errors.Is(err, syscall.ENOTCONN) {
			t.Errorf("the supervisor reads: %v", err)
		}
		return second
	})
}

func TestRequestsOfAProviderAllocateNothing(t *testing.T) {
	uri, _ := serve(t, nbd.Config{}, unixSocket(t), nbdtest.Config{Size: 1 << 20})
	p := open(t, uri, geomlib.OpenOptions{})
	b := make([]byte, 4096)
	for what, do := range map[string]func() error{
		"read":          func() error { _, err := p.ReadAt(b, 0); return err },
		"write":         func() error { _, err := p.WriteAt(b, 0); return err },
		"started read":  func() error { _, err := started{of(p)}.ReadAt(b, 0); return err },
		"started write": func() error { _, err := started{of(p)}.WriteAt(b, 0); return err },
		"flush":         p.Flush,
		"delete":        func() error { return p.Delete(0, 4096) },
		"zeroes":        func() error { return p.(geomlib.Zeroer).WriteZeroes(0, 4096) },
		"holes":         func() error { _, _, err := p.(geomlib.HoleFinder).NextData(0, 1<<20); return err },
	} {
		for range 50 {
			if err := do(); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
		}
		if n := testing.AllocsPerRun(500, func() { do() }); n > 0.1 && !raceEnabled {
			t.Errorf("a %s allocates %v times", what, n)
		}
	}
}

// certify puts a certificate for localhost, signed by an authority of its own, into a
// folder, by the names that a client has for them.
func certify(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	write := func(name, kind string, der []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	sign := func(c, parent *x509.Certificate, pub *ecdsa.PrivateKey, by *ecdsa.PrivateKey) []byte {
		der, err := x509.CreateCertificate(rand.Reader, c, parent, &pub.PublicKey, by)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	caKey, leafKey := key(), key()
	write("ca-cert.pem", "CERTIFICATE", sign(ca, ca, caKey, caKey))
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "somebody"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	write("client-cert.pem", "CERTIFICATE", sign(leaf, ca, leafKey, caKey))
	der, err := x509.MarshalPKCS8PrivateKey(leafKey)
	if err != nil {
		t.Fatal(err)
	}
	write("client-key.pem", "PRIVATE KEY", der)
	return dir
}

func TestOverTLSAnExportDoesWhatProvidersDo(t *testing.T) {
	dir := certify(t)
	file := func(name string) string { return filepath.Join(dir, name) }
	tls, err := nbd.LoadTLS(file("client-cert.pem"), file("client-key.pem"), file("ca-cert.pem"))
	if err != nil {
		t.Fatal(err)
	}
	uri, _ := serve(t, nbd.Config{TLS: tls, RequireTLS: true}, "tcp:127.0.0.1:0", nbdtest.Config{Size: 1 << 20})
	socket, _ := serve(t, nbd.Config{TLS: tls}, unixSocket(t), nbdtest.Config{Size: 1 << 20})
	socket = strings.Replace(socket, "nbd+", "nbds+", 1)
	t.Run("suite", func(t *testing.T) {
		providertest.Run(t, func(t *testing.T) geomlib.Provider {
			return open(t, uri+"?tls-certificates="+dir, geomlib.OpenOptions{})
		})
	})
	caOnly, keyOnly, open644 := t.TempDir(), t.TempDir(), t.TempDir()
	copyFile := func(from, to string, mode os.FileMode) {
		b, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.WriteFile(to, b, mode), os.Chmod(to, mode)); err != nil {
			t.Fatal(err)
		}
	}
	copyFile(file("ca-cert.pem"), filepath.Join(caOnly, "ca-cert.pem"), 0o600)
	copyFile(file("client-key.pem"), filepath.Join(keyOnly, "client-key.pem"), 0o600)
	for _, name := range []string{"ca-cert.pem", "client-cert.pem", "client-key.pem"} {
		copyFile(file(name), filepath.Join(open644, name), 0o644)
	}
	for what, tt := range map[string]struct {
		uri  string
		good bool
		want error
	}{
		"by a Unix socket":                    {socket + "&tls-certificates=" + dir, true, nil},
		"whoever that is":                     {uri + "?tls-verify-peer=0&tls-hostname=x&tls-certificates=" + dir, true, nil},
		"another name than the certificate's": {uri + "?tls-hostname=elsewhere&tls-certificates=" + dir, false, nil},
		"signed by nobody that is known":      {uri, false, nil},
		"without a certificate of its own":    {uri + "?tls-certificates=" + caOnly, false, nil},
		"with a key and no certificate":       {uri + "?tls-certificates=" + keyOnly, false, nil},
		"with a key that others can read":     {uri + "?tls-certificates=" + open644, false, ownfile.ErrUnsafe},
		"from a folder with nothing in it":    {uri + "?tls-certificates=" + t.TempDir(), false, nil},
		"without TLS":                         {strings.Replace(uri, "nbds", "nbd", 1), false, nil},
	} {
		p, err := Opener{RunDir: t.TempDir()}.Open(tt.uri, geomlib.OpenOptions{})
		if err == nil {
			_, err = p.ReadAt(make([]byte, 512), 0) // TLS 1.3 tells only then
			p.Close()
		}
		if (err == nil) != tt.good || tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	// A supervisor passes on what is in the files, which its worker may not read.
	f, state, err := Keeper{}.Connect(t.Context(), uri+"?tls-certificates="+dir)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if !bytes.Contains(state, []byte(`"key"`)) || !bytes.Contains(state, []byte(`"ca"`)) {
		t.Errorf("passed on: %s", state)
	}
}

// TestAServerThatChangesItsMindIsRefused: what connections lead to must be one export.
func TestAServerThatChangesItsMindIsRefused(t *testing.T) {
	var uris []string
	for i := range 2 {
		uri, _ := serve(t, nbd.Config{}, unixSocket(t), nbdtest.Config{Size: int64(1+i) << 20})
		uris = append(uris, uri)
	}
	_, err := Opener{RunDir: t.TempDir(), By: &fickle{uris: uris}}.Open(uris[0], geomlib.OpenOptions{})
	if err == nil || !strings.Contains(err.Error(), "different exports") {
		t.Error(err)
	}
}

// fickle connects to one server after the other.
type fickle struct {
	uris []string
	n    int
}

func (f *fickle) Connect(ctx context.Context, _ string) (*os.File, []byte, error) {
	f.n++
	return Keeper{}.Connect(ctx, f.uris[(f.n-1)%len(f.uris)])
}
