package blackbox

import (
	"bufio"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib/history"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

func TestWhatWasDoneIsKnownAfterwardsByWhomAndWhen(t *testing.T) {
	for _, supervise := range []string{"no", "auto"} { // as root the second has a supervisor
		t.Run(supervise, func(t *testing.T) {
			s := newSite(t, 24*mib)
			s.label("-s", "1g", "-m", "1m")
			s.start("--supervise=" + supervise)
			more := s.file("more", 24*mib)
			s.gvirstor("add", "vol", more)
			if out, err := s.tryGvirstor("add", "vol", more); err == nil {
				t.Errorf("%s", out)
			}
			s.gvirstor("remove", "vol", more)
			s.said(`msg="done as asked" verb=add volume=vol`)
			s.said(`msg="not done as asked" verb=add volume=vol`)
			dir := filepath.Join(s.dir, "backups")
			var out string
			var lines []string
			s.until("the last deed is noted", func() bool { // which is when its answer has been given
				out = s.gvirstor("history", "--backup-dir", dir, "vol")
				lines = strings.Split(strings.TrimSpace(out), "\n")
				return len(lines) >= 3
			})
			if len(lines) != 3 || !strings.Contains(lines[0], "  add vol  ") || !strings.Contains(lines[0], more) ||
				!strings.Contains(lines[1], "failed: Component "+more+" already in vol") || !strings.Contains(lines[2], "  remove vol  ") {
				t.Errorf("%s", out)
			}
			var kept struct{ Deeds []history.Deed }
			if err := json.Unmarshal([]byte(s.gvirstor("history", "--json", "--backup-dir", dir)), &kept); err != nil || len(kept.Deeds) != 3 || kept.Deeds[0].UID == nil {
				t.Errorf("%+v, %v", kept, err)
			}
			s.term()
			if again := s.gvirstor("history", "--backup-dir", dir, "vol"); again != out {
				t.Errorf("when the daemon has ended:\n%s", again)
			}
		})
	}
}

func TestEventsAreShownAsTheyHappen(t *testing.T) {
	s := newSite(t, 24*mib)
	s.label("-s", "1g", "-m", "1m")
	s.start()
	c := exec.CommandContext(t.Context(), filepath.Join(programs, "gvirstor"), "--control", s.control, "events", "--json", "vol")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 16)
	go func() {
		defer close(lines)
		for sc := bufio.NewScanner(out); sc.Scan(); {
			lines <- sc.Text()
		}
	}()
	// The stream stands at some time: until then nobody is told.
	var line string
	s.until("an event is shown", func() bool {
		s.gvirstor("alert", "--test", "vol")
		select {
		case line = <-lines:
			return true
		default:
			return false
		}
	})
	var e control.Event
	if err := json.Unmarshal([]byte(line), &e); err != nil || e.Volume != "vol" || e.Kind == "" {
		t.Errorf("%q: %v", line, err)
	}
	s.term()
	for range lines {
	}
	if err := c.Wait(); err == nil {
		t.Error("events ends well though the daemon has ended")
	}
}
