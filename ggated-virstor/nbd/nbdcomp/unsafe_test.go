package nbdcomp

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
)

// unsafeServer is a qemu-nbd that flushes nothing, over an image whose loss of power is
// that it is put back to what it was at the last flush.
type unsafeServer struct {
	dir   string
	image string
	end   func()
}

func newUnsafeServer(t *testing.T, sectors int) *unsafeServer {
	dir := t.TempDir()
	s := &unsafeServer{dir: dir, image: filepath.Join(dir, "image")}
	s.putBack(t, make([]byte, sectors*sector))
	s.start(t)
	return s
}

func (s *unsafeServer) uri() string { return "nbd+unix:///?socket=" + filepath.Join(s.dir, "socket") }

func (s *unsafeServer) start(t *testing.T) {
	t.Helper()
	pid, socket := filepath.Join(s.dir, "pid"), filepath.Join(s.dir, "socket")
	if err := errors.Join(os.RemoveAll(pid), os.RemoveAll(socket)); err != nil {
		t.Fatal(err)
	}
	s.end = tool(t, pid, "qemu-nbd", "--persistent", "-e", "16", "-k", socket, "-f", "raw", "--cache=unsafe", "--discard=unmap", "--pid-file="+pid, s.image)
}

// holds is the image as it is now.
func (s *unsafeServer) holds(t *testing.T) []byte {
	t.Helper()
	b, err := os.ReadFile(s.image)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (s *unsafeServer) putBack(t *testing.T, b []byte) {
	t.Helper()
	if err := os.WriteFile(s.image, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// loses is a loss of power that leaves the image as it was.
func (s *unsafeServer) loses(t *testing.T, was []byte) {
	t.Helper()
	s.end()
	s.putBack(t, was)
	s.start(t)
}

// TestNothingAcknowledgedIsLostByAServerThatFlushesNothing: a real one, which is killed,
// and its disk put back to what it was at the last flush. Without what is done again, or
// put back to a flush before that, it is noticed.
func TestNothingAcknowledgedIsLostByAServerThatFlushesNothing(t *testing.T) {
	for name, c := range map[string]struct {
		breaks rule
		older  bool
		ends   func(err error) bool
	}{
		"as it is":                     {ends: func(err error) bool { return err == nil }},
		"no log":                       {breaks: breakNoJournal, ends: func(err error) bool { return errors.Is(err, errDiffers) }},
		"log without zeroes":           {breaks: breakNoZeroes, ends: func(err error) bool { return errors.Is(err, errDiffers) }},
		"an older copy":                {older: true, ends: func(err error) bool { return errors.Is(err, errForgot) }},
		"an older copy, not read back": {older: true, breaks: breakNoProof, ends: func(err error) bool { return errors.Is(err, errDiffers) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const size, rounds = 256, 12
			s := newUnsafeServer(t, size)
			p, err := Opener{RunDir: t.TempDir(), Timeout: 2 * patience, Grace: time.Millisecond, breaks: c.breaks}.Open(s.uri(), geomlib.OpenOptions{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { p.Close() })
			rng, want := rand.New(rand.NewPCG(1, 1)), make([]byte, size)
			for range rounds {
				older := s.holds(t)
				for range 8 {
					mustDo(t, p, rng, want)
				}
				mustFlush(t, p)
				flushed := s.holds(t)
				for range 8 {
					mustDo(t, p, rng, want)
				}
				if c.older {
					flushed = older
				}
				s.loses(t, flushed)
				if err = all(p, want); err != nil {
					break
				}
			}
			if !c.ends(err) {
				t.Errorf("it ends with: %v", err)
			}
		})
	}
}

var errDiffers = errors.New("something else is read")

// mustDo changes some sectors of p, and notes it in want.
func mustDo(t *testing.T, p geomlib.Provider, rng *rand.Rand, want []byte) {
	t.Helper()
	first := rng.IntN(len(want))
	n := 1 + rng.IntN(min(32, len(want)-first))
	off, length, b := int64(first*sector), int64(n*sector), byte(0)
	var err error
	switch rng.IntN(4) {
	case 0:
		err = of(p).WriteZeroes(off, length)
	case 1:
		err = of(p).Delete(off, length)
	default:
		b = byte(1 + rng.IntN(255))
		_, err = p.WriteAt(sectors(n, b), off)
	}
	if err != nil {
		t.Fatal(err)
	}
	copy(want[first:], bytes.Repeat([]byte{b}, n))
}

// all compares what p holds.
func all(p geomlib.Provider, want []byte) error {
	got := make([]byte, len(want)*sector)
	if _, err := p.ReadAt(got, 0); err != nil {
		return err
	}
	for i, b := range want {
		if !bytes.Equal(got[i*sector:(i+1)*sector], sectors(1, b)) {
			return fmt.Errorf("sector %d holds %d, want %d: %w", i, got[i*sector], b, errDiffers)
		}
	}
	return nil
}
