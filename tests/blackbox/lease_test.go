package blackbox

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The times of leases in these tests: a term is 11/9 of three intervals and the settling
// time.
var leaseFlags = []string{"--lease-interval=200ms", "--lease-settle=1s", "--nbd-component-timeout=1s", "--nbd-component-grace=100ms"}

// export has a server of its own for image, at a path in dir, which lets other servers have
// the image, too.
func (s *site) export(i int, image string) string {
	s.t.Helper()
	need(s.t, "qemu-nbd")
	socket, pid := s.serverSocket(i), filepath.Join(s.dir, fmt.Sprint("pid", i))
	server := exec.Command("qemu-nbd", "--persistent", "-e", "16", "-x", fmt.Sprint("image", i), "-k", socket, "--pid-file="+pid,
		"--image-opts", "driver=raw,file.driver=file,file.locking=off,file.filename="+image)
	if err := server.Start(); err != nil {
		s.t.Fatal(err)
	}
	if s.servers == nil {
		s.servers = make(map[int]*exec.Cmd)
	}
	s.servers[i] = server
	s.t.Cleanup(func() {
		s.kill()
		if s.servers[i] != nil {
			s.endServer(i)
		}
	})
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(pid); err == nil {
			return fmt.Sprintf("nbd+unix:///image%d?socket=%s", i, socket)
		}
		if time.Now().After(end) {
			s.t.Fatalf("the server of %s does not serve", image)
		}
	}
}

// twoHosts are two sites, each with servers of its own for the same images, on which a
// volume is.
func twoHosts(t *testing.T) (a, b *site) {
	a = newSite(t, 64<<20, 64<<20)
	b = newSite(t)
	images := a.files
	a.files = nil
	for i, image := range images {
		a.files = append(a.files, a.export(i, image))
		b.files = append(b.files, b.export(i, image))
	}
	a.label("-m", "1m", "-s", "256m")
	return a, b
}

// changed are the first and the last byte in which two images differ; both 0: in none.
func changed(a, b []byte) (first, last int) {
	for i := range a {
		if a[i] != b[i] {
			if first == 0 {
				first = i
			}
			last = i
		}
	}
	return first, last
}

// servesNothing reports whether the daemon serves no volume any more.
func (s *site) servesNothing() bool {
	out, err := s.tryGvirstor("status", "--json")
	return err == nil && strings.Contains(out, `"volumes": []`)
}

// TestAVolumeMovesFromAHostThatIsStoppedToAnother: the owner is stopped beyond its lease,
// and the other host takes the volume over, which has the first one's connections cut. What
// the second writes is there when the first goes on: that ends its service, and sends
// nothing.
func TestAVolumeMovesFromAHostThatIsStoppedToAnother(t *testing.T) {
	need(t, "fio")
	a, b := twoHosts(t)
	a.start(append([]string{"--supervise=no"}, leaseFlags...)...) // a host that stops does with all its processes
	a.until("the status of the owner says so", func() bool {
		out := a.gvirstor("status")
		return strings.Contains(out, "leased to this host") && strings.Contains(out, "not fenced")
	})
	fio := func(s *site, rw string) string {
		out, err := try(t, "fio", "--name=v", "--ioengine=nbd", "--uri="+s.uri(), "--rw="+rw, "--bs=16k", "--iodepth=16",
			"--size=32M", "--verify=crc32c", "--verify_fatal=1", "--fsync=64", "--output-format=terse", "--aux-path="+s.dir)
		if err != nil {
			return fmt.Sprintf("%v\n%s", err, out)
		}
		return ""
	}
	if why := fio(a, "randwrite"); why != "" {
		t.Fatal(why)
	}
	client := a.dial()
	if err := a.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	// What the stopped one has sent is answered by now; what it sends later must not be.
	var fence []string
	for i := range a.files {
		fence = append(fence, fmt.Sprintf("kill -9 %d", a.servers[i].Process.Pid))
	}
	told := filepath.Join(b.dir, "fenced")
	fence = append(fence, `echo "$GVIRSTOR_VOLUME $GVIRSTOR_COMPONENTS" > `+told)
	begin := time.Now()
	b.start(append([]string{"--fence-command=" + strings.Join(fence, "; ")}, leaseFlags...)...)
	took := time.Since(begin)
	if least := 2 * 11 * (600*time.Millisecond + time.Second) / 9; took < least {
		t.Errorf("taken over after %v, two terms are %v", took, least)
	}
	b.said("fencing off who has the lease")
	if text, err := os.ReadFile(told); err != nil || !strings.HasPrefix(string(text), "vol nbd+unix:///image0?") {
		t.Errorf("the fence command was told %q, %v", text, err)
	}
	if why := fio(b, "randwrite"); why != "" {
		t.Fatal(why)
	}
	images := make([][]byte, len(a.files))
	for i := range a.files { // the first host reaches the images again
		_ = a.servers[i].Wait() // it was killed
		delete(a.servers, i)
		if err := os.Remove(a.serverSocket(i)); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		if err := os.RemoveAll(filepath.Join(a.dir, fmt.Sprint("pid", i))); err != nil {
			t.Fatal(err)
		}
		image := filepath.Join(a.dir, fmt.Sprint("component", i))
		a.export(i, image)
		var err error
		if images[i], err = os.ReadFile(image); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if _, err := client.WriteAt(make([]byte, 4096), 1<<20); err == nil {
		t.Error("the first host acknowledges a write")
	}
	a.said("another host has the volume")
	a.until("the first host serves nothing", a.servesNothing)
	if out := a.gvirstor("status"); strings.Contains(out, "leased to this host") {
		t.Errorf("status of the first host:\n%s", out)
	}
	for i, before := range images {
		now, err := os.ReadFile(filepath.Join(a.dir, fmt.Sprint("component", i)))
		if err != nil {
			t.Fatal(err)
		}
		if first, last := changed(before, now); first/4096 != last/4096 {
			t.Errorf("image %d was changed from %d to %d, when the second host did nothing but renew its lease", i, first, last)
		}
	}
	if why := fio(b, "read"); why != "" {
		t.Error(why)
	}
	b.term()
	if out := b.gvirstor(append([]string{"check"}, b.files...)...); !strings.Contains(out, "No errors.") {
		t.Errorf("check:\n%s", out)
	}
}

// TestAVolumeThatAnotherHostServesIsRefused: to a daemon, to who changes it and to who reads
// it, until the other one has ended.
func TestAVolumeThatAnotherHostServesIsRefused(t *testing.T) {
	a, b := twoHosts(t)
	a.start(leaseFlags...)
	b.launch(leaseFlags...)
	b.said("stop the volume there first")
	b.term()
	for _, args := range [][]string{{"rename", "vol", "other"}, {"list", "-t", "snapshot", "vol"}} {
		args = append([]string{args[0], "--offline", strings.Join(b.files, ","), "--run-dir", b.dir, "--state-dir", filepath.Join(b.dir, "state")}, args[1:]...)
		if out, err := b.tryGvirstor(args...); err == nil || !strings.Contains(out, "another host has the lease") {
			t.Errorf("%q beside the owner: %v\n%s", args, err, out)
		}
	}
	a.term()
	begin := time.Now()
	b.start(leaseFlags...)
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("a lease that was released was waited for %v", took)
	}
	b.term()
}

// TestADaemonThatDiedGoesOnWithItsLease: nobody else can have it.
func TestADaemonThatDiedGoesOnWithItsLease(t *testing.T) {
	a, _ := twoHosts(t)
	flags := append([]string{"--lease-interval=10s", "--lease-settle=10m"}, leaseFlags[2:]...)
	a.start(flags...)
	a.kill()
	begin := time.Now()
	a.start(flags...)
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("the own lease was waited for %v", took)
	}
	a.term()
}

// TestALeaseThatHasRunOutIsTold: the log and the status say so while a server that hangs gives
// no answer, and the volume goes on when it does.
func TestALeaseThatHasRunOutIsTold(t *testing.T) {
	a, _ := twoHosts(t)
	a.start("--lease-interval=200ms", "--nbd-component-timeout=1m")
	if err := a.servers[0].Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	a.said("the lease could not be renewed in time: nothing is sent to any component")
	// On a machine that stood still it may have been said of the time before.
	a.until("the status says so", func() bool {
		out := a.gvirstor("status")
		return strings.Contains(out, "no lease") && strings.Contains(out, "has run out") && !strings.Contains(out, "leased to this host")
	})
	a.until("the list says so", func() bool { return strings.Contains(a.gvirstor("list"), ", run out, not fenced") })
	if err := a.servers[0].Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err := writeAndFlush(a); err != nil {
		t.Error(err)
	}
	a.until("the status says that it is renewed", func() bool {
		out := a.gvirstor("status")
		return !strings.Contains(out, "no lease") && strings.Contains(out, "leased to this host")
	})
	a.term()
}

// TestWhoWaitsForALeaseSaysForWhose: the daemon answers meanwhile, and ends when it is
// asked to.
func TestWhoWaitsForALeaseSaysForWhose(t *testing.T) {
	a, b := twoHosts(t)
	a.start(leaseFlags...)
	a.kill()
	b.launch(append([]string{"--lease-interval=10s", "--lease-settle=10m"}, leaseFlags[2:]...)...)
	b.until("it answers", func() bool { _, err := b.tryGvirstor("status"); return err == nil })
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	b.until("it says what it waits for", func() bool {
		out, err := b.tryGvirstor("status")
		return err == nil && strings.Contains(out, "waiting for the lease of "+host)
	})
	// By this a unit of systemd waits, as gvirstor(8) has it.
	if out, err := b.tryGvirstor("status", "-s", "vol"); err == nil || !strings.Contains(out, "waiting for the lease of "+host) {
		t.Errorf("status of the volume that waits: %v\n%s", err, out)
	}
	b.term()
	b.start(append([]string{"--takeover=vol"}, leaseFlags...)...)
	b.gvirstor("status", "-s", "vol")
	b.term()
}

// TestVerbsThatDoNotOpenTheVolumeLookAtTheLease: beside the owner all of them are refused,
// by the name of his host, and change nothing; those that read work, and show it. When he
// has died --takeover is asked for, and works.
func TestVerbsThatDoNotOpenTheVolumeLookAtTheLease(t *testing.T) {
	a, b := twoHosts(t)
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	saved := filepath.Join(b.dir, "saved")
	here := []string{"--run-dir", b.dir}
	notes := append([]string{"--state-dir", filepath.Join(b.dir, "state")}, here...)
	on := func(verb string, flags []string, operands ...string) []string {
		return append(append(append([]string{verb}, flags...), operands...), b.files...)
	}
	b.gvirstor(on("backup", nil, saved)...)
	a.start(leaseFlags...)
	writing := [][]string{
		on("clear", here), on("label", append([]string{"-f", "-m", "1m", "-s", "256m"}, here...), "new"), on("label", append([]string{"-fn", "-m", "1m", "-s", "256m"}, here...), "new"),
		on("repair", append([]string{"-y"}, notes...)), on("repair", notes), on("restore", append([]string{"-f"}, notes...), saved), on("restore", append([]string{"-fn"}, notes...), saved),
	}
	refused := func(whose string) {
		t.Helper()
		for _, args := range writing {
			if out, err := b.tryGvirstor(args...); err == nil || !strings.Contains(out, "another host has the lease: "+host) || !strings.Contains(out, "--takeover") {
				t.Errorf("%s of %s: %v\n%s", args[:2], whose, err, out)
			}
		}
		for i, f := range b.files { // one of them alone
			out, err := b.tryGvirstor(append(append([]string{"clear"}, here...), f)...)
			if why := map[int]string{0: "another host has the lease", 1: "where the lease is"}[i]; err == nil || !strings.Contains(out, why) {
				t.Errorf("clear of component %d of %s: %v\n%s", i, whose, err, out)
			}
		}
	}
	refused("a living host")
	for verb, want := range map[string]string{"check": "leased to " + host + " since ", "dump": "Lease: of " + host + " since "} {
		if out, err := b.tryGvirstor(on(verb, nil)...); err != nil || !strings.Contains(out, want) {
			t.Errorf("%s: %v\n%s", verb, err, out)
		}
	}
	if out := a.gvirstor("list"); !strings.Contains(out, "Lease: of "+host+" since ") {
		t.Errorf("list:\n%s", out)
	}
	if err := writeAndFlush(a); err != nil { // who has it has noticed nothing
		t.Error(err)
	}
	a.kill()
	refused("a dead host")
	b.gvirstor(on("repair", append([]string{"-y", "--takeover"}, notes...))...)
	if out := b.gvirstor(on("dump", nil)...); !strings.Contains(out, ", released\n") {
		t.Errorf("the lease after a repair:\n%s", out)
	}
	b.gvirstor(on("restore", append([]string{"-f"}, notes...), saved)...)
	b.gvirstor(on("check", nil)...)
	b.gvirstor(on("label", append([]string{"-f", "-m", "1m", "-s", "256m"}, here...), "vol")...)
	b.start(leaseFlags...)
	b.term()
	b.gvirstor(on("clear", here)...)
	if out, err := b.tryGvirstor(on("dump", nil)...); err == nil {
		t.Errorf("dump after clear:\n%s", out)
	}
}

// isLeased reports whether the volume has a lease that has not run out, as it does for a
// moment on a machine that stands still.
func (s *site) isLeased() bool {
	l := s.status().Lease
	return l != nil && l.LeftSeconds > 0
}

// writeAndFlush writes to the site's volume.
func writeAndFlush(s *site) error {
	c := s.dial()
	if _, err := c.WriteAt(make([]byte, 4096), 1<<20); err != nil {
		return err
	}
	return c.Flush()
}

// TestTheLeaseGoesOnThroughTheDeathAndTheUpgradeOfAWorker: it is the same one, which is not
// waited for, and it is renewed: another host finds it alive.
func TestTheLeaseGoesOnThroughTheDeathAndTheUpgradeOfAWorker(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root")
	}
	a, b := twoHosts(t)
	a.start(append([]string{"--supervise=yes", "--lease-interval=1s", "--lease-settle=10m"}, leaseFlags[2:]...)...)
	taken := a.status().Lease
	if taken == nil {
		t.Fatal("there is no lease")
	}
	for what, end := range map[string]func(worker int) error{
		"death":   func(worker int) error { return syscall.Kill(worker, syscall.SIGKILL) },
		"upgrade": func(int) error { return a.cmd.Process.Signal(syscall.SIGUSR2) },
	} {
		old, begin := a.worker(), time.Now()
		if err := end(old); err != nil {
			t.Fatal(err)
		}
		a.nextWorker(old)
		if took := time.Since(begin); took > 30*time.Second {
			t.Errorf("%s: the own lease was waited for %v", what, took)
		}
		if is := a.status().Lease; is == nil || !is.Since.Equal(taken.Since) {
			t.Errorf("%s: the lease was %+v, and is %+v", what, taken, is)
		}
		a.until("the lease is renewed", a.isLeased)
		if err := writeAndFlush(a); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	b.launch(leaseFlags...)
	b.said("stop the volume there first")
	b.term()
	a.term()
}

// TestASupervisorFencesForItsWorker: the worker can run nothing.
func TestASupervisorFencesForItsWorker(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root")
	}
	a, b := twoHosts(t)
	a.start(append([]string{"--supervise=no"}, leaseFlags...)...)
	if err := writeAndFlush(a); err != nil {
		t.Fatal(err)
	}
	if err := a.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	refusal, told := filepath.Join(b.dir, "refusal"), filepath.Join(b.dir, "fenced")
	if err := os.WriteFile(refusal, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	fence := fmt.Sprintf(`--fence-command=[ ! -e %s ] && echo "$PPID $GVIRSTOR_VOLUME $GVIRSTOR_HOST" > %s`, refusal, told)
	flags := append([]string{"--supervise=yes", fence}, leaseFlags...)
	b.launch(flags...)
	b.said("fence off who has the lease") // which fails, so that nothing is taken
	if status, err := b.tryGvirstor("status"); err == nil && strings.Contains(status, "leased to this host") {
		t.Errorf("it has the lease of a host that was not fenced off:\n%s", status)
	}
	b.kill()
	if err := os.Remove(refusal); err != nil {
		t.Fatal(err)
	}
	b.start(flags...)
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(told); err != nil || string(text) != fmt.Sprintf("%d vol %s\n", b.cmd.Process.Pid, host) {
		t.Errorf("%q, %v; the supervisor is %d", text, err, b.cmd.Process.Pid)
	}
	if out := b.gvirstor("status"); strings.Contains(out, "not fenced") {
		t.Errorf("status:\n%s", out)
	}
	a.kill()
	b.term()
}

// TestADiskOfADeadHostIsServedWithoutASharedWay: who has the images as files, which may be
// no other host's any more, says that the one who has the lease is dead.
func TestADiskOfADeadHostIsServedWithoutASharedWay(t *testing.T) {
	a, _ := twoHosts(t)
	a.start(append([]string{"--supervise=no"}, leaseFlags...)...)
	a.kill()
	c := newSite(t)
	for i := range a.files {
		a.endServer(i)
		c.files = append(c.files, filepath.Join(a.dir, fmt.Sprint("component", i)))
	}
	c.launch()
	c.said("dead for certain, with --takeover vol")
	<-c.done
	c.start("--takeover=vol")
	c.term()
}

// TestTheFirstComponentThatOthersReachBringsALease: before it is a component, and while the
// volume is written to.
func TestTheFirstComponentThatOthersReachBringsALease(t *testing.T) {
	s := newSite(t, 64<<20)
	image := s.file("image", 64<<20)
	uri, elsewhere := s.export(0, image), s.export(1, image)
	s.label("-m", "1m", "-s", "256m")
	s.start(leaseFlags...)
	if s.status().Lease != nil {
		t.Fatal("there is a lease on what nobody else reaches")
	}
	s.gvirstor("add", "vol", uri)
	s.until("there is a lease", s.isLeased)
	if err := writeAndFlush(s); err != nil {
		t.Error(err)
	}
	if out, err := s.tryGvirstor("clear", "--run-dir", filepath.Join(s.dir, "elsewhere"), elsewhere); err == nil || !strings.Contains(out, "where the lease is") {
		t.Errorf("clear of the new component: %v\n%s", err, out)
	}
	s.term()
	if out := s.gvirstor("dump", s.files[0]); !strings.Contains(out, ", released\n") {
		t.Errorf("the lease afterwards:\n%s", out)
	}
	s.files = append(s.files, uri)
	s.start(leaseFlags...)
	if s.status().Lease == nil {
		t.Error("there is no lease after a restart")
	}
	s.term()
}

// TestAComponent0ThatCannotHoldTheLeaseIsReadOnly: its server takes no writes.
func TestAComponent0ThatCannotHoldTheLeaseIsReadOnly(t *testing.T) {
	need(t, "nbdkit")
	s := newSite(t, 64<<20, 64<<20)
	s.label("-m", "1m", "-s", "256m")
	s.start()
	if err := writeAndFlush(s); err != nil {
		t.Fatal(err)
	}
	s.term()
	socket, refuse := filepath.Join(s.dir, "refusing"), filepath.Join(s.dir, "refuse")
	if err := os.WriteFile(refuse, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	server := exec.Command("nbdkit", "-f", "-U", socket, "--filter=error", "file", s.files[0], "error-pwrite=EIO", "error-pwrite-rate=100%", "error-file="+refuse)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.kill()
		_ = server.Process.Kill()
		_ = server.Wait()
	})
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(socket); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the server does not serve")
		}
	}
	s.files[0] = "nbd+unix:///?socket=" + socket
	s.launch(leaseFlags...)
	<-s.done
	if out := s.log.String(); !strings.Contains(out, "component 0 does not take the lease") || !strings.Contains(out, "--read-only") {
		t.Errorf("a daemon said:\n%s", out)
	}
	s.start("--read-only")
	c := s.dial()
	if _, err := c.ReadAt(make([]byte, 4096), 1<<20); err != nil {
		t.Error(err)
	}
	s.term()
}

// TestWhatIsOfALeasedVolumeIsTakenByNobody: be it another component than that with the lease,
// which is beside it, and whatever force is used; the host that has the lease is named.
func TestWhatIsOfALeasedVolumeIsTakenByNobody(t *testing.T) {
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	a, _ := twoHosts(t)
	older, err := os.ReadFile(filepath.Join(a.dir, "component0"))
	if err == nil { // it has no lease, and is found first
		err = os.WriteFile(filepath.Join(a.dir, "an older copy"), older, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	a.start(append([]string{"--supervise=no"}, leaseFlags...)...)
	a.kill()
	var images []string
	for i := range a.files {
		a.endServer(i)
		images = append(images, filepath.Join(a.dir, fmt.Sprint("component", i)))
	}
	b := newSite(t, 64<<20)
	here := filepath.Join(b.dir, "run")
	b.label("-m", "1m", "-s", "256m")
	b.start()
	spare := b.file("spare", 64<<20)
	for i, image := range images {
		before, err := os.ReadFile(image)
		if err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{
			{"clear", "--run-dir", here, image}, {"label", "-f", "-m", "1m", "-s", "256m", "--run-dir", here, "new", image, spare},
			{"add", "-f", "vol", image}, {"spare", "-f", "vol", image}, {"replace", "-f", "vol", b.files[0], image},
		} {
			if out, err := b.tryGvirstor(args...); err == nil || !strings.Contains(out, "another host has the lease: "+host) {
				t.Errorf("%s of component %d: %v\n%s", args[0], i, err, out)
			}
		}
		if after, err := os.ReadFile(image); err != nil || !bytes.Equal(before, after) {
			t.Errorf("component %d was changed: %v", i, err)
		}
	}
	b.gvirstor("clear", "--takeover", "--run-dir", here, images[1])
	b.gvirstor("add", "-f", "vol", images[1])
	b.term()
}

// TestABusyComponentSaysWhoHasIt: what is served here is stopped first.
func TestABusyComponentSaysWhoHasIt(t *testing.T) {
	a, _ := twoHosts(t)
	a.start(leaseFlags...)
	for _, args := range [][]string{{"reclaim", "--run-dir", a.dir, "--offline", a.files[0] + "," + a.files[1], "vol"}, {"clear", a.files[1]}, {"repair", a.files[0], a.files[1]}} {
		if out, err := a.tryGvirstor(args...); err == nil || !strings.Contains(out, "the daemon serves vol with it: `gvirstor stop vol` first") {
			t.Errorf("%s: %v\n%s", args[0], err, out)
		}
	}
	a.term()
}
