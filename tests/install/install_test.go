// Package install tests that what is installed is what a port lists, and that
// nothing of it stays.
package install

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const root = "../.."

// script runs tests/install.sh with programs that need not be built.
func script(t *testing.T, system, verb, dest, prefix string) string {
	t.Helper()
	bin := t.TempDir()
	for _, name := range []string{"ggated-virstor", "gvirstor", "nbdio", "completion.bash", "completion.zsh", "completion.fish"} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("/usr/local"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("sh", root+"/tests/install.sh", verb, dest, prefix)
	cmd.Env = append(os.Environ(), "OS="+system, "BIN="+bin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", verb, err, out)
	}
	return string(out)
}

// files are all below dir.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(dir, path)
			found = append(found, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestUninstallLeavesNothing(t *testing.T) {
	for _, system := range []string{"FreeBSD", "Linux"} {
		dest := t.TempDir()
		script(t, system, "install", dest, "/opt/x")
		if n := len(files(t, dest)); n < 15 {
			t.Errorf("%s: %d files were installed", system, n)
		}
		text, err := os.ReadFile(dest + "/opt/x/share/man/man8/ggated-virstor.8")
		if err != nil || strings.Contains(string(text), "/usr/local") {
			t.Errorf("%s: the manual names another prefix (%v)", system, err)
		}
		script(t, system, "uninstall", dest, "/opt/x")
		if left := files(t, dest); len(left) > 0 {
			t.Errorf("%s: left %q", system, left)
		}
		if left, err := os.ReadDir(dest + "/opt/x"); err != nil || len(left) > 0 {
			t.Errorf("%s: left %v, %v", system, left, err)
		}
	}
}

func TestLinuxIsToldOfTheWorkersUser(t *testing.T) {
	dest := t.TempDir()
	script(t, "Linux", "install", dest, "/usr/local")
	text, err := os.ReadFile(dest + "/usr/local/lib/sysusers.d/gvirstor.conf")
	if err != nil || !strings.Contains(string(text), "\nu gvirstor ") {
		t.Errorf("%q, %v", text, err)
	}
}

func TestLinuxGetsAServiceASocketAndFolders(t *testing.T) {
	dest := t.TempDir()
	script(t, "Linux", "install", dest, "/opt/x")
	for path, want := range map[string]string{
		"systemd/system/ggated-virstor.service": "\nExecStart=/opt/x/sbin/ggated-virstor\n",
		"systemd/system/ggated-virstor.socket":  "\nFileDescriptorName=nbd\n",
		"tmpfiles.d/gvirstor.conf":              "\nd /var/db/gvirstor 0700 ",
	} {
		if text, err := os.ReadFile(dest + "/opt/x/lib/" + path); err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s: %q, %v", path, text, err)
		}
	}
}

func TestAConfigurationOfItsOwnSurvives(t *testing.T) {
	dest := t.TempDir()
	conf := dest + "/usr/local/etc/ggated-virstor.conf"
	script(t, "FreeBSD", "install", dest, "/usr/local")
	if err := os.WriteFile(conf, []byte("debug = true\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	script(t, "FreeBSD", "install", dest, "/usr/local")
	script(t, "FreeBSD", "uninstall", dest, "/usr/local")
	if text, err := os.ReadFile(conf); err != nil || string(text) != "debug = true\n" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestThePortListsWhatIsInstalled(t *testing.T) {
	text, err := os.ReadFile(root + "/tests/port/pkg-plist")
	if err != nil {
		t.Fatal(err)
	}
	if want := script(t, "FreeBSD", "list", "", "/usr/local"); string(text) != want {
		t.Errorf("run `OS=FreeBSD sh tests/install.sh list '' /usr/local > tests/port/pkg-plist`; it prints\n%s", want)
	}
	dest := t.TempDir()
	script(t, "FreeBSD", "install", dest, "/usr/local")
	got := files(t, dest+"/usr/local")
	var want []string
	for _, line := range strings.Fields(strings.ReplaceAll(string(text), "@sample ", "")) {
		want = append(want, line)
		if name, ok := strings.CutSuffix(line, ".sample"); ok {
			want = append(want, name)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("installed %q\nlisted %q", got, want)
	}
}
