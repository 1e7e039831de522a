package geomlib

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func blocksOf(t *testing.T, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

func TestAPreallocatedFileKeepsItsBlocks(t *testing.T) {
	const size = 1 << 20
	for _, dir := range holeDirs(t) {
		path := filepath.Join(dir, "whole")
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Fallocate(int(f.Fd()), 0, 0, size); err != nil {
			t.Skipf("%s: fallocate: %v", dir, err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		p := mustOpen(t, path, OpenOptions{})
		if !KeepsBlocks(p) {
			t.Fatalf("%s: a file of %d bytes with blocks for %d is taken for a sparse one", dir, size, blocksOf(t, path))
		}
		data := bytes.Repeat([]byte{7}, size)
		if _, err := p.WriteAt(data, 0); err != nil {
			t.Fatal(err)
		}
		if err := p.Delete(0, size); !errors.Is(err, ErrNotSupported) {
			t.Errorf("%s: Delete: %v", dir, err)
		}
		err = p.(Zeroer).WriteZeroes(4096, size/2)
		if err != nil && !errors.Is(err, ErrNotSupported) {
			t.Errorf("%s: WriteZeroes: %v", dir, err)
		}
		if err == nil {
			clear(data[4096 : 4096+size/2])
		}
		if err := p.Flush(); err != nil {
			t.Fatal(err)
		}
		if got := blocksOf(t, path); got < size {
			t.Errorf("%s: of %d bytes %d are left", dir, size, got)
		}
		got := make([]byte, size)
		if _, err := p.ReadAt(got, 0); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: the file holds something else, %v", dir, err)
		}
		p.Close()
	}
}

func TestASparseFileGivesItsBlocksBack(t *testing.T) {
	for _, dir := range holeDirs(t) {
		const size = 1 << 20
		p := trusted(t, dir, size, 512)
		if KeepsBlocks(p) {
			t.Errorf("%s: an empty file is taken for a preallocated one", dir)
		}
		if _, err := p.WriteAt(make([]byte, size/2), 0); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(p.Flush(), p.Delete(0, size), p.Flush()); err != nil {
			t.Fatal(err)
		}
		if got := blocksOf(t, p.Name()); got >= size/2 {
			t.Errorf("%s: blocks for %d bytes are left", dir, got)
		}
		p.Close()
	}
}
