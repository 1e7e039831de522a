package blackbox

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestThePeriodicScriptTellsWhatIsNotable(t *testing.T) {
	const header = "          Name                        Status  Components\n"
	for _, c := range []struct {
		name, status string
		fails        bool
		enable       string
		code         int
	}{
		{"all is well", header + "virstor/mydata             90% physical free  ada4\n", false, "YES", 0},
		{"little space", header + "virstor/mydata              9% physical free  ada4\n", false, "YES", 1},
		{"something else", header + "virstor/mydata  90% physical free, read-only  ada4\n", false, "YES", 1},
		{"held writes", header + "virstor/mydata  0% physical free, full, 3 writes held (12288 KiB, 41 s)  ada4\n", false, "YES", 3},
		{"a failed component", header + "virstor/mydata  90% physical free  ada4\n                ada6 (flush failed)\n", false, "YES", 3},
		{"a name that sounds bad", header + "virstor/fullhold  90% physical free  /held/full/degraded\n", false, "YES", 0},
		{"one of several", header + "virstor/a  90% physical free  ada4\nvirstor/b  19% physical free, low on space  ada5\n", false, "YES", 1},
		{"a component behind a script", header + "virstor/mydata  90% physical free  ada4\n  ada6, flush failed in the name\n", false, "YES", 0},
		{"no daemon", "gvirstor: Can't reach the daemon\n", true, "YES", 3},
		{"switched off", "", true, "NO", 0},
		{"nothing said", "", true, "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			script := "#!/bin/sh\ncat <<'END'\n" + c.status + "END\n"
			if c.fails {
				script += "exit 1\n"
			}
			program := filepath.Join(dir, "gvirstor")
			if err := os.WriteFile(program, []byte(script), 0o755); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("sh", "../../ggated-virstor/examples/450.status-gvirstor")
			cmd.Env = append(os.Environ(), "daily_status_gvirstor_program="+program, "daily_status_gvirstor_enable="+c.enable)
			out, err := cmd.CombinedOutput()
			code := 0
			if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
				code = exit.ExitCode()
			} else if err != nil {
				t.Fatal(err)
			}
			if code != c.code {
				t.Errorf("exit status %d, want %d:\n%s", code, c.code, out)
			}
			if c.enable == "YES" && !strings.Contains(string(out), strings.TrimSpace(c.status)) {
				t.Errorf("the state is not told:\n%s", out)
			}
		})
	}
}

func TestThePeriodicScriptTakesSnapshotsInTurn(t *testing.T) {
	for _, c := range []struct {
		name, enable, volumes string
		fails                 string // the volume of which none can be taken
		code                  int
		want                  string // what is asked for
	}{
		{"two volumes", "YES", "a b", "", 0, "snapshot -v --keep 7 a@daily-\nsnapshot -v --keep 7 b@daily-\n"},
		{"one of them fails", "YES", "a b", "a@daily-", 3, "snapshot -v --keep 7 a@daily-\nsnapshot -v --keep 7 b@daily-\n"},
		{"none is named", "YES", "", "", 2, ""},
		{"switched off", "NO", "a", "", 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			asked := filepath.Join(dir, "asked")
			program := filepath.Join(dir, "gvirstor")
			script := "#!/bin/sh\necho \"$*\" >>" + asked + "\n[ \"$5\" != \"" + c.fails + "\" ]\n"
			if err := os.WriteFile(program, []byte(script), 0o755); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("sh", "../../ggated-virstor/examples/460.snapshot-gvirstor")
			cmd.Env = append(os.Environ(), "daily_snapshot_gvirstor_program="+program, "daily_snapshot_gvirstor_enable="+c.enable, "daily_snapshot_gvirstor_volumes="+c.volumes)
			out, err := cmd.CombinedOutput()
			code := 0
			if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
				code = exit.ExitCode()
			} else if err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(asked)
			if err != nil && c.want != "" {
				t.Fatal(err)
			}
			if code != c.code || string(got) != c.want {
				t.Errorf("exit status %d, want %d; asked for %q:\n%s", code, c.code, got, out)
			}
		})
	}
}
