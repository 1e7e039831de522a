package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/verbs"
)

// stoppedSite is a volume that nobody serves.
type stoppedSite struct {
	t     *testing.T
	name  string
	dir   string
	files []string
}

// newStoppedSite labels a volume of that size and chunk size on components of n bytes each.
func newStoppedSite(t *testing.T, name, size, chunk string, components ...int64) *stoppedSite {
	t.Helper()
	s := &stoppedSite{t: t, name: name, dir: t.TempDir()}
	for i, n := range components {
		path := filepath.Join(s.dir, fmt.Sprint("c", i))
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, n); err != nil {
			t.Fatal(err)
		}
		s.files = append(s.files, path)
	}
	e, _, stderr := testEnv(append([]string{"label", "-s", size, "-m", chunk, name}, s.files...)...)
	if run(context.Background(), e) != 0 {
		t.Fatal(stderr)
	}
	return s
}

// again is a copy of the site.
func (s *stoppedSite) again() *stoppedSite {
	s.t.Helper()
	c := &stoppedSite{t: s.t, name: s.name, dir: s.t.TempDir()}
	for _, f := range s.files {
		b, err := os.ReadFile(f)
		path := filepath.Join(c.dir, filepath.Base(f))
		if err == nil {
			err = os.WriteFile(path, b, 0o600)
		}
		if err != nil {
			s.t.Fatal(err)
		}
		c.files = append(c.files, path)
	}
	return c
}

// change opens the volume for do.
func (s *stoppedSite) change(do func(v *virstor.Volume) error) {
	s.t.Helper()
	v := openVolume(s.t, s.files...)
	if err := do(v); err != nil {
		s.t.Fatal(err)
	}
	if err := v.Close(); err != nil {
		s.t.Fatal(err)
	}
}

// verb runs a verb on the volume, with that as its input.
func (s *stoppedSite) verb(stdin []byte, verb string, args ...string) (stdout, stderr string, ok bool) {
	e, out, errs := testEnv(append([]string{verb, "--run-dir", s.dir, "--state-dir", s.dir, "--offline", strings.Join(s.files, ",")}, args...)...)
	e.stdin = bytes.NewReader(stdin)
	code := run(context.Background(), e)
	return out.String(), errs.String(), code == 0
}

// sent is a stream of a snapshot.
func (s *stoppedSite) sent(args ...string) []byte {
	s.t.Helper()
	out, errs, ok := s.verb(nil, "send", args...)
	if !ok {
		s.t.Fatalf("send %s: %s", args, errs)
	}
	return []byte(out)
}

// receives has the volume receive a stream, which must fit.
func (s *stoppedSite) receives(b []byte, args ...string) {
	s.t.Helper()
	if _, errs, ok := s.verb(b, "receive", append(args, s.name)...); !ok {
		s.t.Fatal(errs)
	}
}

// refuses has the volume receive a stream, which must fail for a reason.
func (s *stoppedSite) refuses(b []byte, why string, args ...string) string {
	s.t.Helper()
	out, errs, ok := s.verb(b, "receive", append(args, s.name)...)
	if ok || !strings.Contains(errs, why) {
		s.t.Errorf("%s%s, not: %s", out, errs, why)
	}
	return errs
}

// holds is what a snapshot, or without a name the volume, holds, and how many snapshots there
// are.
func (s *stoppedSite) holds(snapshot string) (b []byte, snapshots int) {
	s.t.Helper()
	s.change(func(v *virstor.Volume) error {
		b = make([]byte, v.Size())
		snapshots = len(v.Snapshots())
		if snapshot == "" {
			_, err := v.ReadAt(b, 0)
			return err
		}
		for _, info := range v.Snapshots() {
			for off := 0; info.Name == snapshot && off < len(b); off += control.MaxPiece {
				d, err := verbs.Engine{Vol: v}.Read(context.Background(), "", control.ReadRequest{Snapshot: snapshot, ID: info.ID, Offset: int64(off), Length: control.MaxPiece})
				if err != nil {
					return err
				}
				copy(b[off:], d.Data)
			}
		}
		return nil
	})
	return b, snapshots
}

// sameSnapshot fails the test unless both have the snapshot, with the same in it.
func sameSnapshot(t *testing.T, a, b *stoppedSite, name string) {
	t.Helper()
	x, _ := a.holds(name)
	y, _ := b.holds(name)
	n := min(len(x), len(y))
	if !bytes.Equal(x[:n], y[:n]) || len(bytes.Trim(append(x[n:], y[n:]...), "\x00")) > 0 || len(bytes.Trim(x, "\x00")) == 0 {
		t.Errorf("@%s differs", name)
	}
}

// origin has the snapshots monday and tuesday, of which each chunk was written, zeroed or
// discarded here and there, and changes since.
func origin(t *testing.T) *stoppedSite {
	t.Helper()
	s := newStoppedSite(t, "vol", "128m", "1m", 24<<20, 24<<20)
	rng := rand.New(rand.NewPCG(3, 4))
	s.change(func(v *virstor.Volume) error {
		for _, name := range []string{"monday", "tuesday", ""} {
			for range 6 {
				b := make([]byte, 1+rng.IntN(1<<20))
				for i := range b {
					b[i] = byte(rng.Uint32())
				}
				if _, err := v.WriteAt(b, rng.Int64N(10<<20)); err != nil {
					return err
				}
				if err := v.WriteZeroes(rng.Int64N(10<<20), 100<<10, 0); err != nil {
					return err
				}
			}
			if err := v.Discard(rng.Int64N(8)<<20, 2<<20); err != nil {
				return err
			}
			if name != "" {
				if err := v.Snapshot(name); err != nil {
					return err
				}
			}
		}
		return nil
	})
	return s
}

// mark finds how to go on in what receive says.
func mark(t *testing.T, said string) string {
	t.Helper()
	m := regexp.MustCompile("--resume (receive-[0-9a-f]+-[0-9a-f]+) ").FindStringSubmatch(said)
	if m == nil {
		t.Fatalf("no mark: %s", said)
	}
	return m[1]
}

func TestWhatIsSentIsReceivedOnOtherChunksAndComponents(t *testing.T) {
	a := origin(t)
	full, since := a.sent("vol@monday"), a.sent("-i", "@monday", "vol@tuesday")
	if len(full) > 10<<20 { // of 128 MiB
		t.Errorf("holes cost something: %d bytes", len(full))
	}
	for _, b := range []*stoppedSite{
		newStoppedSite(t, "copy", "128m", "2m", 30<<20, 20<<20, 16<<20),
		newStoppedSite(t, "copy", "256m", "4m", 100<<20),
	} {
		if out, errs, ok := b.verb(full, "receive", "-n", "copy"); !ok || !strings.Contains(out, "copy@monday would be received: a full stream of vol@monday") {
			t.Errorf("%s%s", out, errs)
		}
		b.receives(full)
		sameSnapshot(t, a, b, "monday")
		if out, errs, ok := b.verb(since, "receive", "--json", "copy"); !ok || !strings.Contains(out, `"done": true`) {
			t.Errorf("%s%s", out, errs)
		}
		sameSnapshot(t, a, b, "tuesday")
		sameSnapshot(t, a, b, "monday")
		// And on, from there, to a third.
		c := newStoppedSite(t, "third", "256m", "1m", 40<<20)
		c.receives(b.sent("copy@monday"))
		c.receives(b.sent("-i", "@monday", "copy@tuesday"))
		sameSnapshot(t, a, c, "tuesday")
	}
}

func TestAStreamThatIsCutOffGoesOnWhereItWas(t *testing.T) {
	a := origin(t)
	empty := newStoppedSite(t, "copy", "128m", "2m", 30<<20, 30<<20)
	full := a.sent("vol@monday")
	for i := range 10 {
		b := empty.again()
		said := b.refuses(full[:len(full)*(2*i+1)/20], "the stream is cut off")
		if _, n := b.holds("monday"); n > 1 {
			t.Fatalf("%d snapshots", n)
		}
		if strings.Contains(said, "nothing was received") {
			b.receives(full)
		} else {
			rest := a.sent("--resume", mark(t, said), "vol@monday")
			if len(rest) >= len(full) {
				t.Errorf("the rest is %d bytes of %d", len(rest), len(full))
			}
			b.receives(rest)
		}
		sameSnapshot(t, a, b, "monday")
		if _, n := b.holds(""); n != 1 {
			t.Errorf("%d snapshots are left", n)
		}
	}

	// One that is cut off, or damaged, again and again.
	b := empty.again()
	b.receives(full)
	next := a.sent("-i", "@monday", "vol@tuesday")
	for i := range 4 {
		if i%2 == 1 {
			next[len(next)/2] ^= 4
		} else {
			next = next[:len(next)/2]
		}
		said := b.refuses(next, "stream")
		next = a.sent("-i", "@monday", "--resume", mark(t, said), "vol@tuesday")
	}
	b.receives(next)
	sameSnapshot(t, a, b, "tuesday")
	if _, n := b.holds(""); n != 2 {
		t.Errorf("%d snapshots are left", n)
	}
}

func TestAFurtherVolumeIsMadeOfAStream(t *testing.T) {
	a := origin(t)
	full, since := a.sent("vol@monday"), a.sent("-i", "@monday", "vol@tuesday")
	b := newStoppedSite(t, "copy", "16m", "1m", 40<<20, 30<<20)
	into := func(stream []byte, want string, args ...string) string {
		t.Helper()
		out, errs, ok := b.verb(stream, "receive", append(args, "copy/web")...)
		if ok != (want == "") || !strings.Contains(errs, want) {
			t.Fatalf("%s%s, not: %s", out, errs, want)
		}
		return out + errs
	}
	there := func() (n int) {
		b.change(func(v *virstor.Volume) error { n = len(v.Volumes()); return nil })
		return n
	}
	if said := into(full, "", "-n"); !strings.Contains(said, "copy/web@monday would be received") || there() != 0 {
		t.Errorf("%s", said)
	}
	into(since, "no such volume")
	if into(full[:len(full)/50], "nothing was received"); there() != 0 {
		t.Error("what was cut off leaves a volume behind")
	}
	said := into(full[:len(full)/2], "the stream is cut off")
	into(a.sent("--resume", mark(t, said), "vol@monday"), "")
	into(since, "")
	into(since, "is what the stream would bring")
	c := newStoppedSite(t, "third", "128m", "2m", 60<<20)
	c.receives(b.sent("copy/web@monday"))
	c.receives(b.sent("-i", "@monday", "copy/web@tuesday"))
	for _, name := range []string{"monday", "tuesday"} {
		sameSnapshot(t, a, c, name)
	}
	if _, n := b.holds(""); n != 0 {
		t.Errorf("the volume itself has %d snapshots", n)
	}
}

func TestAStreamThatDoesNotFitChangesNothing(t *testing.T) {
	a := origin(t)
	full, since := a.sent("vol@monday"), a.sent("-i", "@monday", "vol@tuesday")
	later := bytes.Clone(full)
	later[16]++ // the version
	empty := newStoppedSite(t, "copy", "128m", "2m", 30<<20, 30<<20)
	for why, b := range map[string][]byte{
		"the newest snapshot of copy is not the one on which the stream builds": since,
		"stream of a later version": later,
		"damaged stream":            []byte(strings.Repeat("not a stream", 10)),
		"the stream is cut off":     nil,
	} {
		empty.refuses(b, why)
		empty.refuses(b, why, "-n")
	}
	small := newStoppedSite(t, "copy", "64m", "1m", 40<<20)
	small.refuses(full, "the stream is of a volume of 134217728 bytes, copy has 67108864")
	if b, n := empty.holds(""); n != 0 || len(bytes.Trim(b, "\x00")) > 0 {
		t.Errorf("%d snapshots", n)
	}

	b := empty.again()
	b.receives(full)
	b.refuses(full, "copy@monday is what the stream would bring")
	b.change(func(v *virstor.Volume) error {
		_, err := v.WriteAt([]byte{1}, 0)
		return err
	})
	b.refuses(since, "copy was written to since copy@monday, 2097152 bytes")
	was, _ := b.holds("")
	tuesday := a.sent("vol@tuesday")
	b.refuses(tuesday, "copy is not empty")
	if is, n := b.holds(""); n != 1 || !bytes.Equal(is, was) {
		t.Error("what was refused has changed something")
	}
	b.receives(tuesday, "-f")
	sameSnapshot(t, a, b, "tuesday")
	sameSnapshot(t, a, b, "monday")
	b.change(func(v *virstor.Volume) error { return v.Snapshot("later") })
	b.refuses(a.sent("-i", "@monday", "vol@tuesday"), "copy@tuesday is what the stream would bring")

	// Written to since it was cut off.
	c := empty.again()
	m := mark(t, c.refuses(full[:len(full)/2], "cut off"))
	rest := a.sent("--resume", m, "vol@monday")
	d := c.again()
	c.change(func(v *virstor.Volume) error { return v.Discard(0, 2<<20) })
	c.refuses(rest, "copy was written to since copy@"+m)
	d.change(func(v *virstor.Volume) error { return v.Snapshot("other") })
	d.refuses(rest, "copy has no newest snapshot called "+m)
}

func TestWhatCannotBeSentIsToldBefore(t *testing.T) {
	a := origin(t)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"vol@friday"}, "vol@friday: no such snapshot"},
		{[]string{"-i", "@tuesday", "vol@monday"}, "the snapshot is not older"},
		{[]string{"-i", "monday", "vol@tuesday"}, "-i takes @ and the name"},
		{[]string{"--resume", "x", "vol@tuesday"}, "x is none of those that receive leaves"},
		{[]string{"--resume", "receive-0000000000000001-10", "vol@tuesday"}, "is the mark of another stream"},
		{[]string{"--json", "vol@tuesday"}, "--json is for -n"},
		{[]string{"vol"}, "is not name@snap"},
	} {
		if out, errs, ok := a.verb(nil, "send", c.args...); ok || out != "" || !strings.Contains(errs, c.want) {
			t.Errorf("send %q: %s", c.args, errs)
		}
	}
	if out, errs, ok := a.verb(nil, "send", "-n", "--json", "-i", "@monday", "vol@tuesday"); !ok || !strings.Contains(out, `"base": "`) {
		t.Errorf("%s%s", out, errs)
	}
	if out, errs, ok := a.verb(nil, "send", "-n", "vol@tuesday"); !ok || !strings.Contains(out, "bytes at most") {
		t.Errorf("%s%s", out, errs)
	}
	yes := func() (int, int, bool) { return 80, 24, true }
	for _, verb := range []string{"send", "receive"} {
		e, out, errs := testEnv(verb, "vol@monday")
		e.terminal, e.typed = yes, func() bool { return true }
		if run(context.Background(), e) == 0 || out.Len() > 0 || !strings.Contains(errs.String(), "terminal") {
			t.Errorf("%s on a terminal: %s%s", verb, out, errs)
		}
	}
}

// TestAReceiverThatIsEndedLeavesAMark: though nothing more comes.
func TestAReceiverThatIsEndedLeavesAMark(t *testing.T) {
	a := origin(t)
	full := a.sent("vol@monday")
	b := newStoppedSite(t, "copy", "128m", "2m", 30<<20, 30<<20)
	ctx, cancel := context.WithCancel(context.Background())
	e, _, errs := testEnv("receive", "--run-dir", b.dir, "--state-dir", b.dir, "--offline", strings.Join(b.files, ","), "copy")
	in, out := io.Pipe()
	e.stdin = in
	ended := make(chan int)
	go func() { ended <- run(ctx, e) }()
	if _, err := out.Write(full[:len(full)*3/4]); err != nil {
		t.Fatal(err)
	}
	cancel()
	if code := <-ended; code == 0 || !strings.Contains(errs.String(), "interrupted") {
		t.Fatalf("%d, %s", code, errs)
	}
	_ = out.Close()
	if strings.Contains(errs.String(), "nothing was received") {
		return // it was ended before
	}
	b.receives(a.sent("--resume", mark(t, errs.String()), "vol@monday"))
	sameSnapshot(t, a, b, "monday")
}

func TestAMarkIsReadAsItIsWritten(t *testing.T) {
	if guid, offset, err := parseMark(markOf(0xabc, 1<<40)); err != nil || guid != 0xabc || offset != 1<<40 {
		t.Errorf("%v, %d, %v", guid, offset, err)
	}
	for _, bad := range []string{"", "receive-", "receive-0000000000000abc", "receive-0000000000000abc--1", "receive-0000000000000abc-01", "send-0000000000000abc-1"} {
		if _, _, err := parseMark(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
