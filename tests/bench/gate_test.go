package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// gateSite is a FreeBSD machine on which every program only notes that it was
// called, and a clock that tells what the test wants.
type gateSite struct {
	t           *testing.T
	dir, script string
}

func newGateSite(t *testing.T) *gateSite {
	t.Helper()
	s := &gateSite{t: t, dir: t.TempDir()}
	text, err := os.ReadFile("gate.sh")
	if err != nil {
		t.Fatal(err)
	}
	s.put("dev/virstor/bench", "")
	s.put("dev/null", "")
	s.put("dev/ours", "")
	s.script = s.put("gate.sh", strings.NewReplacer("/sbin/geom ", s.dir+"/bin/geom ", "test -c", "test -e",
		"/dev/", s.dir+"/dev/").Replace(string(text)))
	for name, body := range map[string]string{
		"uname":          "echo FreeBSD",
		"mdconfig":       "[ $1 = -d ] || echo md9",
		"diskinfo":       "echo $1 512 536870912 1048576 0 0",
		"kldload":        "",
		"gnop":           "",
		"geom":           "",
		"fio":            "exit 1",
		"ggatel":         "case $1 in create) : >" + s.dir + "/dev/ggate$3 ;; destroy) rm " + s.dir + "/dev/ggate$3 ;; esac",
		"gvirstor":       "case $* in *' status '*) echo ours 99% physical free md9 ;; esac",
		"ggated-virstor": "exec sleep 60",
		"dd":             "",
		// 2 MiB a second on a device of ours, 1 on others.
		"time": `sh -c "$4"; echo "$4" | awk '{
			for (i = 1; i <= NF; i++) {
				if ($i ~ /^bs=/) bytes = substr($i, 4)
				if ($i ~ /^count=/) all += bytes * substr($i, 7)
			}
			printf "real %.2f\n", all / (/dev\/ours/ ? 2097152 : 1048576)
		}' >&2`,
	} {
		s.fake(name, body)
	}
	return s
}

func (s *gateSite) put(name, text string) string {
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

func (s *gateSite) fake(name, body string) {
	s.put("bin/"+name, "#!/bin/sh\necho \"$(basename \"$0\") $*\" >>"+s.dir+"/log\n"+body+"\n")
}

// without leaves the site without a program.
func (s *gateSite) without(name string) {
	if err := os.Remove(filepath.Join(s.dir, "bin", name)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *gateSite) run(args ...string) (out, log string, err error) {
	s.t.Helper()
	cmd := exec.Command("sh", append([]string{s.script, "-b", s.dir + "/bin", "-o", s.dir + "/out/gate.json"}, args...)...)
	// Only what a small system has, so that no fio is found.
	cmd.Env = []string{"PATH=" + s.dir + "/bin:" + s.dir + "/usr", "TMPDIR=" + s.t.TempDir()}
	for _, tool := range []string{"sh", "sleep", "awk", "mktemp", "rm", "cat", "tail", "sed", "mkdir", "basename"} {
		path, e := exec.LookPath(tool)
		if e != nil {
			s.t.Fatal(e)
		}
		if e := os.MkdirAll(s.dir+"/usr", 0o755); e != nil {
			s.t.Fatal(e)
		}
		if e := os.Symlink(path, s.dir+"/usr/"+tool); e != nil && !os.IsExist(e) {
			s.t.Fatal(e)
		}
	}
	said, err := cmd.CombinedOutput()
	noted, _ := os.ReadFile(s.dir + "/log")
	return string(said), string(noted), err
}

func TestGateMeasuresInTurnAndReportsRatiosOfPairs(t *testing.T) {
	s := newGateSite(t)
	s.without("fio")
	out, log, err := s.run("-n", "3", "-q", "4", "-s", "1", "-l", "2")
	if err != nil {
		t.Fatalf("%v: %s\n%s", err, out, log)
	}
	for _, peer := range []string{"ggatel", "kernel"} {
		for _, job := range []string{"dd-read-4k-QD1", "dd-write-4k-QD4", "dd-read-1m-QD1"} {
			line := regexp.MustCompile(job + ` +` + peer + ` +ours .* theirs .* ratio ([0-9.]+) \(([0-9.]+)-([0-9.]+)\)`)
			m := line.FindStringSubmatch(out)
			if m == nil {
				t.Errorf("no line of %s against %s in:\n%s", job, peer, out)
				continue
			}
			if r, err := strconv.ParseFloat(m[1], 64); err != nil || r < 1.9 || r > 2.1 {
				t.Errorf("%s against %s: ratio %s", job, peer, m[1])
			}
		}
	}
	if n := strings.Count(log, "ggatel create"); n != 4 {
		t.Errorf("ggatel was started %d times: once to warm up and three times", n)
	}
	if !strings.Contains(log, "gnop create -d 2 -q 100 -x 100 md9") || !strings.Contains(log, "ggatel create -u 70 "+s.dir+"/dev/md9.nop") {
		t.Errorf("the delay is not below the servers:\n%s", log)
	}
	for _, end := range []string{"gnop destroy -f md9.nop", "mdconfig -d -u md9"} {
		if !strings.Contains(log, end) {
			t.Errorf("%q was not called", end)
		}
	}
	var all struct {
		Results []struct {
			Peer, Job, Server string
			Pair              int
			Rate              float64 `json:"bytes_per_second"`
		}
	}
	text, err := os.ReadFile(s.dir + "/out/gate.json")
	if err == nil {
		err = json.Unmarshal(text, &all)
	}
	if err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	if n := len(all.Results); n != 2*2*3*6 {
		t.Errorf("%d results, want those of 2 peers, 2 servers, 3 pairs, 6 jobs", n)
	}
	for i, r := range all.Results {
		if r.Rate <= 0 || r.Pair < 1 || r.Pair > 3 {
			t.Errorf("result %d: %+v", i, r)
		}
	}
	// A B A B.
	order := regexp.MustCompile(`ggated-virstor|ggatel create`).FindAllString(log[:strings.LastIndex(log, "ggatel create")], -1)
	for i, server := range order[1:] { // the first filled the volume
		if (i%2 == 0) != (server == "ggated-virstor") {
			t.Errorf("not in turn: %q", order)
			break
		}
	}
}

func TestGateUsesFioWhereItIs(t *testing.T) {
	s := newGateSite(t)
	s.fake("fio", `awk 'BEGIN { for (i = 1; i < 60; i++) printf "%d;", (i == 8) ? 1500 : (i == 49) ? 500 : 0; print "" }'`)
	out, _, err := s.run("-n", "1", "-q", "8", "-s", "1", "-p", "ggatel")
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if !regexp.MustCompile(`fio-randwrite-4k-QD8 +ggatel +ours +2000 +theirs +2000 op/s +ratio 1\.00`).MatchString(out) {
		t.Errorf("not measured by fio:\n%s", out)
	}
}

func TestGateLeavesOutAKernelClassThatIsNotThere(t *testing.T) {
	s := newGateSite(t)
	s.without("fio")
	s.fake("kldload", "case $* in *virstor*) exit 1 ;; esac")
	out, _, err := s.run("-n", "1", "-s", "1")
	if err != nil || !strings.Contains(out, "geom_virstor cannot be loaded; left out") || strings.Contains(out, "theirs") && !strings.Contains(out, " ggatel ") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestGateRefusesWhatItCannotDo(t *testing.T) {
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"-n", "0"}, "at least 1"},
		{[]string{"-s", "x"}, "'x' is not a number"},
		{[]string{"-p", "qemu"}, "no peer 'qemu'"},
		{[]string{"-y"}, "gate.sh [-b BIN]"},
	} {
		s := newGateSite(t)
		if out, _, err := s.run(c.args...); err == nil || !strings.Contains(out, c.says) {
			t.Errorf("%q: %v, %s", c.args, err, out)
		}
	}
	s := newGateSite(t)
	s.fake("dd", "exit 1")
	if out, log, err := s.run("-n", "1", "-s", "1"); err == nil || !strings.Contains(log, "mdconfig -d -u md9") {
		t.Errorf("a disk that fails: %v, %s", err, out)
	}
	s = newGateSite(t)
	s.fake("uname", "echo Linux")
	if out, _, err := s.run(); err == nil || !strings.Contains(out, "FreeBSD's") {
		t.Errorf("elsewhere: %v, %s", err, out)
	}
}
