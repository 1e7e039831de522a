package blackbox

import (
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdclient"
)

// cluster is a Ceph of one monitor and one OSD in memory, on loopback addresses.
type cluster struct {
	s    *site
	dir  string
	conf string
	osd  *exec.Cmd
}

// newCluster starts a cluster that lasts as long as the test, with images of so many
// bytes in its pool rbd.
func newCluster(s *site, images int, size int64) *cluster {
	need(s.t, "ceph-mon", "ceph-osd", "ceph", "ceph-authtool", "monmaptool", "rbd", "qemu-nbd")
	c := &cluster{s: s, dir: filepath.Join(s.dir, "ceph")}
	c.conf = filepath.Join(c.dir, "conf")
	for _, dir := range []string{"mon", "osd", "run"} {
		if err := os.MkdirAll(filepath.Join(c.dir, dir), 0o700); err != nil {
			s.t.Fatal(err)
		}
	}
	c.configure()
	keys, monmap := filepath.Join(c.dir, "keys"), filepath.Join(c.dir, "monmap")
	command(s.t, "ceph-authtool", "--create-keyring", keys, "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
	command(s.t, "ceph-authtool", keys, "--gen-key", "-n", "client.admin", "--cap", "mon", "allow *", "--cap", "osd", "allow *", "--cap", "mgr", "allow *")
	command(s.t, "monmaptool", "--create", "--fsid", clusterID, "--addv", "a", "[v2:"+c.monitor()+"]", monmap)
	command(s.t, "ceph-mon", "-c", c.conf, "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", keys)
	c.daemon("ceph-mon", "-f", "-c", c.conf, "-i", "a")
	c.retry("the monitor answers", "-s")
	c.ceph("osd", "create")
	command(s.t, "ceph-osd", "-c", c.conf, "-i", "0", "--mkfs")
	c.ceph("osd", "crush", "add", "osd.0", "1", "root=default", "host=one")
	c.osd = c.daemon("ceph-osd", "-f", "-c", c.conf, "-i", "0")
	s.await("the OSD is up", func() bool { return strings.Contains(c.ceph("osd", "stat"), "1 up") })
	c.ceph("osd", "pool", "create", "rbd", "8", "8")
	command(s.t, "rbd", "-c", c.conf, "pool", "init", "rbd")
	for i := range images {
		// Without the exclusive lock, which a client that was killed leaves for 30 s.
		command(s.t, "rbd", "-c", c.conf, "create", "--image-feature", "layering", "--size", fmt.Sprint(size>>20), fmt.Sprint("image", i))
	}
	return c
}

// clusterID is drawn once for all: a cluster is nobody else's.
const clusterID = "6a1d0a1e-64a1-4c33-9a4b-3f5a7e0d2b11"

// monitor is the address of the monitor.
func (c *cluster) monitor() string {
	b, err := os.ReadFile(filepath.Join(c.dir, "address"))
	if err != nil {
		c.s.t.Fatal(err)
	}
	return string(b)
}

// configure writes the configuration. Nothing asks for a key, and one copy of all is enough.
// A placement group of one OSD alone that stood still for longer than four fifths of the
// grace would serve nothing any more.
func (c *cluster) configure() {
	address := "127.0.0.1:" + freePort(c.s.t)
	text := fmt.Sprintf(`[global]
fsid = %[1]s
mon host = [v2:%[2]s]
public addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
keyring = %[3]s/keys
mon data = %[3]s/mon
osd data = %[3]s/osd
run dir = %[3]s/run
log file = %[3]s/log.$name
pid file =
admin socket =
osd objectstore = memstore
memstore device bytes = 2147483648
osd pool default size = 1
osd pool default min size = 1
osd crush chooseleaf type = 0
mon allow pool size one = true
osd heartbeat grace = 60
mon data avail warn = 1
mon data avail crit = 1
`, clusterID, address, c.dir)
	for name, text := range map[string]string{"address": address, "conf": text} {
		if err := os.WriteFile(filepath.Join(c.dir, name), []byte(text), 0o600); err != nil {
			c.s.t.Fatal(err)
		}
	}
}

// daemon starts a daemon of the cluster, which is killed at the end of the test.
func (c *cluster) daemon(name string, args ...string) *exec.Cmd {
	d := exec.Command(name, args...)
	if err := d.Start(); err != nil {
		c.s.t.Fatal(err)
	}
	c.s.t.Cleanup(func() {
		_ = d.Process.Kill()
		_ = d.Wait() // it was killed
	})
	return d
}

// ceph is what the tool of the cluster prints.
func (c *cluster) ceph(args ...string) string {
	c.s.t.Helper()
	return command(c.s.t, "ceph", append([]string{"-c", c.conf, "--connect-timeout", "30"}, args...)...)
}

// freePort is a port of TCP that nobody has.
func freePort(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	_, port, err := net.SplitHostPort(ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// retry has the tool do something until it succeeds.
func (c *cluster) retry(what string, args ...string) {
	c.s.await(what, func() bool {
		_, err := try(c.s.t, "ceph", append([]string{"-c", c.conf, "--connect-timeout", "5"}, args...)...)
		return err == nil
	})
}

// signal is sent to the OSD, without which nothing is read or written.
func (c *cluster) signal(sig syscall.Signal) {
	if err := c.osd.Process.Signal(sig); err != nil {
		c.s.t.Fatal(err)
	}
}

// image is an image of the pool as qemu-nbd opens it.
func (c *cluster) image(i int) string { return fmt.Sprintf("rbd:rbd/image%d:conf=%s", i, c.conf) }

// await polls for what no event tells.
func (s *site) await(what string, ok func() bool) {
	s.t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("%s: not in %v", what, patience)
		}
	}
}

var cephCuts = flag.Int("ceph.cuts", 100, "how often the servers of the images are killed in TestAVolumeOnCeph")

// TestAVolumeOnCeph: a cluster that stands still for a while, and servers of its images
// that are killed, are not noticed by the clients that write meanwhile; the volume moves
// from Ceph to a file and back under them; and an image that does not come back is a
// component that failed, no more.
func TestAVolumeOnCeph(t *testing.T) {
	if testing.Short() {
		t.Skip("a minute")
	}
	need(t, "fio", "mkfs.ext4", "e2fsck", "debugfs")
	s := newSite(t)
	c := newCluster(s, 2, 96<<20)
	s.files = []string{c.image(0), c.image(1)}
	images := slices.Clone(s.files)
	s.exporting()
	s.label("-m", "1m", "-s", "256m")
	// Whoever opens an image after a daemon was killed waits for so long, and the cluster is fast.
	s.start("--alloc=spread", "--nbd-component-grace=3s")
	s.fileSystemThroughDeaths(images)
	c.standStill(20 * time.Second)
	s.cut(images, *cephCuts)

	s.moveUnderLoad(s.file("third", 192<<20))
	s.term()
	if out := s.gvirstor(append([]string{"check"}, s.files...)...); !strings.Contains(out, "No errors.") {
		t.Errorf("check:\n%s", out)
	}
	s.start("--when-full=error", "--alloc=spread", "--nbd-component-timeout=1s")
	s.outlivesAServer(images[1])
}

// fileSystemThroughDeaths makes a file system, and checks it after the daemon and the
// servers of its images were killed.
func (s *site) fileSystemThroughDeaths(images []string) {
	t := s.t
	t.Helper()
	flags := s.flags
	disk, leave := s.asFile(256 * mib)
	command(t, "mkfs.ext4", "-q", "-F", disk)
	file, back := filepath.Join(s.dir, "written"), filepath.Join(s.dir, "read")
	noise(t, file, 1, 20*mib)
	command(t, "debugfs", "-w", "-R", "write "+file+" file", disk)
	leave()
	s.kill()
	for i := range images {
		s.endServer(i)
		s.serveImage(i, images[i])
	}
	s.start(flags...)
	disk, leave = s.asFile(256 * mib)
	command(t, "e2fsck", "-f", "-n", disk)
	command(t, "debugfs", "-R", "dump file "+back, disk)
	same(t, file, back)
	leave()
}

// standStill stops the OSD for so long under load: requests wait, and none fails.
func (c *cluster) standStill(d time.Duration) {
	s := c.s
	s.t.Helper()
	done := s.load("32M")
	s.until("it writes", func() bool { return s.status().Operations["write"].Requests > 100 })
	c.signal(syscall.SIGSTOP)
	stall := time.After(d)
	select {
	case <-stall:
	case <-done:
		s.t.Error("fio has ended while nothing could be written")
	}
	c.signal(syscall.SIGCONT)
	<-done
}

// cut kills the servers of two images so many times under load and starts them again.
// What was acknowledged is there after the daemon was killed, too.
func (s *site) cut(images []string, times int) {
	t := s.t
	t.Helper()
	flags, verified, begin := s.flags, 0, time.Now()
	w, conn := newWriter(64, 64, 1<<20), s.dial() // behind what fio has
	var running sync.WaitGroup
	running.Go(func() { w.run(conn, 0) })
	for deaths := 0; deaths < times && !t.Failed(); verified++ {
		deaths += s.killServers(images, times-deaths, s.load("32M"))
	}
	select {
	case <-conn.Done():
		t.Error("the connection has ended")
	default:
	}
	conn.Abort()
	running.Wait()
	t.Logf("%d deaths of servers in %v; fio verified %d times 32 MiB, and another client wrote %d blocks",
		times, time.Since(begin).Round(time.Millisecond), verified, w.total())
	s.kill()
	s.start(flags...)
	w.verify(t, s.dial())
}

// moveUnderLoad has the first image leave for a file, and come back, under a load that goes on
// until both are done: requests are served while chunks move, and nothing of it is lost.
func (s *site) moveUnderLoad(file string) {
	t := s.t
	t.Helper()
	const start, enough = 32, 20
	l := &lanes{ledger: newLedger("what was written while the image left", 0, start*mib, cells(sectorSize)), count: 4, block: 64 << 10, longest: 32 << 10}
	conn := s.dial()
	for g := range int64(start) { // of what fio has left there the ledger knows nothing
		if err := l.ledger.put(conn, g*mib, mib, uint64(g)+1); err != nil {
			t.Fatal(err)
		}
	}
	l.generation.Store(start)
	stop, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- l.run(func() (*nbdclient.Conn, error) { return nbdclient.Dial(t.Context(), s.uri(), nbdclient.Options{}) }, 1, stop)
	}()
	image := s.files[0]
	for _, way := range []struct{ from, to string }{{image, file}, {file, image}} {
		s.gvirstor("add", "vol", way.to)
		s.gvirstor("remove", "-e", "-b", "--rate", "16m", "vol", way.from)
		s.until("a chunk is moved", func() bool { j := s.status().Job; return j != nil && j.Chunks > 0 })
		before := l.acked.Load()
		s.until("all are", func() bool {
			return !slices.ContainsFunc(s.status().Components, func(c control.ComponentStatus) bool { return c.Name == way.from })
		})
		served := l.acked.Load() - before
		t.Logf("%d requests were served while %s left", served, way.from)
		if served < enough {
			t.Error("the load does not go on")
		}
	}
	close(stop)
	if err := <-ended; err != nil {
		t.Errorf("the load: %v\n%s", err, s.log)
	}
	s.mustBe(l.ledger, "after the moves", true)
}
