// Package vm tests the script that runs the suite in a virtual machine, with
// programs that stand for the hypervisor.
package vm

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestTheScriptEndsWithWhatTheGuestSays(t *testing.T) {
	for name, c := range map[string]struct {
		guest string
		code  int
		says  string
	}{
		"passed":    {`echo "GVIRSTOR-VM-EXIT 0"`, 0, ""},
		"failed":    {`printf 'x -> failed\\r\\nGVIRSTOR-VM-EXIT 1\\r\\n'`, 1, "x -> failed"},
		"no result": {`echo panic: out of luck; exit 0`, 1, "ended without a result"},
		"too long":  {`exec sleep 30`, 124, "time limit of 1 seconds"},
	} {
		t.Run(name, func(t *testing.T) {
			limit := "30"
			if c.code == 124 {
				limit = "1"
			}
			bin := t.TempDir()
			for prog, body := range map[string]string{
				"qemu-system-x86_64": c.guest,
				"qemu-img":           `[ "$1" = info ] && echo "file format: raw"; exit 0`,
				"makefs":             `cp "$(dirname "$7")/cidata/user-data" "$7"`,
			} {
				if err := os.WriteFile(filepath.Join(bin, prog), []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			image := filepath.Join(bin, "image")
			if err := os.WriteFile(image, nil, 0o644); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("sh", "run.sh", "-h", "qemu", "-t", limit, image, image)
			cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
			out, err := cmd.CombinedOutput()
			code := 0
			if exit := new(exec.ExitError); errors.As(err, &exit) {
				code = exit.ExitCode()
			} else if err != nil {
				t.Fatal(err)
			}
			if code != c.code || !strings.Contains(string(out), c.says) {
				t.Errorf("exit %d, want %d: %s", code, c.code, out)
			}
		})
	}
}

// runSuite runs what runs inside, with a kyua that only does what it is told to, and
// returns what it prints, its report and its exit status.
func runSuite(t *testing.T, kyua string) (out, report string, code int) {
	t.Helper()
	bin, suite, dir := t.TempDir(), t.TempDir(), t.TempDir()
	for prog, body := range map[string]string{"tar": "", "kldload": "", "kyua": "[ $1 = report ] && exit; " + kyua} {
		if err := os.WriteFile(filepath.Join(bin, prog), []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	summary, err := os.ReadFile("../summary.sh")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(suite, "summary.sh"), summary, 0o644); err != nil {
		t.Fatal(err)
	}
	script, err := filepath.Abs("inside.sh")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", script, "package", "report")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "SUITE="+suite)
	b, err := cmd.CombinedOutput()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	return string(b), filepath.Join(dir, "report"), code
}

func TestTheSuiteEndsWithKyuasStatus(t *testing.T) {
	for name, c := range map[string]struct {
		kyua string
		code int
	}{
		"passed":          {"echo 'x:y  ->  passed  [0.1s]'; echo '1/1 passed (0 failed)'", 0},
		"other words":     {"echo '1/1 passed (0 broken, 0 failed, 0 skipped)'", 0},
		"failed":          {"echo 'x:y  ->  failed: no  [0.1s]'; exit 1", 1},
		"broken off":      {"exit 3", 3},
		"skipped":         {"echo 'x:y  ->  skipped: no fun  [0.1s]'", 1},
		"no kernel class": {"echo 'x:y  ->  skipped: geom_virstor cannot be loaded  [0.1s]'", 0},
	} {
		t.Run(name, func(t *testing.T) {
			out, report, code := runSuite(t, c.kyua)
			if code != c.code {
				t.Errorf("exit %d, want %d: %s", code, c.code, out)
			}
			if _, err := os.Stat(filepath.Join(report, "output.txt")); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestTheSuiteSaysHowManyCasesEndedHowAndWhy(t *testing.T) {
	out, report, _ := runSuite(t, `cat <<'KYUA'
x:y  ->  passed  [0.1s]
x:z  ->  failed: no: [a] /dev/b is there  [2.000s]
w:v  ->  skipped: geom_virstor cannot be loaded  [0.1s]
w:u  ->  broken: Test case timed out  [300.0s]

1/4 passed (2 failed)
KYUA`)
	sum, err := os.ReadFile(filepath.Join(report, "summary.txt"))
	if err != nil {
		t.Fatal(err)
	}
	head, rest, _ := strings.Cut(string(sum), " seconds: ")
	const want = `1 passed, 1 failed, 1 broken, 1 skipped
  failed: x:z: no: [a] /dev/b is there
  skipped: w:v: geom_virstor cannot be loaded
  broken: w:u: Test case timed out
`
	if !strings.HasPrefix(head, "4 cases on ") || rest != want {
		t.Errorf("%s", sum)
	}
	if !strings.HasSuffix(out, string(sum)) {
		t.Errorf("the sum is not what it ends with: %s", out)
	}
}
