package blackbox

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib/virstor/backup"
)

// kept are the backups that the daemon has made, the oldest first.
func (s *site) kept() []*backup.Backup {
	s.t.Helper()
	paths, err := filepath.Glob(filepath.Join(s.dir, "backups", "*.backup"))
	if err != nil {
		s.t.Fatal(err)
	}
	slices.Sort(paths)
	var all []*backup.Backup
	for _, p := range paths {
		b, err := backup.Load(p)
		if errors.Is(err, fs.ErrNotExist) { // a later one has taken its place meanwhile
			continue
		}
		if err != nil {
			s.t.Fatal(err)
		}
		all = append(all, b)
	}
	return all
}

// last waits until the last backup is as ok wants it.
func (s *site) last(what string, ok func(*backup.Backup) bool) {
	s.t.Helper()
	s.until("a backup is kept of "+what, func() bool {
		all := s.kept()
		return len(all) > 0 && ok(all[len(all)-1])
	})
}

func TestTheDaemonKeepsTheLastBackups(t *testing.T) {
	for _, flags := range [][]string{{"--backups", "3"}, {"--backups", "3", "--supervise"}} {
		t.Run(flags[len(flags)-1], func(t *testing.T) {
			s := newSite(t, 64<<20, 64<<20)
			s.label("-s", "1g", "-m", "1m")
			s.start(flags...)
			c := s.dial()
			data := bytes.Repeat([]byte("map and metadata"), 256)
			if _, err := c.WriteAt(data, 200<<20); err != nil {
				t.Fatal(err)
			}
			third := s.file("disk2", 64<<20)
			s.gvirstor("add", "vol", third)
			s.last("three components", func(b *backup.Backup) bool { return len(b.Components) == 3 })
			s.gvirstor("remove", "vol", third)
			s.last("two components", func(b *backup.Backup) bool { return len(b.Components) == 2 })
			s.gvirstor("resize", "-s", "2g", "vol")
			s.last("the new size", func(b *backup.Backup) bool { return b.Components[0].Metadata.VirtualSize == 2<<30 })
			if _, err := c.WriteAt(data, 1500<<20); err != nil {
				t.Fatal(err)
			}
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			s.gvirstor("stop", "vol")
			all := s.kept()
			if len(all) != 3 || all[2].Allocated() != 2 {
				t.Fatalf("%d backups, the last with %d chunks", len(all), all[len(all)-1].Allocated())
			}
			s.term()

			// Lose the map and all metadata, and have them back.
			f, err := os.OpenFile(s.files[0], os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteAt(make([]byte, 1<<16), 0); err != nil {
				t.Fatal(err)
			}
			f.Close()
			s.gvirstor(append([]string{"clear"}, s.files...)...)
			paths, err := backup.List(filepath.Join(s.dir, "backups"), all[2].ID())
			if err != nil {
				t.Fatal(err)
			}
			s.gvirstor(append([]string{"restore", "--run-dir", s.dir, "--in-order", paths[len(paths)-1]}, s.files...)...)
			s.start(flags...)
			c = s.dial()
			for _, off := range []int64{200 << 20, 1500 << 20} {
				got := make([]byte, len(data))
				if _, err := c.ReadAt(got, off); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, data) {
					t.Errorf("what was written at %d is not there after the restore", off)
				}
			}
		})
	}
}
