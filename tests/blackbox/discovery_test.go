package blackbox

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWhatAddBroughtIsOpenedAtTheNextStartAndMissedByItsPath(t *testing.T) {
	for _, supervise := range []string{"no", "auto"} { // as root the second has a supervisor
		t.Run(supervise, func(t *testing.T) {
			s := newSite(t, 24*mib, 24*mib)
			s.label("-s", "1g", "-m", "1m")
			s.start("--supervise=" + supervise)
			more := s.file("more", 24*mib)
			s.gvirstor("add", "vol", more)
			s.term()
			s.start("--supervise=" + supervise)
			if n := len(s.status().Components); n != 3 {
				t.Errorf("%d components", n)
			}
			s.said("a component that nobody named is where this host last served it")
			states := filepath.Join(s.dir, "state")
			if out := s.gvirstor("scan", "--state-dir", states, s.dir); !strings.Contains(out, "): served\n") || !strings.Contains(out, "component 2  "+more) {
				t.Errorf("%s", out)
			}
			s.term()
			away := filepath.Join(s.dir, "away")
			if err := os.Mkdir(away, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(more, filepath.Join(away, "more")); err != nil {
				t.Fatal(err)
			}
			want := "component 2 of 3 of vol is missing; when this host last served it, component 2 was " + more
			if out := s.gvirstor("scan", "--state-dir", states, s.dir); !strings.Contains(out, "incomplete: "+want) {
				t.Errorf("%s", out)
			}
			if out := s.gvirstor("scan", s.dir, away); !strings.Contains(out, "): complete\n") {
				t.Errorf("%s", out)
			}
			s.launch("--supervise=" + supervise)
			s.said(want)
			<-s.done
			s.cmd = nil
		})
	}
}
