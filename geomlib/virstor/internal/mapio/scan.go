// Package mapio reads and changes the allocation map as it lies on component 0: holes for
// nothing, and in bounded memory. All who look at a map read it here: the engine, with
// several goroutines (Reader), and those who look at it while nobody serves it (Scanner).
package mapio

import (
	"context"
	"encoding/binary"
	"fmt"
	"iter"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ondisk"
)

// BlockSize is how much is read or written at a time, bytes. It is a multiple of every
// sector.
const BlockSize = 1 << 20

// Scanner reads the bytes [0, Size) of a provider as map entries. Size is a
// whole number of sectors within the provider.
type Scanner struct {
	Provider geomlib.Provider
	Size     int64
	// Unreadable, if not nil, is told of each sector that cannot be read, which
	// is then passed over. Without it the first one ends the scan.
	Unreadable func(off int64, err error)
	// Progress, if not nil, is told again and again how many bytes of the map
	// are behind.
	Progress func(done int64)
}

// Each calls visit for each entry that is not all zeros, in order: its virtual
// chunk and its bytes, which are valid during the call.
func (s Scanner) Each(ctx context.Context, visit func(vc uint64, raw []byte) error) error {
	return s.Blocks(ctx, func(off int64, b []byte) error {
		vc := uint64(off / ondisk.EntrySize)
		for ; len(b) >= ondisk.EntrySize; b, vc = b[ondisk.EntrySize:], vc+1 {
			if binary.NativeEndian.Uint64(b) == 0 {
				continue
			}
			if err := visit(vc, b[:ondisk.EntrySize]); err != nil {
				return err
			}
		}
		return nil
	})
}

// Blocks calls visit for consecutive parts of the map, in order. Parts that are
// known to be zeros without reading are left out. visit may change b.
func (s Scanner) Blocks(ctx context.Context, visit func(off int64, b []byte) error) error {
	sector := int64(s.Provider.SectorSize())
	buf := make([]byte, min(BlockSize, s.Size))
	for off, n := range Data(s.Provider, s.Size) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.read(off, buf[:n], sector, visit); err != nil {
			return err
		}
		if s.Progress != nil {
			s.Progress(off + n)
		}
	}
	return nil
}

// Data goes through what must be read of the bytes [0, size) of a map, in whole sectors
// and at most BlockSize at a time: the offset and the length of each part.
func Data(p geomlib.Provider, size int64) iter.Seq2[int64, int64] {
	return func(yield func(off, n int64) bool) {
		for off := int64(0); off < size; {
			var end int64
			for off, end = nextData(p, off, size); off < end; {
				n := min(BlockSize, end-off)
				if !yield(off, n) {
					return
				}
				off += n
			}
		}
	}
}

// nextData finds what must be read of the bytes [off, size) of a map next: the
// sectors [start, end) hold data, and what is before start is zeros. start is end
// when nothing is left. off is the beginning of a sector, and size the end of one.
func nextData(p geomlib.Provider, off, size int64) (start, end int64) {
	holes, sparse := p.(geomlib.HoleFinder)
	if !sparse || off >= size {
		return off, size
	}
	start, end, err := holes.NextData(off, size)
	if err != nil {
		return off, size // all of it is taken for data
	}
	sector := int64(p.SectorSize())
	return max(off, start/sector*sector), min(size, (end+sector-1)/sector*sector)
}

// read passes one block on, sector by sector when it cannot be read whole.
func (s Scanner) read(off int64, b []byte, sector int64, visit func(int64, []byte) error) error {
	_, err := s.Provider.ReadAt(b, off)
	if err == nil {
		return visit(off, b)
	}
	if s.Unreadable == nil {
		return fmt.Errorf("read the allocation map from %s at byte %d: %w", s.Provider.Name(), off, err)
	}
	for ; len(b) > 0; b, off = b[sector:], off+sector {
		if _, err := s.Provider.ReadAt(b[:sector], off); err != nil {
			s.Unreadable(off, err)
			continue
		}
		if err := visit(off, b[:sector]); err != nil {
			return err
		}
	}
	return nil
}
