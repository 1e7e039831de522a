package blackbox

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// exportURI is where an export of the site is found.
func (s *site) exportURI(export string) string {
	return "nbd+unix:///" + export + "?socket=" + s.socket
}

// qemuIO has qemu-io do commands to an export, which must succeed.
func (s *site) qemuIO(export string, commands ...string) {
	s.t.Helper()
	args := []string{"-f", "raw"}
	if strings.Contains(export, "@") {
		args = append(args, "-r")
	}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	command(s.t, "qemu-io", append(args, s.exportURI(export))...)
}

// The volumes of a pool are used by clients that know only NBD: each has what it alone was
// written, a clone is brought up to date from the snapshot that it comes from, snapshots of
// all are of one moment, and a quota is ENOSPC.
func TestVolumesOfAPoolAreUsedByClientsThatKnowOnlyNBD(t *testing.T) {
	need(t, "nbdinfo", "nbdcopy", "qemu-img", "qemu-io")
	s := newSite(t, 96*mib)
	s.label("-s", "64m", "-m", "1m")
	s.start()
	s.gvirstor("create", "-s", "16m", "vol/web")
	s.qemuIO("vol", "write -P 1 0 4m")
	s.qemuIO("vol/web", "write -P 2 0 1m")
	s.gvirstor("snapshot", "-r", "vol@all")
	for name, says := range map[string]string{"vol": "vol: 4 of 64", "vol/web": "vol/web: 1 of 16", "vol/web@all": "vol/web@all: 1 of 16"} {
		if out := s.gvirstor("map", "--ascii", name); !strings.Contains(out, says) {
			t.Errorf("the map of %s: %s", name, out)
		}
	}
	s.qemuIO("vol", "write -P 3 1m 512k")
	s.qemuIO("vol/web", "write -P 3 0 512k")
	s.qemuIO("vol@all", "read -P 1 0 4m")
	s.qemuIO("vol/web@all", "read -P 2 0 1m", "read -P 0 1m 1m")

	s.gvirstor("clone", "vol@all", "vol/copy")
	s.qemuIO("vol/copy", "read -P 1 0 4m", "write -P 4 2m 4k", "discard 3m 1m")
	s.gvirstor("snapshot", "vol/copy@now")
	copied := filepath.Join(s.dir, "copy")
	command(t, "nbdcopy", s.exportURI("vol@all"), copied)
	if n := s.incremental(copied, "vol/copy@now", "vol@all"); n != 2*mib {
		t.Errorf("%d bytes were copied", n)
	}
	command(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", s.exportURI("vol/copy@now"), copied)
	s.gvirstor("rollback", "-f", "vol/web@all")
	s.qemuIO("vol/web", "read -P 2 0 1m")
	s.qemuIO("vol", "read -P 3 1m 512k")

	s.gvirstor("quota", "2m", "vol/web")
	s.qemuIO("vol/web", "write -P 5 0 2m")
	out, err := exec.Command("qemu-io", "-f", "raw", "-c", "write 2m 4k", s.exportURI("vol/web")).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "No space left on device") {
		t.Errorf("over the quota: %s, %v", out, err)
	}
	s.gvirstor("quota", "none", "vol/web")
	s.qemuIO("vol/web", "write -P 5 2m 4k")
}
