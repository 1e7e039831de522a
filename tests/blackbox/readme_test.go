package blackbox

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// codeOf are the lines of code of a section of the README.
func codeOf(t *testing.T, section string) string {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "\n## "+section+"\n")
	if !found {
		t.Fatalf("the README has no section %q", section)
	}
	rest, _, _ = strings.Cut(rest, "\n## ")
	var code strings.Builder
	for line := range strings.Lines(rest) {
		if c, ok := strings.CutPrefix(line, "    "); ok {
			code.WriteString(c)
		}
	}
	return code.String()
}

// typed are the lines that are typed behind a prompt in the EXAMPLES of a manual.
func typed(t *testing.T, page, prompt string) string {
	t.Helper()
	text, err := os.ReadFile("../../man/" + page)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "\n.Sh EXAMPLES\n")
	if !found {
		t.Fatalf("%s has no examples", page)
	}
	rest, _, _ = strings.Cut(rest, "\n.Sh ")
	var code strings.Builder
	goesOn := false
	for line := range strings.Lines(rest) {
		c, begins := strings.CutPrefix(line, prompt+" ")
		if !begins && !goesOn {
			continue
		}
		c = strings.ReplaceAll(c, `\e`, `\`)
		goesOn = strings.HasSuffix(c, "\\\n")
		code.WriteString(c)
	}
	return code.String()
}

// asTyped runs what a user who is not root types, in a folder of theirs, and returns what
// bash shows.
func asTyped(t *testing.T, code string, env ...string) (out, dir string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "gv")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Symlink(programs, filepath.Join(dir, "bin")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, "bash", "-e", "-x")
	c.Dir = dir
	c.Stdin = strings.NewReader(code + "wait\n")
	var b bytes.Buffer
	c.Stdout, c.Stderr = &b, &b
	c.Env = []string{"PATH=" + filepath.Join(dir, "bin") + ":" + os.Getenv("PATH"), "HOME=" + dir, "XDG_RUNTIME_DIR=" + dir}
	c.Env = append(c.Env, env...)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	c.WaitDelay = time.Second // what bash leaves behind when a command fails has its output
	if os.Geteuid() == 0 {
		if err := os.Chmod(programs, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(dir, plainUser, plainUser); err != nil {
			t.Fatal(err)
		}
		c.SysProcAttr.Credential = &syscall.Credential{Uid: plainUser, Gid: plainUser}
	}
	if err := c.Run(); err != nil {
		_ = c.Cancel() // who is left, if any
		t.Fatalf("%v\n%s", err, &b)
	}
	return b.String(), dir
}

// TestWhatTheREADMESaysToTypeOnLinuxWorks word for word, in a folder of a user who is not
// root; what make makes is there.
func TestWhatTheREADMESaysToTypeOnLinuxWorks(t *testing.T) {
	need(t, "nbdinfo", "qemu-img")
	readmeSocket(t)
	out, dir := asTyped(t, "make() { ls -l bin/; }\n"+codeOf(t, "On Linux, over NBD"))
	for _, want := range []string{"+ make\n", "99% physical free  " + filepath.Join(dir, "disk0"), "export-size: 1099511627776",
		"+ gvirstor add mydata disk2\n", filepath.Join(dir, "disk2"), "+ gvirstor stop mydata\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

// readmeSocket keeps the socket of the README free, before and after a test.
func readmeSocket(t *testing.T) {
	t.Helper()
	const socket = "/tmp/mydata.sock"
	if _, err := os.Lstat(socket); err == nil {
		t.Fatalf("%s is there already", socket)
	}
	t.Cleanup(func() { os.Remove(socket) })
}

// TestSixCommandsPutAVolumeOnCeph as a user who is not root types them.
func TestSixCommandsPutAVolumeOnCeph(t *testing.T) {
	if testing.Short() {
		t.Skip("a quarter of a minute")
	}
	need(t, "nbdinfo", "nbdcopy")
	readmeSocket(t)
	_, code, _ := strings.Cut(codeOf(t, "On exports of other servers"), "rbd create")
	code = "rbd create" + code
	if n := strings.Count(code, "\n"); n != 6 {
		t.Fatalf("%d lines:\n%s", n, code)
	}
	c := newCluster(newSite(t), 0, 0)
	for _, dir := range []string{c.s.dir, c.dir} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{c.conf, filepath.Join(c.dir, "keys")} {
		if err := os.Chmod(file, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	out, _ := asTyped(t, code+`
trap 'kill -9 $(cat 0.pid 1.pid)' EXIT # not in order, for which they would need the cluster
until gvirstor status; do sleep 0.1; done
uri='nbd+unix:///mydata?socket=/tmp/mydata.sock'
nbdinfo --size "$uri"
head -c 8388608 /dev/urandom >written
nbdcopy written "$uri"
nbdcopy "$uri" - | cmp -n 8388608 - written
gvirstor list mydata
gvirstor stop mydata
kill $!
`, "CEPH_CONF="+c.conf)
	for _, want := range []string{"\n1099511627776\n", "mydata0", "+ gvirstor stop mydata\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

// TestTheExamplesOfTheManualWorkAsTyped where they need neither root nor a kernel's module.
func TestTheExamplesOfTheManualWorkAsTyped(t *testing.T) {
	out, dir := asTyped(t, typed(t, "gvirstor.8", "$"))
	for _, want := range []string{"+ gvirstor snapshot mydata@before\n", "\nmydata@before", "+ gvirstor delete -f mydata@before\n",
		"+ gvirstor replace -v mydata disk0 disk1\n", filepath.Join(dir, "disk1"), "+ gvirstor check disk1\n", "+ kill "} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

// TestTheExampleOfTwoHostsWithTLSWorksAsTyped on one host, whose daemons are two.
func TestTheExampleOfTwoHostsWithTLSWorksAsTyped(t *testing.T) {
	need(t, "certtool", "nbdinfo", "nbdcopy")
	const page = "ggated-virstor.8"
	code := typed(t, page, "disks$") + `
until gvirstor status far; do sleep 0.1; done
if nbdinfo nbd://localhost:10809/far; then exit 1; fi # no TLS
if nbdinfo nbds://localhost:10809/far; then exit 1; fi # no certificate
mkdir front
mv ca-cert.pem front.example.org-*.pem front/
cd front
export HOME=$PWD XDG_RUNTIME_DIR=$PWD
` + typed(t, page, "front$") + `
until gvirstor status mydata; do sleep 0.1; done
head -c 1048576 /dev/urandom >written
nbdcopy written "nbd+unix:///mydata?socket=$PWD/mydata.sock"
gvirstor stop mydata
kill $!
wait $!
gvirstor check "$uri"
kill %1
`
	port := freePort(t)
	out, _ := asTyped(t, strings.NewReplacer("disks.example.org", "localhost", "10809", port).Replace(code))
	for _, want := range []string{"nbds://localhost:" + port + "/far", "No errors.\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}
