package install

import (
	"cmp"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// boot makes a machine in namespaces of its own, with the files of this one below a layer
// that is thrown away, and has systemd run there. Its devices are six, it sees no disk and
// no network, and of the kernel's settings it can change none. $1 is where its root is.
const boot = `
set -eu
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/m"
m=$1/m
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$m"
mount -t proc proc "$m/proc"
mount --bind "$m/proc/sys" "$m/proc/sys"
mount -o remount,bind,ro "$m/proc/sys"
mount -t sysfs -o ro sysfs "$m/sys"
mount -t tmpfs tmpfs "$m/run"
mount -t tmpfs tmpfs "$m/tmp"
mount -t tmpfs tmpfs "$m/dev"
for d in null zero full random urandom tty; do
	: >"$m/dev/$d"
	mount --bind "/dev/$d" "$m/dev/$d"
done
mkdir "$m/dev/shm" "$m/dev/pts"
ln -s /proc/self/fd "$m/dev/fd"
mount -t tmpfs tmpfs "$m/dev/shm"
mount -t tmpfs tmpfs "$m/sys/fs/cgroup"
mkdir "$m/sys/fs/cgroup/systemd"
mount -t cgroup -o none,name=systemd cgroup "$m/sys/fs/cgroup/systemd" 2>/dev/null ||
	{ umount "$m/sys/fs/cgroup"; mount -t cgroup2 cgroup2 "$m/sys/fs/cgroup"; }
rm -f "$m/etc/machine-id" "$m"/etc/systemd/system/*.wants/*
mkdir -p "$m/etc/systemd/system"
printf '[Unit]\nWants=systemd-journald.service\n' >"$m/etc/systemd/system/test.target"
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot "$m" /lib/systemd/systemd --system --unit=test.target --log-target=null --show-status=0
`

// ownGroup has what follows run in a control group of its own, of which it sees nothing above.
const ownGroup = `
set -eu
base=/sys/fs/cgroup
[ ! -d $base/systemd ] || base=$base/systemd
mkdir "$base/$2"
echo $$ >"$base/$2/cgroup.procs"
exec unshare --cgroup --mount --pid --fork --kill-child --uts --ipc --net sh -c "$3" sh "$1"
`

// booted is a machine that systemd runs.
type booted struct {
	*machine
	pid string // of its systemd, as seen from here
}

// newBooted returns when systemd serves; it is skipped where this machine may not make
// another one.
func newBooted(t *testing.T) *booted {
	t.Helper()
	dir := t.TempDir()
	group := "gvirstor-" + strconv.Itoa(os.Getpid())
	said, err := os.Create(filepath.Join(t.TempDir(), "said"))
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	cmd := exec.Command("sh", "-c", ownGroup, "sh", dir, group, boot)
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // and, by --kill-child, all of the machine
		<-ended
		removeGroups(t, group)
	})
	b := &booted{machine: &machine{t: t}}
	for late := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		select {
		case <-ended:
			text, _ := os.ReadFile(said.Name())
			t.Skipf("this machine may not run another systemd: %s", text)
		default:
		}
		if b.find(cmd.Process.Pid) && b.command("systemctl", "is-active", "test.target").Run() == nil {
			t.Cleanup(func() {
				if t.Failed() {
					t.Log(b.journal())
				}
			})
			return b
		}
		if time.Now().After(late) {
			t.Fatal("systemd does not serve")
		}
	}
}

// find finds the machine of the unshare with that number.
func (b *booted) find(unshare int) bool {
	n := strconv.Itoa(unshare)
	children, err := os.ReadFile("/proc/" + n + "/task/" + n + "/children")
	b.pid = strings.TrimSpace(string(children))
	b.root = "/proc/" + b.pid + "/root"
	return err == nil && b.pid != ""
}

// removeGroups removes a control group, and what systemd made below it.
func removeGroups(t *testing.T, group string) {
	for _, base := range []string{"/sys/fs/cgroup/systemd", "/sys/fs/cgroup"} {
		for late := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
			var left []string
			_ = filepath.WalkDir(filepath.Join(base, group), func(path string, d os.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					left = append(left, path)
				}
				return nil // it may be gone by now
			})
			for i := range left {
				_ = os.Remove(left[len(left)-1-i])
			}
			if len(left) == 0 {
				break
			}
			if time.Now().After(late) {
				t.Errorf("control groups stay: %q", left)
				break
			}
		}
	}
}

// command is one of the machine.
func (b *booted) command(name string, args ...string) *exec.Cmd {
	c := exec.Command("nsenter", append([]string{"-t", b.pid, "-m", "-u", "-i", "-n", "-p", "-r", "-w", "--", name}, args...)...)
	c.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "SYSTEMD_PAGER=", "DEBIAN_FRONTEND=noninteractive"}
	return c
}

// run runs a command, which must succeed.
func (b *booted) run(name string, args ...string) string {
	b.t.Helper()
	out, err := b.command(name, args...).CombinedOutput()
	if err != nil {
		b.t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// journal is what the service has logged, down to a priority if one is named.
func (b *booted) journal(priority ...string) string {
	out, err := b.command("journalctl", "--no-pager", "-o", "cat", "-u", "ggated-virstor", "-p", cmp.Or(strings.Join(priority, ""), "debug")).CombinedOutput()
	if err != nil {
		b.t.Errorf("journalctl: %v\n%s", err, out)
	}
	return string(out)
}

// property is one of the service's.
func (b *booted) property(name string) string {
	b.t.Helper()
	return strings.TrimSpace(b.run("systemctl", "show", "--value", "-p", name, "ggated-virstor.service"))
}

func (b *booted) logs(what string) {
	b.t.Helper()
	b.until("the log has "+what, func() bool { return strings.Contains(b.journal(), what) })
}

// outlives ends the daemon so, and expects another to serve.
func (b *booted) outlives(signal string) {
	b.t.Helper()
	before := b.property("MainPID")
	b.run("kill", "-"+signal, before)
	b.until("another daemon serves", func() bool {
		return b.property("ActiveState") == "active" && b.property("MainPID") != before
	})
}

// underSystemd is the life of the service on a machine that systemd runs.
func underSystemd(t *testing.T, older, newer string) {
	b := newBooted(t)
	deb := packagers()[0]
	for name, dir := range map[string]string{"/older.deb": older, "/newer.deb": newer} {
		b.copy(packageIn(t, dir, deb), name)
	}
	b.run("dpkg", "-i", "/older.deb")
	b.run("id", "gvirstor")
	units := []string{"ggated-virstor.service", "ggated-virstor.socket"}
	for _, unit := range units {
		if out, _ := b.command("systemctl", "is-active", unit).Output(); string(out) != "inactive\n" {
			t.Errorf("%s is %s unasked", unit, out)
		}
	}
	if out := b.run("systemd-analyze", "verify", "/usr/lib/systemd/system/"+units[0], "/usr/lib/systemd/system/"+units[1]); strings.Contains(out, "ggated-virstor") {
		t.Errorf("the units: %s", out)
	}

	b.write("/etc/ggated-virstor.conf", "provider = /disk0\n", 0o644)
	b.run("truncate", "-s", "64M", "/disk0")
	b.run("gvirstor", "label", "-s", "256m", "-m", "1m", "vol", "/disk0")
	b.run("systemctl", "enable", "--now", units[1])
	c := b.newClient() // for which the service is started
	c.more()
	if state, says := b.property("ActiveState"), b.property("StatusText"); state != "active" || !strings.HasPrefix(says, "vol ") || !strings.HasSuffix(says, "% physical free") {
		t.Errorf("the service is %s: %q", state, says)
	}
	daemon := b.property("MainPID")
	b.run("systemctl", "reload", units[0])
	b.logs("configuration read again")
	if log := b.journal("warning"); strings.Contains(log, "needs a restart") || strings.Contains(log, "msg=ready") {
		t.Errorf("warnings: %s", log)
	}
	c.more()
	if out := b.run("dpkg", "-i", "/newer.deb"); !strings.Contains(out, "goes on as the new program") {
		t.Errorf("upgrade: %s", out)
	}
	b.logs("version=0.2.0")
	c.more()
	c.end()
	b.run("pkill", "-KILL", "-u", "gvirstor") // the worker, whose clients connect again
	b.until("the death of the worker is an error in the log", func() bool { return strings.Contains(b.journal("err"), "the worker died") })
	b.newClient().end()
	if now := b.property("MainPID"); now != daemon {
		t.Errorf("the service is process %s, and was %s", now, daemon)
	}

	b.outlives("KILL")
	b.newClient().end()
	if err := os.MkdirAll(b.path("/etc/systemd/system/ggated-virstor.service.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	b.write("/etc/systemd/system/ggated-virstor.service.d/quick.conf", "[Service]\nWatchdogSec=2\n", 0o644)
	b.run("systemctl", "daemon-reload")
	b.run("systemctl", "restart", units[0])
	b.outlives("STOP") // which its watchdog notices
	b.newClient().end()

	b.run("sh", "-c", "cp /usr/share/doc/gvirstor/examples/gvirstor-snapshot@.* /etc/systemd/system/")
	b.run("systemctl", "daemon-reload")
	b.run("systemctl", "enable", "--now", "gvirstor-snapshot@vol.timer")
	b.run("systemctl", "start", "gvirstor-snapshot@vol.service")
	if out := b.run("gvirstor", "list", "-p", "-t", "snapshot", "vol"); !strings.Contains(out, "vol\tdaily-") {
		t.Errorf("snapshots: %s", out)
	}

	b.run("systemctl", "stop", units[1], units[0])
	if state, result := b.property("ActiveState"), b.property("Result"); state != "inactive" || result != "success" {
		t.Errorf("stopped, the service is %s, %s", state, result)
	}
	b.run("dpkg", "-r", "gvirstor")
	if out, err := b.command("systemctl", "is-enabled", units[1]).CombinedOutput(); err == nil {
		t.Errorf("when it is removed the socket is %s", out)
	}
}
