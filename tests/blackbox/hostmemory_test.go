package blackbox

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// holds checks that the first chunks of the volume are full of b.
func (s *site) holds(b byte) {
	s.t.Helper()
	got := make([]byte, 4<<20)
	if _, err := s.dial().ReadAt(got, 0); err != nil || !bytes.Equal(got, bytes.Repeat([]byte{b}, len(got))) {
		s.t.Errorf("the volume is not full of %#x, %v", b, err)
	}
}

// copies copies all components aside, or back.
func (s *site) copies(back bool) {
	s.t.Helper()
	for _, f := range s.files {
		if back {
			s.copyFile(f+".old", f)
		} else {
			s.copyFile(f, f+".old")
		}
	}
}

func TestOlderCopiesOfAllComponentsAreRefusedAndServedByForce(t *testing.T) {
	for _, supervise := range []string{"no", "yes"} {
		t.Run("supervise="+supervise, func(t *testing.T) {
			s := newSite(t, 24<<20, 24<<20)
			s.label("-m", "1m", "-s", "1g")
			flag := "--supervise=" + supervise
			s.start(flag)
			s.fillVolume(0x11)
			s.term()
			s.copies(false)
			s.start(flag)
			s.fillVolume(0x22)
			s.term()
			s.copies(true)
			s.launch(flag)
			<-s.done
			for _, want := range []string{"older than what was served here", "this host has served", "--force-old vol"} {
				if !strings.Contains(s.log.String(), want) {
					t.Errorf("the log does not say %q:\n%s", want, s.log)
				}
			}
			for _, f := range s.files {
				is, err := os.ReadFile(f)
				was, e := os.ReadFile(f + ".old")
				if err := errors.Join(err, e); err != nil || !bytes.Equal(is, was) {
					t.Errorf("the refused copy %s was written to, %v", f, err)
				}
			}
			at := []string{"--run-dir", s.dir, "--state-dir", filepath.Join(s.dir, "state"), "--offline", s.files[0] + "," + s.files[1], "vol"}
			for _, verb := range [][]string{{"pack", "-n"}, {"stop"}, {"rename"}} {
				args := append(verb, at...)
				if verb[0] == "rename" {
					args = append(args, "other")
				}
				if out, err := s.tryGvirstor(args...); err == nil || !strings.Contains(out, "--force-old") {
					t.Errorf("%s of older copies: %v\n%s", verb[0], err, out)
				}
			}
			s.gvirstor(append([]string{"pack", "-n", "--force-old"}, at...)...)
			s.start(flag, "-f", "vol")
			s.said("an older state of the volume is served")
			s.holds(0x11)
			s.term()
			s.start(flag) // it is what this host served last
			s.holds(0x11)
		})
	}
}

func TestAVolumeThatWasHandedBackComesBackWithoutForce(t *testing.T) {
	for _, offline := range []bool{false, true} {
		s := newSite(t, 24<<20, 24<<20)
		s.label("-m", "1m", "-s", "1g")
		s.start()
		s.fillVolume(0x11)
		if offline {
			s.term()
			s.gvirstor("stop", "-v", "--run-dir", s.dir, "--state-dir", filepath.Join(s.dir, "state"), "--offline", s.files[0]+","+s.files[1], "vol")
		} else {
			s.gvirstor("stop", "-v", "vol")
			s.term()
		}
		for range 2 { // as it was handed back, and as this host served it since
			s.start()
			s.holds(0x11)
			s.term()
		}
		s.gvirstor("clear", s.files[0], s.files[1])
		s.label("-m", "1m", "-s", "1g") // anew
		s.start()
		s.kill()
	}
}
