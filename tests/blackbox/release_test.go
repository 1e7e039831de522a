package blackbox

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAComponentOfAnIncompleteVolumeCanBeChanged(t *testing.T) {
	for _, mode := range []string{"", "--supervise"} {
		t.Run("mode "+mode, func(t *testing.T) {
			s := newSite(t, 64<<20)
			s.label("-s", "1g", "-m", "1m")
			lone, lost := s.file("lone", 64<<20), s.file("lost", 64<<20)
			s.gvirstor("label", "-s", "1g", "-m", "1m", "other", lone, lost)
			if err := os.Remove(lost); err != nil {
				t.Fatal(err)
			}
			whole := s.files[0]
			s.files = append(s.files, lone)
			flags := []string{}
			if mode != "" {
				flags = append(flags, mode)
			}
			s.start(flags...)
			if out, err := s.tryGvirstor("clear", whole); err == nil || !strings.Contains(out, "`gvirstor stop vol` first") {
				t.Errorf("a component in service is cleared: %v, %s", err, out)
			}
			s.gvirstor("clear", lone)
			s.gvirstor("label", "-s", "1g", "-m", "1m", "third", lone)
			if out := s.gvirstor("status", "-g"); !strings.Contains(out, "third") {
				t.Errorf("the relabelled provider is not served:\n%s", out)
			}
		})
	}
}

func TestOneProviderIsKnownByOneName(t *testing.T) {
	s := newSite(t, 64<<20)
	s.label("-s", "1g", "-m", "1m")
	cwd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	rel, err := filepath.Rel(cwd, s.files[0])
	if err != nil {
		t.Fatal(err)
	}
	abs := s.files[0]
	s.files[0] = rel
	s.start()
	if out, err := s.tryGvirstor("add", "vol", abs); err == nil || !strings.Contains(out, "already in vol") {
		t.Errorf("a component that the daemon was given as %s is added as %s: %v, %s", rel, abs, err, out)
	}
}
