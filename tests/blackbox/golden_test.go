package blackbox

import (
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// kernelRanges are what was written through the kernel class, in order; each
// sector of 512 bytes holds its own virtual offset, 64 times.
var kernelRanges = [][2]int64{
	{0, 4096}, {734003712, 1048576}, {5240832, 4096}, {1073737728, 4096}, {104857600, 8388608}, {209715200, 33554432},
}

func kernelSite(t *testing.T) *site {
	t.Helper()
	s := newSite(t)
	for i := range 3 {
		in, err := os.Open(fmt.Sprintf("../testdata/golden/written-%d.img.gz", i))
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		z, err := gzip.NewReader(in)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(s.dir, fmt.Sprintf("k%d", i))
		out, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(out, z); err != nil {
			t.Fatal(err)
		}
		if err := out.Close(); err != nil {
			t.Fatal(err)
		}
		s.files = append(s.files, path)
	}
	return s
}

func TestAVolumeWrittenByTheKernelClassIsServedAsItIs(t *testing.T) {
	s := kernelSite(t)
	s.startNamed("written")
	c := s.dialName("written")
	const size = 1 << 30
	written := func(off int64) bool {
		for _, r := range kernelRanges {
			if off >= r[0] && off < r[0]+r[1] {
				return true
			}
		}
		return false
	}
	b := make([]byte, 4<<20)
	for off := int64(0); off < size; off += int64(len(b)) {
		if _, err := c.ReadAt(b, off); err != nil {
			t.Fatal(err)
		}
		for s := 0; s < len(b); s += 512 {
			want := uint64(0)
			if written(off + int64(s)) {
				want = uint64(off) + uint64(s)
			}
			for k := 0; k < 512; k += 8 {
				if got := binary.LittleEndian.Uint64(b[s+k:]); got != want {
					t.Fatalf("at %d: %d, want %d", off+int64(s+k), got, want)
				}
			}
		}
	}
	p := make([]byte, 100000)
	stamp(p, 1, 2)
	if _, err := c.WriteAt(p, 500<<20); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	s.gvirstor("stop", "written")
	for i, f := range s.files {
		out := s.gvirstor("dump", f)
		if !strings.Contains(out, "Metadata version: 1\n") {
			t.Errorf("%s is not handed back:\n%s", f, out)
		}
		// The kernel class counted chunk 39 of the third component, which
		// holds its metadata sector.
		if i == 2 && !strings.Contains(out, "Chunks on provider: 39\n") {
			t.Errorf("%s keeps the chunk on its metadata sector:\n%s", f, out)
		}
	}
	s.term()
	s.gvirstor(append([]string{"check"}, s.files...)...) // fails when the kernel class would refuse or damage it
	s.startNamed("written")
	c = s.dialName("written")
	q := make([]byte, len(p))
	if _, err := c.ReadAt(q, 500<<20); err != nil {
		t.Fatal(err)
	}
	if string(p) != string(q) {
		t.Fatal("what was written before stop is not there after it")
	}
}
