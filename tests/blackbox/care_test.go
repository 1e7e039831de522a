package blackbox

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
)

func TestNothingTakesAFileSystemWithoutForce(t *testing.T) {
	need(t, "mkfs.ext4")
	s := newSite(t, 24*mib, 24*mib)
	s.label("-s", "1g", "-m", "1m")
	s.start()
	ext4 := s.file("ext4", 32*mib)
	command(t, "mkfs.ext4", "-q", "-F", ext4)
	was, err := os.ReadFile(ext4)
	if err != nil {
		t.Fatal(err)
	}
	verbs := [][]string{
		{"label", "-m", "1m", "-s", "1g", "other", ext4},
		{"label", "-n", "-m", "1m", "-s", "1g", "other", ext4},
		{"spare", "vol", ext4},
		{"add", "vol", ext4},
		{"replace", "-n", "vol", s.files[1], ext4},
		{"replace", "vol", s.files[1], ext4},
	}
	for _, verb := range verbs {
		out, err := s.tryGvirstor(verb...)
		if err == nil || !strings.Contains(out, ext4+" holds an ext4 file system; with -f ") {
			t.Errorf("%s: %v\n%s", strings.Join(verb, " "), err, out)
		}
	}
	if is, err := os.ReadFile(ext4); err != nil || !bytes.Equal(is, was) {
		t.Fatalf("the file system was written to (%v)", err)
	}
	if n := len(s.status().Components); n != 2 {
		t.Errorf("the volume has %d components", n)
	}
	s.gvirstor("spare", "-f", "vol", ext4)
	p, err := geomlib.Open(ext4, geomlib.OpenOptions{ReadOnly: true, NoLock: true})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if l, err := geomlib.ReadSpare(p); err != nil || l.Name != "vol" {
		t.Errorf("%v, %v", l, err)
	}
	s.gvirstor("spare", "-r", "vol", ext4)
	s.gvirstor("replace", "-f", "vol", s.files[1], ext4)
	s.term()
}
