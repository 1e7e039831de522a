package blackbox

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// hostileNames are what a stranger may have called a volume: what clears a screen,
// is no UTF-8, writes from right to left, looks like a line of its own.
var hostileNames = []string{"\x1b[2Jgone", "\xff\xfe\x80", "ab\u202egnp.exe", "x\nEVIL: line", "\u009b31mred", "tab\tDEL\x7f"}

// rename puts another volume's name into the metadata on a file: 16 bytes behind
// magic and version.
func rename(t testing.TB, path, name string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := len(b) - 512
	field := b[at+20 : at+36]
	clear(field)
	copy(field, name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// mustBeShown fails where a terminal would do what text says, or a name makes a line.
func mustBeShown(t testing.TB, what, text string) {
	t.Helper()
	if !utf8.ValidString(text) {
		t.Errorf("%s is no UTF-8: %q", what, text)
	}
	for _, r := range text {
		if r != '\n' && r != '\t' && !strconv.IsPrint(r) {
			t.Errorf("%s holds %q: %q", what, r, text)
			break
		}
	}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(strings.TrimSpace(line), "EVIL") {
			t.Errorf("%s has a line of a name's: %q", what, text)
		}
	}
}

func TestNoNameFromADiskReachesATerminalAsItIs(t *testing.T) {
	for _, name := range hostileNames {
		t.Run(fmt.Sprintf("%q", name), func(t *testing.T) {
			s := newSite(t, 8*mib, 8*mib)
			s.label("-s", "32m", "-m", "1m")
			backup, svg, journal := filepath.Join(s.dir, "good"), filepath.Join(s.dir, "svg"), filepath.Join(s.dir, "journal")
			for _, f := range s.files {
				rename(t, f, name)
			}
			say := func(args ...string) {
				t.Helper()
				out, _ := s.tryGvirstor(args...)
				mustBeShown(t, strings.Join(args, " "), out)
			}
			all := func(args ...string) []string { return append(args, s.files...) }
			for _, args := range [][]string{
				all("dump"), all("dump", "--json"), all("check", "-v"), all("check", "--json"), all("repair", "-n"), all("repair", "--json"),
				all("backup", "-v", backup), all("restore", "-nv", backup), all("restore", "-v", backup), all("map"), all("map", "--json"),
				all("map", "--svg", svg), all("repair", "-y", "--save", journal), {"dump", s.files[0] + name}, {"clear", s.files[0] + name},
				{"status", name}, {"list", name}, {"no-such-verb" + name}, {"label", "-s", "1g", name, s.files[0]},
				all("repair", "--undo", s.files[0]), {"add", name, s.files[0]}, {"expand", name, s.files[0]},
			} {
				say(args...)
			}
			for _, f := range s.files {
				rename(t, f, name)
			}
			// A sound volume beside it keeps the daemon up.
			s.gvirstor("label", "-s", "32m", "-m", "1m", "sound", s.file("sound", 8*mib))
			s.files = append(s.files, filepath.Join(s.dir, "sound"))
			s.start("--http", "127.0.0.1:0")
			s.said("metrics and health")
			for _, args := range [][]string{
				{"status"}, {"status", "-a"}, {"status", "-ag"}, {"status", "-s"}, {"status", "-p"}, {"status", "--json"},
				{"list", "-a"}, {"list", "-p"}, {"list", "--json"}, {"status", name}, {"stop", name}, {"add", "sound", s.files[0]},
				{"check", s.files[0]}, {"map", "sound"},
			} {
				say(args...)
			}
			address := s.log.String()
			_, address, _ = strings.Cut(address, " http=")
			address = strings.Fields(address)[0]
			for _, page := range []string{"/readyz", "/metrics"} {
				answer, err := (&http.Client{Timeout: time.Minute}).Get("http://" + address + page)
				if err != nil {
					t.Fatal(err)
				}
				b, _ := io.ReadAll(answer.Body)
				answer.Body.Close()
				mustBeShown(t, page, string(b))
			}
			s.term()
			mustBeShown(t, "the log", s.log.String())
			// The last words of a daemon that has nothing else.
			rename(t, s.files[0], "other")
			args := []string{"--control", s.control, "--run-dir", s.dir, "--backup-dir", "", "--state-dir", "", s.files[1]}
			var out bytes.Buffer
			c := exec.CommandContext(t.Context(), filepath.Join(programs, "ggated-virstor"), args...)
			c.Stderr = &out
			if err := c.Run(); err == nil {
				t.Error("half a volume is served")
			}
			mustBeShown(t, "the last words", out.String())
		})
	}
}
