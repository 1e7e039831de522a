package blackbox

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// dirty is where an export has changed since a snapshot, as nbdinfo is told.
func (s *site) dirty(export, since string) (ranges [][2]int64) {
	s.t.Helper()
	var extents []struct {
		Offset, Length int64
		Type           int
	}
	uri := "nbd+unix:///" + export + "?socket=" + s.socket
	out := command(s.t, "nbdinfo", "--json", "--map=qemu:dirty-bitmap:"+since, uri)
	if err := json.Unmarshal([]byte(out), &extents); err != nil {
		s.t.Fatalf("%v: %s", err, out)
	}
	for _, e := range extents {
		if e.Type == 1 {
			ranges = append(ranges, [2]int64{e.Offset, e.Length})
		}
	}
	return ranges
}

// incremental brings a copy up to date as a client does that knows only NBD and dirty
// bitmaps: it copies what has changed in export since.
func (s *site) incremental(copied, export, since string) (bytes int64) {
	s.t.Helper()
	for _, r := range s.dirty(export, since) {
		part := fmt.Sprintf("driver=raw,offset=%d,size=%d,", r[0], r[1])
		command(s.t, "qemu-img", "convert", "-n",
			"--image-opts", part+"file.driver=nbd,file.server.type=unix,file.server.path="+s.socket+",file.export="+export,
			"--target-image-opts", part+"file.driver=file,file.filename="+copied)
		bytes += r[1]
	}
	return bytes
}

func TestIncrementalBackupsByDirtyBitmapsAreWhole(t *testing.T) {
	need(t, "nbdinfo", "qemu-img")
	s := newSite(t, 160*mib)
	s.label("-s", "256m", "-m", "1m")
	s.start()
	rng := rand.New(rand.NewPCG(4, 2))
	change := func() {
		c := s.dial()
		for range 6 {
			off := rng.Int64N(60*mib) &^ 511
			var err error
			switch b := make([]byte, 1+rng.IntN(2*mib)); rng.IntN(4) {
			case 0:
				err = c.Trim(off, 3*mib, 0)
			case 1:
				err = c.WriteZeroes(off, mib, 0)
			default:
				for i := range b {
					b[i] = byte(rng.Uint32())
				}
				_, err = c.WriteAt(b, off)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	change()
	s.gvirstor("snapshot", "vol@s0")
	if got := s.dirty("vol", "s0"); got != nil {
		t.Errorf("nothing was written since, %v is dirty", got)
	}
	copied := filepath.Join(s.dir, "copy")
	command(t, "qemu-img", "convert", "-f", "raw", "-O", "raw", s.snapshotURI("s0"), copied)
	for i := 1; i <= 2; i++ {
		change()
		now, before := fmt.Sprint("s", i), fmt.Sprint("s", i-1)
		s.gvirstor("snapshot", "vol@"+now)
		change() // which is in none of them
		if n := s.incremental(copied, "vol@"+now, before); n == 0 || n > 64*mib {
			t.Errorf("%d bytes were copied", n)
		}
		want := filepath.Join(s.dir, "want")
		command(t, "qemu-img", "convert", "-f", "raw", "-O", "raw", s.snapshotURI(now), want)
		command(t, "cmp", want, copied)
		if err := os.Remove(want); err != nil {
			t.Fatal(err)
		}
	}
	// From the first to the last at once.
	command(t, "qemu-img", "convert", "-f", "raw", "-O", "raw", s.snapshotURI("s0"), copied)
	s.incremental(copied, "vol@s2", "s0")
	command(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", s.snapshotURI("s2"), copied)

	var told struct {
		Ranges []struct{ Offset, Length int64 }
	}
	if err := json.Unmarshal([]byte(s.gvirstor("diff", "--json", "vol@s0", "vol@s2")), &told); err != nil {
		t.Fatal(err)
	}
	bytes, dirty := int64(0), int64(0)
	for _, r := range told.Ranges {
		bytes += r.Length
	}
	for _, r := range s.dirty("vol@s2", "s0") {
		dirty += r[1]
	}
	if bytes != dirty || dirty == 0 {
		t.Errorf("gvirstor diff tells of %d bytes, NBD of %d", bytes, dirty)
	}

	out := command(t, "nbdinfo", "--list", "--json", "nbd+unix:///?socket="+s.socket)
	var listed struct {
		Exports []struct {
			Name     string   `json:"export-name"`
			Contexts []string `json:"contexts"`
		}
	}
	if err := json.Unmarshal([]byte(out), &listed); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"vol": "s0 s1 s2", "vol@s0": "", "vol@s1": "s0", "vol@s2": "s0 s1"}
	for _, e := range listed.Exports {
		var names []string
		for _, c := range e.Contexts {
			if name, ok := strings.CutPrefix(c, "qemu:dirty-bitmap:"); ok {
				names = append(names, name)
			}
		}
		if got := strings.Join(names, " "); got != want[e.Name] {
			t.Errorf("%s has the bitmaps %q, want %q", e.Name, got, want[e.Name])
		}
		delete(want, e.Name)
	}
	if len(want) > 0 {
		t.Errorf("not listed: %v", want)
	}
}
