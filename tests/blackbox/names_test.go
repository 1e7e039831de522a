package blackbox

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdclient"
)

// hostileNames are what a stranger may have called a volume: what clears a screen,
// is no UTF-8, writes from right to left, looks like a line of its own.
var hostileNames = []string{"\x1b[2Jgone", "\xff\xfe\x80", "ab\u202egnp.exe", "x\nEVIL: line", "\u009b31mred", "tab\tDEL\x7f"}

// rename puts another volume's name into the metadata on a file: 16 bytes behind
// magic and version.
func rename(t testing.TB, path, name string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := len(b) - 512
	field := b[at+20 : at+36]
	clear(field)
	copy(field, name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// mustBeShown fails where a terminal would do what text says, or a name makes a line.
func mustBeShown(t testing.TB, what, text string) {
	t.Helper()
	if !utf8.ValidString(text) {
		t.Errorf("%s is no UTF-8: %q", what, text)
	}
	for _, r := range text {
		if r != '\n' && r != '\t' && !strconv.IsPrint(r) {
			t.Errorf("%s holds %q: %q", what, r, text)
			break
		}
	}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(strings.TrimSpace(line), "EVIL") {
			t.Errorf("%s has a line of a name's: %q", what, text)
		}
	}
}

// TestNoNameFromADiskReachesATerminalAsItIs: every verb, the log and the pages, at both fronts.
func TestNoNameFromADiskReachesATerminalAsItIs(t *testing.T) {
	for _, name := range hostileNames {
		t.Run(fmt.Sprintf("%q", name), func(t *testing.T) {
			atBothFronts(t, func(t *testing.T, begin func(*site, ...string)) { labelledByAStranger(t, name, begin) })
		})
	}
}

func labelledByAStranger(t *testing.T, name string, begin func(*site, ...string)) {
	s := newSite(t, 8*mib, 8*mib)
	s.label("-s", "32m", "-m", "1m")
	backup, svg, journal := filepath.Join(s.dir, "good"), filepath.Join(s.dir, "svg"), filepath.Join(s.dir, "journal")
	for _, f := range s.files {
		rename(t, f, name)
	}
	say := func(args ...string) {
		t.Helper()
		out, _ := s.tryGvirstor(args...)
		mustBeShown(t, strings.Join(args, " "), out)
	}
	all := func(args ...string) []string { return append(args, s.files...) }
	for _, args := range [][]string{
		all("dump"), all("dump", "--json"), all("check", "-v"), all("check", "--json"), all("repair", "-n"), all("repair", "--json"),
		all("backup", "-v", backup), all("restore", "-nv", backup), all("restore", "-v", backup), all("map"), all("map", "--json"),
		all("map", "--svg", svg), all("repair", "-y", "--save", journal), {"dump", s.files[0] + name}, {"clear", s.files[0] + name},
		{"status", name}, {"list", name}, {"no-such-verb" + name}, {"label", "-s", "1g", name, s.files[0]},
		all("repair", "--undo", s.files[0]), {"add", name, s.files[0]}, {"expand", name, s.files[0]},
		{"scan", s.dir}, {"scan", "--json", s.dir}, {"scan", s.dir + name},
	} {
		say(args...)
	}
	for _, f := range s.files {
		rename(t, f, name)
	}
	// A sound volume beside it keeps the daemon up.
	s.gvirstor("label", "-s", "32m", "-m", "1m", "sound", s.file("sound", 8*mib))
	s.files = append(s.files, filepath.Join(s.dir, "sound"))
	begin(s, "--http", "127.0.0.1:0")
	for _, args := range [][]string{
		{"status"}, {"status", "-a"}, {"status", "-ag"}, {"status", "-s"}, {"status", "-p"}, {"status", "--json"},
		{"list", "-a"}, {"list", "-p"}, {"list", "--json"}, {"status", name}, {"stop", name}, {"add", "sound", s.files[0]},
		{"check", s.files[0]}, {"map", "sound"}, {"scan", s.dir}, {"scan", "--json", s.dir}, {"status", "-x"}, {"events", name},
		{"remove", "sound", name}, {"spare", "sound", s.files[0] + name}, {"label", "-s", "1g", name, s.files[0]},
		{"history", "--backup-dir", filepath.Join(s.dir, "backups")}, {"history", "--backup-dir", filepath.Join(s.dir, "backups"), name},
		{"history", "--json", "--backup-dir", filepath.Join(s.dir, "backups")}, {"history", "--backup-dir", s.dir + name},
	} {
		say(args...)
	}
	for _, page := range []string{"/readyz", "/metrics", "/"} {
		mustBeShown(t, page, s.answer(page))
	}
	s.term()
	mustBeShown(t, "the log", s.log.String())
	// The last words of a daemon that has nothing else.
	rename(t, s.files[0], "other")
	args := []string{"--control", s.control, "--run-dir", s.dir, "--backup-dir", "", "--state-dir", "", s.files[1]}
	var out bytes.Buffer
	c := exec.CommandContext(t.Context(), filepath.Join(programs, "ggated-virstor"), args...)
	c.Stderr = &out
	if err := c.Run(); err == nil {
		t.Error("half a volume is served")
	}
	mustBeShown(t, "the last words", out.String())
}

// namedSite serves a volume with data and a name that a stranger chose.
func namedSite(t *testing.T, name string, begin func(s *site, flags ...string)) *site {
	t.Helper()
	s := newSite(t, 24*mib, 24*mib)
	s.label("-s", "64m", "-m", "1m")
	s.start()
	c := s.dial()
	if _, err := c.WriteAt(bytes.Repeat([]byte{1}, mib), 0); err != nil {
		t.Fatal(err)
	}
	c.Close()
	s.gvirstor("pack", "vol")
	s.gvirstor("stop", "-f", "vol") // handed back: what a daemon notes beside the metadata is gone
	s.term()
	for _, f := range s.files {
		rename(t, f, name)
	}
	begin(s, "--http", "127.0.0.1:0", "--alloc", "spread")
	return s
}

// underWay starts a verb, and asks it how far it is until it has said that.
func (s *site) underWay(args ...string) (end func() string) {
	s.t.Helper()
	out := new(logBuffer)
	c := exec.CommandContext(s.t.Context(), filepath.Join(programs, "gvirstor"), args...)
	c.Env = append(os.Environ(), "GVIRSTOR_CONTROL="+s.control)
	c.Stdout, c.Stderr = out, out
	if err := c.Start(); err != nil {
		s.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		c.Wait()
		close(done)
	}()
	s.until("a job is under way", func() bool {
		select {
		case <-done:
			s.t.Fatalf("it ended: %q", out)
		default:
		}
		v := s.status()
		return v.Job != nil && v.Job.State == control.JobRunning
	})
	s.until("the job says how far it is", func() bool {
		if err := c.Process.Signal(syscall.SIGUSR1); err != nil {
			s.t.Fatalf("it ended: %v, %q", err, out)
		}
		return strings.Contains(out.String(), "% ")
	})
	return func() string {
		<-done
		return out.String()
	}
}

// TestNoNameOfARunningJobOrAClientReachesATerminalAsItIs: the verbs of a volume that
// is busy, and of its clients, at both fronts.
func TestNoNameOfARunningJobOrAClientReachesATerminalAsItIs(t *testing.T) {
	// A volume whose name has a control character is refused, which the test above sees.
	for _, name := range []string{"\xff\xfe\x80", "ab\u202egnp.exe", "\u009b31mred"} {
		t.Run(fmt.Sprintf("%q", name), func(t *testing.T) {
			atBothFronts(t, func(t *testing.T, begin func(*site, ...string)) { busyUnderAName(t, name, begin) })
		})
	}
}

func busyUnderAName(t *testing.T, name string, begin func(*site, ...string)) {
	s := namedSite(t, name, begin)
	name = s.servedName()
	s.name = name
	c, err := nbdclient.Dial(t.Context(), "nbd+unix:///"+url.PathEscape(name)+"?socket="+s.socket, nbdclient.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Abort()
	// What was there lies on the first component; of this the other gets its share.
	if _, err := c.WriteAt(bytes.Repeat([]byte{2}, 16*mib), 16*mib); err != nil {
		t.Fatal(err)
	}
	end := s.underWay("evacuate", "-v", "--rate", "1m", name, s.files[1])
	for _, args := range [][]string{
		{"clients"}, {"clients", name}, {"clients", "--json"}, {"clients", "-v", name}, {"status"}, {"status", name}, {"status", "--json"},
		{"list", "-a"}, {"list", name}, {"list", "--json"}, {"map", name}, {"evacuate", name, s.files[1]}, {"pack", name}, {"stop", name},
		{"clients", "--disconnect", "99", name}, {"cancel", name},
	} {
		out, _ := s.tryGvirstor(args...)
		mustBeShown(t, strings.Join(args, " "), out)
	}
	mustBeShown(t, "the verb of the job", end())
	for _, page := range []string{"/readyz", "/metrics", "/"} {
		mustBeShown(t, page, s.answer(page))
	}
	s.term()
	mustBeShown(t, "the log", s.log.String())
}

// servedName is what the one volume of the daemon is called there.
func (s *site) servedName() string {
	s.t.Helper()
	c, err := control.Dial(s.control)
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	st, err := c.Status(s.t.Context())
	if err != nil || len(st.Volumes) != 1 {
		s.t.Fatalf("%d volumes, %v: %s", len(st.Volumes), err, s.log)
	}
	return st.Volumes[0].Name
}

// answer is what the daemon's --http says.
func (s *site) answer(path string) string {
	s.t.Helper()
	s.said("status page, metrics and health")
	_, address, _ := strings.Cut(s.log.String(), " http=")
	resp, err := (&http.Client{Timeout: time.Minute}).Get("http://" + strings.Fields(address)[0] + path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(b)
}
