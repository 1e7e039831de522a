package blackbox

import (
	"bytes"
	"testing"

	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdclient"
)

func TestDiscardPolicies(t *testing.T) {
	data, zeros := bytes.Repeat([]byte{0xd7}, mib), make([]byte, mib)
	for _, p := range []struct {
		policy  string
		chunks  int64 // allocated at the end
		whole   []byte
		half    []byte
		smaller int64 // bytes that the host gets back at least
	}{
		{"on", 3, zeros, zeros[:mib/2], 2*mib + mib/2},
		{"passdown-only", 5, zeros, zeros[:mib/2], mib + mib/2},
		{"off", 5, data, data[:mib/2], 0},
	} {
		t.Run(p.policy, func(t *testing.T) {
			s := newSite(t, 64*mib, 64*mib)
			s.label("-s", "1g", "-m", "1m")
			s.start("--discard", p.policy)
			c := s.dial()
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			for i := range int64(4) {
				_, err := c.WriteAt(data, i*mib)
				must(err)
			}
			must(c.Flush())
			before := s.hostBytes()
			must(c.Trim(0, mib, 0))             // a whole chunk
			must(c.Trim(mib, mib/2, 0))         // a half
			must(c.WriteZeroes(2*mib, mib, 0))  // a whole chunk
			must(c.WriteZeroes(11*mib, mib, 0)) // one that is not there
			s.until("chunks are free", func() bool { return s.status().AllocatedChunks == p.chunks-1 })
			s.until("the host has blocks back", func() bool { return s.hostBytes() <= before-p.smaller })
			must(c.WriteZeroes(3*mib, mib, nbdclient.NoHole))
			must(c.WriteZeroes(10*mib, mib, nbdclient.NoHole))
			if n := s.status().AllocatedChunks; n != p.chunks {
				t.Errorf("%d chunks are allocated, want %d", n, p.chunks)
			}
			got := make([]byte, 12*mib)
			_, err := c.ReadAt(got, 0)
			must(err)
			want := bytes.Join([][]byte{p.whole, p.half, data[mib/2:]}, nil)
			want = append(want, make([]byte, 10*mib)...)
			if !bytes.Equal(got, want) {
				for i := range got {
					if got[i] != want[i] {
						t.Fatalf("byte %d reads as %#x", i, got[i])
					}
				}
			}
			// The other half: the chunk goes when all of it has.
			must(c.Trim(mib+mib/2, mib/2, 0))
			if p.policy == "on" {
				p.chunks--
			}
			s.until("what was given up piece by piece is free", func() bool { return s.status().AllocatedChunks == p.chunks })
		})
	}
}
