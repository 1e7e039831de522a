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

// TestWhatTheREADMESaysToTypeOnLinuxWorks word for word, in a folder of a user who is not
// root; what make makes is there.
func TestWhatTheREADMESaysToTypeOnLinuxWorks(t *testing.T) {
	need(t, "nbdinfo", "qemu-img")
	const socket = "/tmp/mydata.sock"
	if _, err := os.Lstat(socket); err == nil {
		t.Fatalf("%s is there already", socket)
	}
	t.Cleanup(func() { os.Remove(socket) })
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
	c.Stdin = strings.NewReader("make() { ls -l bin/; }\n" + codeOf(t, "On Linux, over NBD") + "wait\n")
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	c.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "XDG_RUNTIME_DIR=" + dir}
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
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
		t.Fatalf("%v\n%s", err, &out)
	}
	for _, want := range []string{"+ make\n", "99% physical free  " + filepath.Join(dir, "disk0"), "export-size: 1099511627776",
		"+ gvirstor add mydata disk2\n", filepath.Join(dir, "disk2"), "+ gvirstor stop mydata\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
}
