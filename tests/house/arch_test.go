package house

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestAFailureOnAnyProcessorFailsAll: whichever it is, alone or beside another.
func TestAFailureOnAnyProcessorFailsAll(t *testing.T) {
	all := []string{"arm64", "ppc64le", "riscv64", "s390x"}
	for _, quick := range []string{"", "yes"} {
		for _, failing := range append(slices.Clone(all), "none") {
			out, code := runArch(t, failing, quick)
			want := 1
			if failing == "none" {
				want = 0
			}
			if code != want {
				t.Errorf("quick %q, %s fails: exit %d, want %d: %s", quick, failing, code, want, out)
			}
			for _, arch := range all {
				if !strings.Contains(out, "ran on "+arch+"\n") {
					t.Errorf("quick %q, %s fails: nothing ran on %s: %s", quick, failing, arch, out)
				}
			}
		}
	}
}

// runArch runs the script with programs that stand for the emulators and for go, which
// fails for one processor.
func runArch(t *testing.T, failing, quick string) (out string, code int) {
	t.Helper()
	bin := t.TempDir()
	programs := map[string]string{"go": "echo ran on $GOARCH; [ $GOARCH != " + failing + " ]"}
	for _, emulator := range []string{"aarch64", "ppc64le", "riscv64", "s390x"} {
		programs["qemu-"+emulator+"-static"] = ""
	}
	for name, body := range programs {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("sh", filepath.Join(root, "tests", "arch.sh"))
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "GO=go", "ARCH=", "QUICK="+quick)
	b, err := cmd.CombinedOutput()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	return string(b), code
}
