// Package rc tests the rc(8) script with a small rc.subr and with programs that
// only note how they were called.
package rc

import (
	"context"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// subr is what the script needs of rc.subr, in the same order of events.
const subr = `
load_rc_config() { :; }
warn() { echo "warn: $*" >&2; }
check_pidfile() { echo "$TEST_STARTED"; }
checkyesno() { eval "[ \"\$$1\" = YES ]"; }
wait_for_pids() { while kill -0 "$1" 2>/dev/null; do /bin/sleep 0.05; done; }
run_rc_command() {
	rc_arg=$1 rc_pid=$TEST_PID
	case $rc_arg in fast*) rc_fast=yes rc_arg=${rc_arg#fast} ;; esac
	eval "cmd=\$${rc_arg}_cmd pre=\$${rc_arg}_precmd post=\$${rc_arg}_postcmd"
	if [ "$rc_arg" = restart ]; then
		_rc_restart_done=true
		( run_rc_command stop ) && TEST_PID= && ( run_rc_command start )
		return
	fi
	rc_flags=$ggated_virstor_flags
	if [ -n "$pre" ]; then eval "$pre" || return 1; fi
	case $rc_arg in
	start) [ -n "$cmd" ] || cmd="$command $rc_flags $command_args" ;;
	reload) cmd="kill -HUP $rc_pid" ;;
	status) cmd=: ;;
	esac
	eval "$cmd" || return 1
	if [ -n "$post" ]; then $post; fi
}
`

// site is a machine for one call of the script.
type site struct {
	t        *testing.T
	dir, log string
	script   string
	pid      int
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir()}
	s.log = filepath.Join(s.dir, "log")
	s.put("log", "")
	s.put("rc.subr", subr)
	text, err := os.ReadFile("../../rc.d/ggated_virstor")
	if err != nil {
		t.Fatal(err)
	}
	s.script = s.put("script", strings.NewReplacer("/etc/rc.subr", s.dir+"/rc.subr", "prefix=/usr/local", "prefix="+s.dir,
		`"/var/run/`, `"`+s.dir+"/", "/usr/sbin/daemon", s.dir+"/bin/daemon", "/sbin/geom ", s.dir+"/bin/geom ").Replace(string(text)))
	for _, name := range []string{"daemon", "mount", "umount", "swapctl", "swapoff", "zpool", "glabel", "geom", "fsck", "logger",
		"ggatel", "pkill", "timeout", "sleep", "kldstat", "pw"} {
		s.fake(name, "")
	}
	s.fake("timeout", `shift; "$@"`)
	s.fake("sleep", "/bin/sleep 0.03")
	// Time goes on while the script sleeps.
	s.put("bin/date", "#!/bin/sh\nawk '$1 == \"sleep\" { t += $2 } END { print int(t) }' "+s.log+"\n")
	s.fake("../sbin/ggated-virstor", "")
	s.fake("../sbin/gvirstor", "")
	return s
}

func (s *site) put(name, text string) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// fake makes a program that notes its arguments and runs body.
func (s *site) fake(name, body string) {
	s.put("bin/"+name, "#!/bin/sh\necho \"$(basename \"$0\") $*\" >>"+s.log+"\n"+body+"\n")
}

// unit records a device of ours.
func (s *site) unit(number int, name string) {
	s.put("ggated-virstor/"+name+".unit", `{"unit":`+strconv.Itoa(number)+`,"name":"`+name+`","made":true}`+"\n")
}

// mounts are what mount -p prints.
func (s *site) mounts(lines string) {
	s.fake("mount", "case $1 in -p) cat <<'END'\n"+lines+"\nEND\nesac")
}

// running starts a process that notes signals; those in deaf do not end it.
func (s *site) running(deaf string) {
	// A signal that this process was started with ignored would stay so in
	// what it starts, and a shell cannot trap it; one that is caught does not.
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGHUP)
	s.t.Cleanup(func() { signal.Stop(caught) })
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	// What ends in good order leaves no devices.
	clean := "[ $1 != USR1 ] || [ -e " + s.dir + "/dies ] || rm -f " + s.dir + "/ggated-virstor/*.unit"
	body := "t() { echo \"signal $1\" >>" + s.log + "; case \"" + deaf + "\" in *$1*) ;; *) " + clean + "; exit ;; esac; }\n" +
		"for s in TERM USR1 HUP; do trap \"t $s\" $s; done\necho up >" + s.dir + "/up\nwhile :; do /bin/sleep 0.02; done"
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", body)
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	gone := make(chan struct{})
	go func() { defer close(gone); _ = cmd.Wait() }()
	s.t.Cleanup(func() { cancel(); <-gone })
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(s.dir + "/up"); err == nil {
			break
		}
		if time.Now().After(end) {
			s.t.Fatal("the process does not start")
		}
	}
	s.pid = cmd.Process.Pid
}

// run calls the script and returns what was called and signalled, and said.
func (s *site) run(verb string, vars ...string) (log, out string, ok bool) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", s.script, verb)
	cmd.WaitDelay = time.Second
	cmd.Env = append([]string{"PATH=" + s.dir + "/bin:/usr/bin:/bin", "TEST_PID=", "TEST_STARTED=7"}, vars...)
	if s.pid != 0 {
		cmd.Env = append(cmd.Env, "TEST_PID="+strconv.Itoa(s.pid))
	}
	said, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		s.t.Fatalf("%s hangs: %s", verb, said)
	}
	noted, e := os.ReadFile(s.log)
	if e != nil {
		s.t.Fatal(e)
	}
	return string(noted), string(said), err == nil
}

// want checks that the lines are in text in their order.
func want(t *testing.T, text string, lines ...string) {
	t.Helper()
	rest := text
	for _, l := range lines {
		_, after, found := strings.Cut(rest, l)
		if !found {
			t.Errorf("%q is missing, or not in its place, in:\n%s", l, text)
			return
		}
		rest = after
	}
}

func wantNot(t *testing.T, text string, lines ...string) {
	t.Helper()
	for _, l := range lines {
		if strings.Contains(text, l) {
			t.Errorf("%q must not be in:\n%s", l, text)
		}
	}
}

const ourMount = "/dev/ada0p2 / ufs rw 1 1\n/dev/ggate0p1 /data ufs rw 0 0\n/dev/ggate01 /other ufs rw 0 0"

func TestStartWaitsForDevicesThenChecksThenMounts(t *testing.T) {
	s := newSite(t)
	s.unit(0, "null") // which is in every /dev
	s.fake("../sbin/gvirstor", "n=$(grep -c '^gvirstor status$' "+s.log+"); [ $n -ge 3 ] && echo virstor/mydata 9% physical free ada4")
	s.mounts("/dev/zero /data ufs rw 0 0")
	log, out, ok := s.run("start", "ggated_virstor_providers=ada4 ada6", "ggated_virstor_flags=--debug", "ggated_virstor_volumes=mydata",
		"ggated_virstor_fsck=/dev/null /dev/zero", "ggated_virstor_mount=YES")
	if !ok {
		t.Errorf("failed: %s", out)
	}
	want(t, log, "ggated-virstor --check-config --debug", "daemon -c -p "+s.dir+"/ggated-virstor.pid "+s.dir+"/sbin/ggated-virstor --syslog",
		"--debug ada4 ada6", "gvirstor status\n", "sleep 1", "gvirstor status\n", "gvirstor status -s mydata", "fsck -p /dev/null", "mount -a -L")
	wantNot(t, log, "daemon --debug", "fsck -p /dev/zero", " -r")
}

func TestStartMakesTheUserOfTheWorkerOnce(t *testing.T) {
	s := newSite(t)
	log, _, _ := s.run("start")
	want(t, log, "pw usershow gvirstor")
	wantNot(t, log, "useradd")
	s = newSite(t)
	s.fake("pw", `[ "$1" != usershow ]`)
	log, out, ok := s.run("start")
	want(t, log, "pw useradd gvirstor", "daemon -c")
	s = newSite(t)
	s.fake("pw", "exit 1")
	log, warned, ok2 := s.run("start")
	want(t, log, "daemon -c") // as nobody, and it says so
	if !ok || !ok2 || strings.Contains(out, "warn") || !strings.Contains(warned, "the worker runs as nobody") {
		t.Errorf("%v %v\n%s\n%s", ok, ok2, out, warned)
	}
}

func TestStartDoesNotTakeTheKernelsVolumeForOurs(t *testing.T) {
	s := newSite(t)
	s.fake("../sbin/gvirstor", "[ -n \"$GVIRSTOR_CONTROL\" ] && echo 'virstor/mydata  9% physical free, kernel class  ada4'")
	_, out, ok := s.run("start", "ggated_virstor_volumes=mydata", "ggated_virstor_wait=3")
	if ok || !strings.Contains(out, "volume mydata is not there after 3 seconds") {
		t.Errorf("%v: %s", ok, out)
	}
}

// TestStartWaitsForTheLeaseOfAnotherHost: as long as the daemon does, and then as long as for
// any volume.
func TestStartWaitsForTheLeaseOfAnotherHost(t *testing.T) {
	s := newSite(t)
	count := filepath.Join(s.dir, "count")
	s.fake("../sbin/gvirstor", `[ "$#" = 1 ] || exit 1
echo >>`+count+`
if [ "$(wc -l <`+count+`)" -lt 20 ]; then echo "mydata: waiting for the lease of other, 9 s" >&2; fi`)
	log, out, ok := s.run("start", "ggated_virstor_volumes=mydata", "ggated_virstor_wait=3")
	if ok || !strings.Contains(out, "volume mydata is not there after 3 seconds") {
		t.Errorf("%v: %s", ok, out)
	}
	if n := strings.Count(log, "sleep 1\n"); n < 20 || n > 25 {
		t.Errorf("%d seconds were waited:\n%s", n, log)
	}
}

func TestStartGivesUpWhenADeviceDoesNotCome(t *testing.T) {
	s := newSite(t)
	s.unit(0, "no-such-device")
	log, out, ok := s.run("start", "ggated_virstor_wait=3", "ggated_virstor_fsck=/dev/x")
	if ok || !strings.Contains(out, "/dev/no-such-device is not there after 3 seconds") {
		t.Errorf("%v: %s", ok, out)
	}
	wantNot(t, log, "fsck")
}

func TestStartSaysWhyTheDaemonEnded(t *testing.T) {
	s := newSite(t)
	s.fake("../sbin/gvirstor", "exit 1")
	s.fake("daemon", "echo ggated-virstor: no ggctl; exit 0")
	log, out, ok := s.run("start", "TEST_STARTED=", "ggated_virstor_fsck=/dev/x")
	if ok || !strings.Contains(out, "the daemon ended; the log may say more than: ggated-virstor: no ggctl") {
		t.Errorf("%v: %s", ok, out)
	}
	wantNot(t, log, "fsck")
	if n := strings.Count(log, "sleep 1\n"); n > 1 {
		t.Errorf("waited %d seconds for it", n)
	}
}

func TestAFailedFsckMountsNothing(t *testing.T) {
	s := newSite(t)
	s.fake("fsck", "exit 8")
	log, out, ok := s.run("start", "ggated_virstor_fsck=/dev/null", "ggated_virstor_mount=YES")
	if ok {
		t.Errorf("succeeded: %s", out)
	}
	wantNot(t, log, "mount -a")
}

func TestStartIsRefusedWithAWrongConfiguration(t *testing.T) {
	s := newSite(t)
	s.fake("../sbin/ggated-virstor", "echo conf:3: wrong >&2; exit 1")
	log, out, ok := s.run("start", "ggated_virstor_config=/conf")
	if ok || !strings.Contains(out, "conf:3: wrong") {
		t.Errorf("%v: %s", ok, out)
	}
	want(t, log, "ggated-virstor --check-config --config /conf")
	wantNot(t, log, "daemon -c")
}

func TestVolumesOfTheKernelClassAreReported(t *testing.T) {
	s := newSite(t)
	s.fake("geom", "echo virstor/old 99% physical free ada1; echo virstor/old 99% physical free ada2")
	_, out, _ := s.run("start")
	want(t, out, "geom_virstor runs virstor/old;")
}

func TestStopByHandRefusesWhatIsInUse(t *testing.T) {
	for use, prepare := range map[string]func(*site){
		"/data": func(s *site) { s.mounts(ourMount) },
		"/labelled": func(s *site) {
			s.mounts("/dev/ufs/x /labelled ufs rw 0 0")
			s.fake("glabel", "echo ufs/x N/A ggate0p1")
		},
		"/dev/ggate0.eli": func(s *site) { s.fake("swapctl", "echo Device: x; echo /dev/ggate0.eli 100 0") },
		"tank":            func(s *site) { s.fake("zpool", `printf 'tank\t1G\n\t/dev/ggate0\t1G\nother\t1G\n\t/dev/ada0\t1G\n'`) },
	} {
		s := newSite(t)
		s.unit(0, "ggate0")
		prepare(s)
		s.running("")
		log, out, ok := s.run("stop")
		if ok {
			t.Errorf("%s: stopped", use)
		}
		want(t, out, "in use: "+use+" ;")
		wantNot(t, log, "signal", "umount")
		wantNot(t, out, "/other", "other")
	}
}

func TestStopEndsWhatNobodyUses(t *testing.T) {
	s := newSite(t)
	s.unit(0, "ggate0")
	s.mounts("/dev/ggate01 /other ufs rw 0 0")
	s.running("")
	log, out, ok := s.run("stop")
	if !ok {
		t.Errorf("failed: %s", out)
	}
	want(t, log, "signal TERM")
}

func TestRestartIsAPauseForWhatIsMounted(t *testing.T) {
	s := newSite(t)
	s.unit(0, "null")
	s.mounts("/dev/null /data ufs rw 0 0")
	s.running("")
	log, out, ok := s.run("restart")
	if !ok {
		t.Errorf("failed: %s", out)
	}
	want(t, log, "signal TERM", "daemon -c")
	wantNot(t, log, "umount", "USR1", "ggatel", "fsck")
}

func TestARestartIsAPauseInEveryForm(t *testing.T) {
	s := newSite(t)
	s.unit(0, "null")
	s.mounts("/dev/null /data ufs rw 0 0")
	s.running("")
	log, out, ok := s.run("fastrestart")
	if !ok {
		t.Errorf("failed: %s", out)
	}
	want(t, log, "signal TERM", "daemon -c")
	wantNot(t, log, "USR1", "ggatel")
}

func TestShutdownLetsGoOfSwapAndPoolsThenTellsTheDaemon(t *testing.T) {
	s := newSite(t)
	s.unit(0, "ggate0")
	s.fake("swapctl", "echo /dev/ggate0b 100 0; echo /dev/ada0p3 100 0")
	s.fake("zpool", `case $1 in list) printf 'tank\t1G\n\t/dev/ggate0p2\t1G\n' ;; esac`)
	s.fake("../sbin/gvirstor", "[ $1 != status ] || printf 'ggate0 9%% physical free ada1\nggate0 9%% physical free ada2\n'")
	s.running("")
	log, out, ok := s.run("faststop")
	if !ok {
		t.Errorf("failed: %s", out)
	}
	if n := strings.Count(log, "\ngvirstor reserve --release ggate0\n"); n != 1 {
		t.Errorf("the reserve was released %d times: %s", n, log)
	}
	want(t, log, "swapoff /dev/ggate0b", "zpool export tank", "signal USR1")
	wantNot(t, log, "swapoff /dev/ada0p3", "signal TERM", "ggatel")
}

// TestWhatTheKernelDoesNotLetGoKeepsNeitherAStartNorAShutdown: GEOM may wait for a device of ours
// that nobody serves, and answer no one until there is a daemon.
func TestWhatTheKernelDoesNotLetGoKeepsNeitherAStartNorAShutdown(t *testing.T) {
	s := newSite(t)
	s.fake("sleep", "/bin/sleep 0.01")
	for _, name := range []string{"geom", "glabel", "swapoff", "ggatel"} {
		s.fake(name, "trap '' TERM; while [ -e "+s.dir+"/waits ]; do /bin/sleep 0.05; done")
	}
	s.put("waits", "") // until that is removed, with its folder at the latest
	if log, out, ok := s.run("start"); !ok {
		t.Errorf("start failed: %s", out)
	} else {
		want(t, log, "geom virstor status", "daemon -c")
	}
	s.unit(3, "ggate3")
	s.put("dies", "")
	s.fake("swapctl", "echo /dev/ggate3 100 0; echo /dev/ada0p3 100 0")
	s.running("")
	log, out, ok := s.run("faststop")
	if !ok || !strings.Contains(out, "/dev/ggate3: swapoff failed") {
		t.Errorf("shutdown failed: %s", out)
	}
	want(t, log, "glabel status", "swapoff /dev/ggate3", "signal USR1", "ggatel destroy -f -u 3")
}

// TestAFullDiskKeepsNoDeviceAtAShutdown: what is to be noted there is not worth it.
func TestAFullDiskKeepsNoDeviceAtAShutdown(t *testing.T) {
	s := newSite(t)
	s.fake("mktemp", "exit 1")
	s.fake("swapctl", "echo /dev/ggate3 100 0")
	s.unit(3, "ggate3")
	s.put("dies", "")
	s.running("")
	log, out, ok := s.run("faststop")
	if !ok || strings.Contains(out, "swapoff failed") {
		t.Errorf("shutdown failed: %s", out)
	}
	want(t, log, "swapoff /dev/ggate3", "signal USR1", "ggatel destroy -f -u 3")
}

// TestAReserveThatIsNotReleasedKeepsNoOther: the first answers after the second was asked
// only, and the third fails.
func TestAReserveThatIsNotReleasedKeepsNoOther(t *testing.T) {
	s := newSite(t)
	s.unit(0, "ggate0")
	s.fake("zpool", `case $1 in list) printf 'tank\t1G\n\t/dev/ggate0p2\t1G\n' ;; esac`)
	s.fake("../sbin/gvirstor", `case "$1 $3" in
"status ") printf 'a 9%%\nb 9%%\nc 9%%\n' ;;
"reserve a") i=0; until [ -e `+s.dir+`/asked ]; do i=$((i + 1)); [ $i -lt 600 ] || exit 1; /bin/sleep 0.05; done ;;
"reserve b") : >`+s.dir+`/asked ;;
"reserve c") exit 1 ;;
esac`)
	s.running("")
	log, out, ok := s.run("faststop")
	if !ok {
		t.Errorf("failed: %s", out)
	}
	want(t, log, "logger -p daemon.err", "signal USR1")
	if strings.Contains(out, "a: its reserve") || !strings.Contains(out, "c: its reserve is not released") {
		t.Errorf("said: %s", out)
	}
}

// TestTheReserveIsTheDaemonsToReleaseWhereItUnmounts: released before, it would go to what
// waits already, and not to what keeps the rest whole.
func TestTheReserveIsTheDaemonsToReleaseWhereItUnmounts(t *testing.T) {
	s := newSite(t)
	s.unit(0, "ggate0")
	s.running("")
	log, out, ok := s.run("faststop")
	if !ok {
		t.Errorf("failed: %s", out)
	}
	want(t, log, "signal USR1")
	wantNot(t, log, "gvirstor reserve")
}

func TestShutdownGivesUpABusyDaemonAfterTheLimit(t *testing.T) {
	s := newSite(t)
	s.unit(3, "virstor-mydata")
	s.running("USR1")
	log, out, ok := s.run("faststop", "ggated_virstor_stop_time=7")
	if !ok {
		t.Errorf("failed: %s", out)
	}
	want(t, log, "signal USR1", "logger -p daemon.err", "pkill -9 -P ", "ggatel destroy -f -u 3")
	if n := strings.Count(log, "sleep 1\n"); n != 7+5 {
		t.Errorf("waited %d seconds, the limit is 7, and 5 more without the worker", n)
	}
	if before, _, _ := strings.Cut(log, "pkill"); strings.Count(before, "sleep 1\n") != 7 {
		t.Error("the worker is not killed when the limit is over")
	}
}

// TestShutdownDestroysWhatADaemonLeftThatDiedMeanwhile: with a file system on it, the kernel would
// wait for it for ever.
func TestShutdownDestroysWhatADaemonLeftThatDiedMeanwhile(t *testing.T) {
	s := newSite(t)
	s.unit(3, "virstor-mydata")
	s.put("dies", "")
	s.running("")
	log, out, ok := s.run("faststop")
	if !ok || !strings.Contains(out, "ggate3 is destroyed by force") {
		t.Errorf("said: %s", out)
	}
	want(t, log, "signal USR1", "logger -p daemon.err", "ggatel destroy -f -u 3")
	wantNot(t, log, "pkill")
}

// TestAShutdownOfABusyMachineTakesNoLonger where a second of sleep takes three.
func TestAShutdownOfABusyMachineTakesNoLonger(t *testing.T) {
	s := newSite(t)
	s.put("bin/date", "#!/bin/sh\nawk '$1 == \"sleep\" { t += 3 * $2 } END { print int(t) }' "+s.log+"\n")
	s.running("USR1")
	log, out, ok := s.run("faststop", "ggated_virstor_stop_time=9")
	if n := strings.Count(log, "sleep 1\n"); !ok || n != 3+2 {
		t.Errorf("slept %d times, for 9 seconds and 5 more: %s", n, out)
	}
}

func TestShutdownDestroysWhatADeadDaemonLeft(t *testing.T) {
	s := newSite(t)
	s.unit(0, "ggate0")
	log, out, ok := s.run("faststop")
	if !ok {
		t.Errorf("failed: %s", out)
	}
	want(t, log, "ggatel destroy -f -u 0")
	wantNot(t, log, "swapoff")
}

func TestReloadChecksTheConfigurationFirst(t *testing.T) {
	s := newSite(t)
	s.running("HUP")
	if log, out, ok := s.run("reload"); !ok {
		t.Errorf("failed: %s, %s", out, log)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		b, err := os.ReadFile(s.log)
		if err == nil && strings.Contains(string(b), "signal HUP") {
			want(t, string(b), "--check-config", "signal HUP")
			break
		}
		if time.Now().After(end) {
			t.Fatalf("no signal: %s", b)
		}
	}
	s = newSite(t)
	s.running("HUP")
	s.fake("../sbin/ggated-virstor", "exit 1")
	if log, _, ok := s.run("reload"); ok || strings.Contains(log, "signal") {
		t.Errorf("a wrong configuration was passed on: %s", log)
	}
}

func TestStatusShowsTheVolumes(t *testing.T) {
	s := newSite(t)
	log, _, _ := s.run("status")
	want(t, log, "gvirstor status")
}

func TestRescueServesReadOnlyWithoutDevices(t *testing.T) {
	s := newSite(t)
	log, out, ok := s.run("rescue", "ggated_virstor_providers=ada4")
	if !ok {
		t.Errorf("failed: %s", out)
	}
	want(t, log, "ggated-virstor --read-only --gate=false --control", "--nbd unix:", "ada4")
	s.running("")
	if _, _, ok := s.run("rescue"); ok {
		t.Error("rescue beside a daemon that runs")
	}
}
