package blackbox

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestOfTwoHistoriesTheChosenOneIsServedAndTheOtherIsStale(t *testing.T) {
	s := newSite(t, 24<<20, 24<<20)
	s.label("-m", "1m", "-s", "1g")
	s.start()
	s.fillVolume(0x11)
	s.term()
	first, second := s.files, []string{s.files[0] + ".copy", s.files[1] + ".copy"}
	for i, f := range first {
		s.copyFile(f, second[i])
	}
	s.start()
	s.fillVolume(0x22)
	s.term()
	state := filepath.Join(s.dir, "state")
	if err := os.RemoveAll(state); err != nil { // as on another host
		t.Fatal(err)
	}
	s.files = second
	s.start()
	s.fillVolume(0x33)
	s.term()

	all := slices.Concat(first, second)
	if out, err := s.tryGvirstor(append([]string{"check"}, all...)...); err == nil || !strings.Contains(out, "[two-histories]") {
		t.Errorf("check: %v\n%s", err, out)
	}
	repair := func(args ...string) (string, error) {
		return s.tryGvirstor(slices.Concat([]string{"repair", "--run-dir", s.dir, "--state-dir", state, "--save", filepath.Join(s.dir, "saved"), "--history", first[1]}, args, all)...)
	}
	if out, err := repair("-y"); err == nil || !strings.Contains(out, "(-f)") {
		t.Errorf("without -f: %v\n%s", err, out)
	}
	if out, err := repair("-yf"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s.files = all
	s.start() // this host served the second copy last: it is not older than that
	s.holds(0x22)
	if out := s.status().Outsiders; len(out) != 2 || !slices.Contains(second, out[0].Name) || !slices.Contains(second, out[1].Name) {
		t.Errorf("left alone: %+v", out)
	}
	s.term()
	if out, err := s.tryGvirstor(append([]string{"check"}, all...)...); err == nil || strings.Count(out, "[member-stale]") != 2 {
		t.Errorf("check afterwards: %v\n%s", err, out)
	}
	s.gvirstor(append([]string{"check"}, first...)...)
}
