package install

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdclient"
)

// patience is for what must happen, on a machine that has other things to do.
const patience = 2 * time.Minute

// systemctl stands in for systemd, which does not run below a folder: it notes what it is
// asked for, and signals the daemon.
const systemctl = `#!/bin/sh
echo "$*" >>/systemctl.log
pid=$(cat /run/daemon.pid 2>/dev/null) || pid=
case "$*" in
*is-active*) [ -n "$pid" ] && kill -0 "$pid" ;;
*SIGUSR2*) kill -USR2 "$pid" ;;
*--now*) [ -z "$pid" ] || kill -TERM "$pid" ;;
esac
`

// machine is a folder that packages are installed below as on a machine of its own: it has
// a shell and what their scripts call, and nothing else.
type machine struct {
	t    *testing.T
	root string
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	root, err := os.MkdirTemp("", "gv") // a short path, for sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	m := &machine{t, root}
	for _, dir := range []string{"bin", "etc", "proc", "dev", "tmp", "run/systemd/system", "usr/bin", "var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../run", m.path("/var/run")); err != nil {
		t.Fatal(err)
	}
	m.write("/var/lib/dpkg/status", "", 0o644)
	m.write("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n", 0o644)
	m.write("/etc/group", "root:x:0:\n", 0o644)
	m.write("/dev/null", "", 0o666)
	m.write("/usr/bin/systemctl", systemctl, 0o755)
	m.copyProgram("sh", "/bin/sh")
	for _, name := range []string{"cat", "grep", "id", "useradd", "chroot", "mount"} {
		m.copyProgram(name, "/usr/bin/"+name)
	}
	return m
}

func (m *machine) path(name string) string { return m.root + name }

func (m *machine) write(name, text string, mode os.FileMode) {
	m.t.Helper()
	if err := os.WriteFile(m.path(name), []byte(text), mode); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) read(name string) string {
	m.t.Helper()
	b, err := os.ReadFile(m.path(name))
	if err != nil {
		m.t.Fatal(err)
	}
	return string(b)
}

func (m *machine) has(name string) bool {
	_, err := os.Lstat(m.path(name))
	return err == nil
}

// copyProgram copies a program of the host, and the libraries that it is linked with.
func (m *machine) copyProgram(name, to string) {
	m.t.Helper()
	from, err := exec.LookPath(name)
	if err != nil {
		m.t.Fatal(err)
	}
	m.copy(from, to)
	out, err := exec.Command("ldd", from).Output()
	if err != nil {
		return // it is linked with none
	}
	for _, word := range strings.Fields(string(out)) {
		if strings.HasPrefix(word, "/") && !m.has(word) {
			m.copy(word, word)
		}
	}
}

func (m *machine) copy(from, to string) {
	m.t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(m.path(to)), 0o755)
	}
	if err != nil {
		m.t.Fatal(err)
	}
	m.write(to, string(b), 0o755)
}

// chroot is a command of the machine.
func (m *machine) chroot(name string, args ...string) *exec.Cmd {
	c := exec.CommandContext(m.t.Context(), name, args...)
	c.SysProcAttr = &syscall.SysProcAttr{Chroot: m.root}
	c.Dir = "/"
	c.Env = []string{"PATH=/usr/sbin:/usr/bin:/bin"}
	return c
}

// run runs a command of the machine, which must succeed.
func (m *machine) run(name string, args ...string) string {
	m.t.Helper()
	out, err := m.chroot(name, args...).CombinedOutput()
	if err != nil {
		m.t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// packager is what installs packages below a folder.
type packager struct {
	tool    string
	suffix  string
	install func(root, file string) *exec.Cmd
	remove  func(root string) *exec.Cmd
	// kept is where a configuration that was changed is after the removal.
	kept string
	zsh  string
}

func dpkg(root string, args ...string) *exec.Cmd {
	return exec.Command("dpkg", append([]string{"--root=" + root, "--force-not-root", "--log=" + root + "/dpkg.log"}, args...)...)
}

func packagers() []packager {
	return []packager{{
		tool: "dpkg", suffix: ".deb",
		install: func(root, file string) *exec.Cmd { return dpkg(root, "-i", file) },
		remove:  func(root string) *exec.Cmd { return dpkg(root, "-r", "gvirstor") },
		kept:    "/etc/ggated-virstor.conf", zsh: "/usr/share/zsh/vendor-completions/_gvirstor",
	}, {
		tool: "rpm", suffix: ".rpm",
		// What it needs is there, but of no package.
		install: func(root, file string) *exec.Cmd { return exec.Command("rpm", "--root", root, "-U", "--nodeps", file) },
		remove:  func(root string) *exec.Cmd { return exec.Command("rpm", "--root", root, "-e", "gvirstor") },
		kept:    "/etc/ggated-virstor.conf.rpmsave", zsh: "/usr/share/zsh/site-functions/_gvirstor",
	}}
}

// build makes the packages of a version, for this machine.
func build(t *testing.T, version string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	cmd := exec.Command("sh", root+"/tests/packages.sh", version)
	cmd.Env = append(os.Environ(), "DIST="+dir, "ARCHS="+runtime.GOARCH)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("packages of %s: %v\n%s", version, err, out)
	}
	return dir
}

// client writes blocks and reads them back, one after the other, over one connection until
// it is stopped.
type client struct {
	m       *machine
	stop    chan struct{}
	ended   sync.WaitGroup
	mu      sync.Mutex
	written []uint64 // by block: the number that was written last and acknowledged
	count   uint64
	err     error
}

const blocks, blockSize = 256, 8192

func pattern(n uint64) []byte {
	return bytes.Repeat(binary.BigEndian.AppendUint64(nil, n), blockSize/8)
}

func (m *machine) connect(ctx context.Context) (*nbdclient.Conn, error) {
	return nbdclient.Dial(ctx, "nbd+unix:///vol?socket="+m.path("/run/virstor.nbd"), nbdclient.Options{})
}

func (m *machine) newClient() *client {
	c := &client{m: m, stop: make(chan struct{}), written: make([]uint64, blocks)}
	nc, err := m.connect(m.t.Context())
	if err != nil {
		m.t.Fatal(err)
	}
	c.ended.Go(func() {
		defer nc.Abort()
		c.err = c.load(nc)
	})
	return c
}

func (c *client) stopped() bool {
	select {
	case <-c.stop:
		return true
	default:
		return false
	}
}

// load writes and reads over a connection that lasts.
func (c *client) load(nc *nbdclient.Conn) error {
	b := make([]byte, blockSize)
	for !c.stopped() {
		n := c.count + 1
		at := int64(n % blocks)
		if _, err := nc.WriteAt(pattern(n), at*blockSize); err != nil {
			return err
		}
		c.mu.Lock()
		c.count, c.written[at] = n, n
		c.mu.Unlock()
		if _, err := nc.ReadAt(b, at*blockSize); err != nil {
			return err
		}
		if !bytes.Equal(b, pattern(n)) {
			return fmt.Errorf("block %d does not hold what was written last", at)
		}
	}
	return nil
}

// more waits until the client has written more.
func (c *client) more() {
	c.m.t.Helper()
	total := func() uint64 { c.mu.Lock(); defer c.mu.Unlock(); return c.count }
	before := total()
	c.m.until("the client writes", func() bool { return total() > before+200 })
}

// end stops the client, and reads all that it has written.
func (c *client) end() {
	c.m.t.Helper()
	close(c.stop)
	c.ended.Wait()
	if c.err != nil {
		c.m.t.Fatal(c.err)
	}
	nc, err := c.m.connect(c.m.t.Context())
	if err != nil {
		c.m.t.Fatal(err)
	}
	defer nc.Abort()
	b := make([]byte, blockSize)
	for at, n := range c.written {
		if n == 0 {
			continue
		}
		if _, err := nc.ReadAt(b, int64(at)*blockSize); err != nil {
			c.m.t.Fatal(err)
		}
		if !bytes.Equal(b, pattern(n)) {
			c.m.t.Errorf("block %d does not hold what was written last", at)
		}
	}
}

func (m *machine) until(what string, is func() bool) {
	m.t.Helper()
	for late := time.Now().Add(patience); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(late) {
			log, _ := os.ReadFile(m.path("/daemon.log"))
			m.t.Fatalf("never: %s\n%s", what, log)
		}
	}
}

// start starts the daemon of the machine, and returns what is closed when it has ended.
func (m *machine) start() <-chan struct{} {
	m.t.Helper()
	log, err := os.Create(m.path("/daemon.log"))
	if err != nil {
		m.t.Fatal(err)
	}
	// It looks itself up below /proc, which is its own.
	cmd := exec.Command("unshare", "--mount", "sh", "-c", `mount -t proc proc "$0/proc" && exec chroot "$0" /usr/sbin/ggated-virstor --pid-file /run/daemon.pid`, m.root)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
		log.Close()
	}()
	m.t.Cleanup(func() {
		_ = cmd.Process.Kill() // if it runs still
		<-ended
	})
	m.until("the daemon serves", func() bool {
		return m.chroot("/usr/sbin/gvirstor", "status", "vol").Run() == nil
	})
	return ended
}

// TestAPackageIsUpgradedUnderLoadAndRemovedButForWhatIsTheAdministrators installs, upgrades
// and removes with the systems' own tools.
func TestAPackageIsUpgradedUnderLoadAndRemovedButForWhatIsTheAdministrators(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if testing.Short() {
		t.Skip("builds packages")
	}
	for _, tool := range []string{"dpkg", "rpm"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("GVIRSTOR_REQUIRE_TOOLS") == "1" {
				t.Fatalf("%s is not installed", tool)
			}
			t.Skipf("%s is not installed", tool)
		}
	}
	older, newer := build(t, "0.1.0"), build(t, "0.2.0")
	for _, p := range packagers() {
		t.Run(p.tool, func(t *testing.T) { upgradeAndRemove(t, p, older, newer) })
	}
	t.Run("systemd", func(t *testing.T) { underSystemd(t, older, newer) })
}

func upgradeAndRemove(t *testing.T, p packager, older, newer string) {
	m := newMachine(t)
	before := files(t, m.root)
	if out, err := p.install(m.root, packageIn(t, older, p)).CombinedOutput(); err != nil {
		t.Fatalf("install: %v\n%s", err, out)
	}
	for _, name := range []string{"/usr/sbin/gvirstor", "/usr/share/man/man8/ggated-virstor.8", "/usr/lib/systemd/system/ggated-virstor.service", p.zsh,
		"/usr/share/bash-completion/completions/gvirstor", "/usr/share/fish/vendor_completions.d/gvirstor.fish", "/etc/ggated-virstor.conf"} {
		if !m.has(name) {
			t.Errorf("%s is not installed", name)
		}
	}
	for _, name := range []string{"/usr/sbin/uvirstor", "/etc/rc.d", "/usr/etc", "/usr/lib/gvirstor", "/etc/ggated-virstor.conf.sample"} {
		if m.has(name) {
			t.Errorf("%s is installed on Linux", name)
		}
	}
	if text := m.read("/usr/lib/systemd/system/ggated-virstor.service"); strings.Contains(text, "/usr/local") {
		t.Errorf("the service names another prefix: %s", text)
	}
	if !strings.Contains(m.read("/etc/passwd"), "\ngvirstor:") {
		t.Error("the worker's user is not made")
	}
	if log := m.read("/systemctl.log"); strings.Contains(log, "start") || strings.Contains(log, "enable") {
		t.Errorf("the service is started unasked: %s", log)
	}

	const conf = "provider = /disk0\nnbd = unix:/run/virstor.nbd\n"
	m.write("/etc/ggated-virstor.conf", conf, 0o644)
	m.write("/disk0", "", 0o600)
	if err := os.Truncate(m.path("/disk0"), 64<<20); err != nil {
		t.Fatal(err)
	}
	m.run("/usr/sbin/gvirstor", "label", "-s", "256m", "-m", "1m", "vol", "/disk0")
	ended := m.start()
	c := m.newClient()
	c.more()
	if out, err := p.install(m.root, packageIn(t, newer, p)).CombinedOutput(); err != nil || !strings.Contains(string(out), "goes on as the new program") {
		t.Fatalf("upgrade: %v\n%s", err, out)
	}
	m.until("the new program serves", func() bool { return strings.Contains(m.read("/daemon.log"), "version=0.2.0") })
	c.more()
	if got := m.read("/etc/ggated-virstor.conf"); got != conf {
		t.Errorf("the upgrade has changed the configuration: %s", got)
	}

	out, err := p.remove(m.root).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "NBD clients are connected") || !m.has("/usr/sbin/ggated-virstor") {
		t.Errorf("with clients: %v\n%s", err, out)
	}
	c.more()
	c.end()
	m.until("the clients are gone", func() bool {
		return !strings.Contains(m.run("/usr/sbin/gvirstor", "clients", "--json"), `"volume"`)
	})
	if out, err := p.remove(m.root).CombinedOutput(); err != nil {
		t.Fatalf("remove: %v\n%s", err, out)
	}
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("the service is not ended")
	}
	if got := m.read(p.kept); got != conf {
		t.Errorf("the configuration became %s", got)
	}
	left := slices.DeleteFunc(files(t, m.root), func(name string) bool {
		return slices.Contains(before, name) || !strings.Contains(name, "virstor") || strings.HasPrefix(name, "var/") || strings.HasPrefix(name, "run/") || "/"+name == p.kept
	})
	if len(left) > 0 {
		t.Errorf("left %q", left)
	}
	if backups, err := fs.Glob(os.DirFS(m.root), "var/db/gvirstor/*"); err != nil || len(backups) == 0 {
		t.Errorf("the backups of metadata are gone (%v)", err)
	}
}

func packageIn(t *testing.T, dir string, p packager) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "*"+p.suffix))
	if err != nil || len(found) != 1 {
		t.Fatalf("%q, %v", found, err)
	}
	return found[0]
}
