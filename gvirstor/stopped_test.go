package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
)

const mib = 1 << 20

// offlineSite is a stopped volume, called vol, of files of 32 MiB with data in
// its chunks 1 to 12 of 1 MiB, of which 5 and 6 hold zeros.
type offlineSite struct {
	t     *testing.T
	dir   string
	files []string
}

func newOfflineSite(t *testing.T, handedBack bool) *offlineSite {
	t.Helper()
	s := &offlineSite{t: t, dir: t.TempDir()}
	if err := os.Chmod(s.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		s.files = append(s.files, s.file(fmt.Sprintf("c%d", i), 32*mib))
	}
	s.must(append([]string{"label", "-s", "1g", "-m", "1m", "vol"}, s.files...)...)
	s.with(func(v *virstor.Volume) {
		for i := int64(1); i <= 12; i++ {
			b := bytes.Repeat([]byte{byte(i)}, mib)
			if i == 5 || i == 6 {
				clear(b)
			}
			if _, err := v.WriteAt(b, i*mib); err != nil {
				t.Fatal(err)
			}
		}
		if handedBack {
			if err := v.Stop(); err != nil {
				t.Fatal(err)
			}
		}
	})
	return s
}

func (s *offlineSite) file(name string, size int64) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// with opens the volume, as the daemon does, and closes it.
func (s *offlineSite) with(do func(*virstor.Volume)) {
	s.t.Helper()
	var ms []virstor.Member
	for _, f := range s.files {
		p, err := geomlib.Open(f, geomlib.OpenOptions{})
		if err != nil {
			s.t.Fatal(err)
		}
		m, err := geomlib.ReadMetadata(p)
		if err != nil {
			s.t.Fatal(err)
		}
		ms = append(ms, virstor.Member{Provider: p, Metadata: m})
	}
	v, err := virstor.Open(virstor.Assemble(ms)[0], virstor.Config{Log: slog.New(slog.DiscardHandler), Alloc: virstor.Spread})
	if err != nil {
		s.t.Fatal(err)
	}
	do(v)
	_ = v.Close() // or closed already
}

func (s *offlineSite) run(args ...string) (status int, stdout, stderr string) {
	e, out, errs := testEnv(args...)
	status = run(context.Background(), e)
	return status, out.String(), errs.String()
}

func (s *offlineSite) must(args ...string) string {
	s.t.Helper()
	status, out, errs := s.run(args...)
	if status != 0 {
		s.t.Fatalf("gvirstor %s: %s%s", strings.Join(args, " "), out, errs)
	}
	return out
}

// job runs a verb offline on all files.
func (s *offlineSite) job(verb string, args ...string) (int, string, string) {
	return s.run(append([]string{verb, "--run-dir", filepath.Join(s.dir, "run"), "--offline", strings.Join(s.files, ",")}, args...)...)
}

// versions are those of the metadata of all files.
func (s *offlineSite) versions() string {
	s.t.Helper()
	var b strings.Builder
	for _, f := range s.files {
		raw, err := os.ReadFile(f)
		if err != nil {
			s.t.Fatal(err)
		}
		fmt.Fprint(&b, raw[len(raw)-512+16])
	}
	return b.String()
}

func (s *offlineSite) verify(v *virstor.Volume) {
	s.t.Helper()
	b := make([]byte, mib)
	for i := int64(1); i <= 12; i++ {
		want := byte(i)
		if i == 5 || i == 6 {
			want = 0
		}
		if _, err := v.ReadAt(b, i*mib); err != nil || b[0] != want || b[mib-1] != want {
			s.t.Errorf("chunk %d reads as %d: %v", i, b[0], err)
		}
	}
}

func TestJobsOnAStoppedVolume(t *testing.T) {
	for _, handedBack := range []bool{false, true} {
		s := newOfflineSite(t, handedBack)
		fresh := s.file("fresh", 48*mib)
		images := func() (all []string) {
			for _, f := range s.files {
				b, err := os.ReadFile(f)
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, string(b))
			}
			return all
		}
		was := images()
		for _, c := range []struct {
			verb string
			args []string
			want string
		}{
			{"reclaim", []string{"-n", "vol"}, "2 chunks, 2097152 bytes, would come back\n"},
			{"replace", []string{"-n", "vol", s.files[1], fresh}, "4 chunks, 4194304 bytes, would be moved\n"},
			{"resize", []string{"-n", "-s", "2g", "vol"}, "1073741824 bytes now, would be 2147483648\n"},
			{"rename", []string{"-n", "vol", "other"}, "vol: could be called other\n"},
		} {
			if status, out, errs := s.job(c.verb, c.args...); status != 0 || out != c.want {
				t.Errorf("%s %q: %d: %s%s", c.verb, c.args, status, out, errs)
			}
		}
		for i, now := range images() {
			if now != was[i] {
				t.Errorf("a dry run has written to %s", s.files[i])
			}
		}
		step := func(verb string, want string, args ...string) {
			t.Helper()
			if status, out, errs := s.job(verb, args...); status != 0 || !strings.Contains(out, want) {
				t.Fatalf("%s %q: %d: %s%s", verb, args, status, out, errs)
			}
		}
		step("reclaim", "2 chunks, 2097152 bytes, came back", "vol")
		step("resize", "2147483648 bytes", "-s", "2g", "vol")
		step("replace", "1 components removed", "vol", s.files[1], fresh)
		s.files[1] = fresh
		step("evacuate", "1 components removed", "vol", s.files[2])
		s.files = s.files[:2]
		step("pack", "chunks moved", "vol")
		// reclaim has made holes: the fence that this needs is for stop to lift.
		if now := s.versions(); now != "22" {
			t.Errorf("versions %s", now)
		}
		if status, out, errs := s.job("stop", "-v", "vol"); status != 0 || !strings.Contains(out, "handed back") || errs != "" {
			t.Errorf("stop: %d: %s%s", status, out, errs)
		}
		if now := s.versions(); now != "11" {
			t.Errorf("versions %s after stop", now)
		}
		step("resize", "3221225472 bytes", "-s", "3g", "vol")
		if now := s.versions(); now != "11" {
			t.Errorf("versions %s after a job on a volume that was handed back", now)
		}
		s.with(func(v *virstor.Volume) {
			s.verify(v)
			if v.Size() != 3<<30 || v.Status().Allocated != 10 {
				t.Errorf("size %d, %d chunks", v.Size(), v.Status().Allocated)
			}
		})
	}
}

func TestAJobOnAStoppedVolumeIsRefused(t *testing.T) {
	s := newOfflineSite(t, true)
	all := strings.Join(s.files, ",")
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--offline", s.files[0], "vol"}, "Can't open vol: "},
		{[]string{"--offline", all, "other"}, "is a component of vol, not of other"},
		{[]string{"--offline", all + ",/nonexistent", "vol"}, "Can't open /nonexistent: No such file or directory"},
		{[]string{"--offline", all, "-b", "vol"}, "-b and --offline exclude each other"},
	} {
		status, _, errs := s.run(append([]string{"reclaim", "--run-dir", filepath.Join(s.dir, "run")}, c.args...)...)
		if status != 1 || !strings.Contains(errs, c.want) {
			t.Errorf("%q: %d: %s", c.args, status, errs)
		}
	}
	s.with(func(*virstor.Volume) {
		if status, _, errs := s.job("reclaim", "vol"); status != 1 || !strings.Contains(errs, "Device busy") {
			t.Errorf("while it is served: %d: %s", status, errs)
		}
	})
}

func TestAnInterruptedOfflineJobGoesOn(t *testing.T) {
	s := newOfflineSite(t, true)
	ctx, cancel := context.WithCancel(context.Background())
	e, _, errs := testEnv("evacuate", "--run-dir", filepath.Join(s.dir, "run"), "--offline", strings.Join(s.files, ","),
		"--rate", "1m", "vol", s.files[2])
	signals := make(chan struct{}, 1)
	e.stderr = writerFunc(func(p []byte) (int, error) {
		signals <- struct{}{}
		return errs.Write(p)
	})
	ended := make(chan int, 1)
	go func() { ended <- run(ctx, e) }()
	tellProgress(t, signals)
	cancel()
	<-signals
	if status := <-ended; status != 1 || !strings.Contains(errs.String(), "goes on when the volume is next opened") ||
		!strings.Contains(errs.String(), "evacuate of vol: ") {
		t.Errorf("%d: %s", status, errs)
	}
	s.with(func(v *virstor.Volume) {
		j, ok := v.Job()
		if !ok || j.Kind != "evacuate" {
			t.Errorf("%+v", j)
		}
		s.verify(v)
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
