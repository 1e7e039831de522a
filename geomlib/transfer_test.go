package geomlib

import (
	"bytes"
	"errors"
	"io"
	"syscall"
	"testing"

	"pgregory.net/rapid"
)

// TestTransfersGoOnUntilAllIsDone whatever the system takes at a time, in
// pieces, and say how far they came when it fails.
func TestTransfersGoOnUntilAllIsDone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := &file{name: "disk"}
		want := rapid.SliceOfN(rapid.Byte(), 1, 5000).Draw(t, "data")
		piece := rapid.IntRange(1, 2000).Draw(t, "piece")
		fails := rapid.SampledFrom([]error{nil, nil, syscall.EIO, syscall.ENOSPC, io.ErrUnexpectedEOF}).Draw(t, "fails")
		failAt := rapid.IntRange(0, len(want)-1).Draw(t, "at")
		var got []byte
		do := func(_ int, b []byte, off int64) (int, error) {
			if off != 7+int64(len(got)) || len(b) > piece || len(b) == 0 {
				t.Fatalf("%d bytes at %d after %d", len(b), off, len(got))
			}
			if rapid.IntRange(0, 9).Draw(t, "interrupted") == 0 {
				return -1, syscall.EINTR
			}
			n := rapid.IntRange(1, len(b)).Draw(t, "taken")
			switch {
			case fails == nil || len(got)+n <= failAt:
			case fails == io.ErrUnexpectedEOF:
				return 0, nil
			default:
				return -1, fails
			}
			got = append(got, b[:n]...)
			return n, nil
		}
		n, err := do(0, want[:min(len(want), piece)], 7)
		n, err = p.transfer("write", do, piece, want, 7, n, err)
		if !errors.Is(err, fails) || n != len(got) || !bytes.Equal(got, want[:n]) || err == nil && n != len(want) {
			t.Fatalf("%d of %d bytes, %v", n, len(want), err)
		}
	})
}

func TestAWriteLongerThanAPieceIsWrittenWhole(t *testing.T) {
	p := mustOpen(t, newFile(t, 4*mib), OpenOptions{})
	want := make([]byte, 3*mib)
	for i := range want {
		want[i] = byte(i ^ i>>9 ^ i>>18)
	}
	if n, err := p.WriteAt(want, 512); n != len(want) || err != nil {
		t.Fatal(n, err)
	}
	got := make([]byte, len(want))
	if n, err := p.ReadAt(got, 512); n != len(got) || err != nil || !bytes.Equal(got, want) {
		t.Fatal(n, err)
	}
}
