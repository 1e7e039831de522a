package blackbox

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestAnExportIsNamedWhereverAProviderIs: in the configuration, as a spare there and by a
// verb, as what replaces another, and where providers are looked at.
func TestAnExportIsNamedWhereverAProviderIs(t *testing.T) {
	for _, front := range []string{"no", "yes"} {
		t.Run("supervise="+front, func(t *testing.T) {
			if front == "yes" && os.Geteuid() != 0 {
				t.Skip("not root")
			}
			s := newSite(t, 32<<20, 64<<20, 64<<20, 64<<20)
			s.exporting()
			first, spare, other, target := s.files[0], s.files[1], s.files[2], s.files[3]
			s.files = s.files[:1]
			s.label("-m", "1m", "-s", "256m")
			s.files = nil
			config := filepath.Join(s.dir, "conf")
			if err := os.WriteFile(config, []byte("provider = "+first+"\nspare = vol="+spare+"\nspare-at = 50\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			s.start("--config", config, "--supervise="+front)
			if got := s.status().Spares; len(got) != 1 || !strings.Contains(got[0].Failed, "`gvirstor spare vol '"+spare+"'` makes it one") {
				t.Errorf("a spare that nobody made one: %+v", got)
			}
			s.gvirstor("spare", "vol", spare, other)
			if got := s.status().Spares; len(got) != 2 || got[0].Failed+got[1].Failed != "" {
				t.Errorf("spares: %+v", got)
			}
			c := s.dial()
			block := []byte(strings.Repeat("written", 1<<17))
			for i := range int64(20) {
				if _, err := c.WriteAt(block, i<<20); err != nil {
					t.Fatal(err)
				}
			}
			s.until("a spare is added", func() bool { return len(s.status().Components) == 2 })
			s.gvirstor("replace", "vol", first, target)
			for i := range int64(20) {
				got := make([]byte, len(block))
				if _, err := c.ReadAt(got, i<<20); err != nil || string(got) != string(block) {
					t.Errorf("block %d: %v, or something else", i, err)
				}
			}
			var names []string
			for _, part := range s.status().Components {
				names = append(names, part.Name)
			}
			if names[0] != target || names[1] != spare && names[1] != other {
				t.Errorf("components: %q", names)
			}
			s.term()
			if out := s.gvirstor(append([]string{"check"}, names...)...); !strings.Contains(out, "No errors.") {
				t.Errorf("check:\n%s", out)
			}
			if out := s.gvirstor(append([]string{"scan"}, names...)...); !strings.Contains(out, "vol") {
				t.Errorf("scan:\n%s", out)
			}
		})
	}
}
