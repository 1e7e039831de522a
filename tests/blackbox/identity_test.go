package blackbox

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fillVolume writes value to the first chunks of the volume and flushes it.
func (s *site) fillVolume(value byte) {
	s.t.Helper()
	c := s.dial()
	defer c.Close() // the daemon does not count it then
	if _, err := c.WriteAt(bytes.Repeat([]byte{value}, 4<<20), 0); err != nil {
		s.t.Fatal(err)
	}
	if err := c.Flush(); err != nil {
		s.t.Fatal(err)
	}
}

// copyFile is what cp does.
func (s *site) copyFile(from, to string) {
	s.t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o600)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

func TestAnOldCopyOfAComponentIsNamedAndNotServed(t *testing.T) {
	s := newSite(t, 24<<20, 24<<20, 24<<20)
	s.label("-m", "1m", "-s", "1g")
	s.start("--alloc", "spread")
	s.fillVolume(0x11)
	s.term()
	old, now := filepath.Join(s.dir, "old"), filepath.Join(s.dir, "now")
	s.copyFile(s.files[1], old)
	s.start("--alloc", "spread")
	s.fillVolume(0x22)
	s.term()
	s.copyFile(s.files[1], now)
	s.copyFile(old, s.files[1])
	was, err := os.ReadFile(s.files[1])
	if err != nil {
		t.Fatal(err)
	}
	s.launch("--alloc", "spread")
	<-s.done
	if code := s.cmd.ProcessState.ExitCode(); code == 0 {
		t.Error("the daemon has served an old copy")
	}
	s.cmd = nil
	for _, want := range []string{"component 1 of 3 of vol is missing", "is a stale component of vol", s.files[1]} {
		if !strings.Contains(s.log.String(), want) {
			t.Errorf("the log does not say %q:\n%s", want, s.log)
		}
	}
	if strings.Contains(s.log.String(), "clear") {
		t.Errorf("clear is recommended:\n%s", s.log)
	}
	if b, err := os.ReadFile(s.files[1]); err != nil || !bytes.Equal(b, was) {
		t.Errorf("the old copy was written to, %v", err)
	}
	s.copyFile(now, s.files[1])
	s.start("--alloc", "spread")
	b := make([]byte, 4<<20)
	if _, err := s.dial().ReadAt(b, 0); err != nil || !bytes.Equal(b, bytes.Repeat([]byte{0x22}, len(b))) {
		t.Errorf("the true set holds something else, %v", err)
	}
}

func TestARemovedComponentThatComesBackIsNamedAndKeepsItsLabel(t *testing.T) {
	s := newSite(t, 24<<20, 24<<20, 24<<20)
	s.label("-m", "1m", "-s", "1g")
	s.start("--alloc", "spread")
	s.fillVolume(0x11)
	s.copyFile(s.files[2], filepath.Join(s.dir, "back"))
	s.gvirstor("remove", "-e", "vol", s.files[2])
	s.term()
	back := filepath.Join(s.dir, "back")
	s.files[2] = back
	was := s.gvirstor("dump", back)
	s.start("--alloc", "spread")
	s.said("no member of vol")
	if st := s.gvirstor("status"); !strings.Contains(st, "vol: left alone: "+back+" is no member of vol") || !strings.Contains(st, "it was called ") {
		t.Errorf("status does not name what is left alone:\n%s", st)
	}
	if out := s.status().Outsiders; len(out) != 1 || out[0].Name != back || out[0].Kind != "no member" || out[0].Generation == 0 || out[0].Began == nil {
		t.Errorf("status in JSON: %+v", out)
	}
	b := make([]byte, 4<<20)
	if _, err := s.dial().ReadAt(b, 0); err != nil || !bytes.Equal(b, bytes.Repeat([]byte{0x11}, len(b))) {
		t.Errorf("the volume holds something else, %v", err)
	}
	s.term()
	if now := s.gvirstor("dump", back); now != was {
		t.Errorf("the label was\n%s\nand is\n%s", was, now)
	}
}

func TestOfTwoVolumesOfOneNameTheFirstNamedIsServedAndRenameMendsIt(t *testing.T) {
	s := newSite(t, 24<<20, 24<<20)
	first, second := s.files[0], s.files[1]
	for _, swap := range []bool{false, true} {
		if swap {
			first, second = second, first
		}
		s.gvirstor("label", "-m", "1m", "-s", "1g", "vol", first)
		s.gvirstor("label", "-m", "1m", "-s", "1g", "vol", second)
		s.files = []string{first, second}
		s.start()
		table, warning, _ := strings.Cut(s.gvirstor("status"), "gvirstor: ")
		if !strings.Contains(table, first) || strings.Contains(table, second) || !strings.Contains(warning, "--offline "+second+" vol NEW") {
			t.Errorf("served is\n%s, and the warning\n%s", table, warning)
		}
		s.said("another volume named vol, with the id ")
		s.fillVolume(0x33)
		if out := s.gvirstor("rename", "-n", "--run-dir", s.dir, "vol", "other"); out != "vol: could be called other\n" || strings.Contains(s.gvirstor("status"), "virstor/other") {
			t.Errorf("a dry run: %s", out)
		}
		s.gvirstor("rename", "--run-dir", s.dir, "vol", "other")
		if st := s.gvirstor("status"); !strings.Contains(st, "virstor/other") || !strings.Contains(st, "virstor/vol") {
			t.Errorf("after rename served is\n%s", st)
		}
		b := make([]byte, 4<<20)
		if _, err := s.dialName("other").ReadAt(b, 0); err != nil || !bytes.Equal(b, bytes.Repeat([]byte{0x33}, len(b))) {
			t.Errorf("the renamed volume holds something else, %v", err)
		}
		s.gvirstor("newid", "-f", "other")
		s.kill()
		s.name = "vol"
		s.gvirstor("check", first, second)
		s.gvirstor("clear", first, second)
	}
}
