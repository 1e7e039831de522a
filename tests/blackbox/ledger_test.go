package blackbox

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdclient"
)

const sectorSize = 512

// errMismatch: a sector holds what it may not.
var errMismatch = errors.New("not what was written")

// ledger knows what every sector of a range of the volume may hold. A
// generation names what was written; 0 are zeros.
type ledger struct {
	what       string
	base, size int64
	// recognise tells which generation a sector that is not all zeros holds.
	recognise func(b []byte, off int64) (generation uint64, ok bool)

	mu     sync.Mutex
	stable []uint64            // by sector: acknowledged last
	maybe  map[uint64][]uint64 // begun and not acknowledged
	loose  map[uint64]bool     // trimmed: may read as zeros as well
}

func newLedger(what string, base, size int64, recognise func([]byte, int64) (uint64, bool)) *ledger {
	return &ledger{what: what, base: base, size: size, recognise: recognise,
		stable: make([]uint64, size/sectorSize), maybe: make(map[uint64][]uint64), loose: make(map[uint64]bool)}
}

func (l *ledger) sectors(off, n int64) (from, to uint64) {
	return uint64((off - l.base) / sectorSize), uint64((off - l.base + n) / sectorSize)
}

// begin notes a write that is about to be asked for.
func (l *ledger) begin(off, n int64, generation uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, to := l.sectors(off, n); i < to; i++ {
		l.maybe[i] = append(l.maybe[i], generation)
	}
}

// acknowledged notes the end of a write that began.
func (l *ledger) acknowledged(off, n int64, generation uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, to := l.sectors(off, n); i < to; i++ {
		l.withdrawLocked(i, generation)
		l.stable[i] = generation
		delete(l.loose, i)
	}
}

// withdraw notes that a write which began cannot have reached the volume.
func (l *ledger) withdraw(off, n int64, generation uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, to := l.sectors(off, n); i < to; i++ {
		l.withdrawLocked(i, generation)
	}
}

// withdrawLocked takes generation off what sector i may hold; l.mu is held.
func (l *ledger) withdrawLocked(i, generation uint64) {
	rest := slices.DeleteFunc(l.maybe[i], func(g uint64) bool { return g == generation })
	if len(rest) == 0 {
		delete(l.maybe, i)
		return
	}
	l.maybe[i] = rest
}

// put writes n bytes of a generation at off, by the book.
func (l *ledger) put(c *nbdclient.Conn, off, n int64, generation uint64) error {
	b := make([]byte, n)
	stampSectors(b, off, generation)
	l.begin(off, n, generation)
	_, err := c.WriteAt(b, off)
	if err == nil {
		l.acknowledged(off, n, generation)
	}
	return err
}

// trim notes a trim that is about to be asked for.
func (l *ledger) trim(off, n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, to := l.sectors(off, n); i < to; i++ {
		l.loose[i] = true
	}
}

// verify reads all of the range and fails at the first sector that holds what
// it may not. settle: nothing is under way any more, so what is there stays.
func (l *ledger) verify(c *nbdclient.Conn, settle bool) error {
	const span = mib
	b := make([]byte, span)
	for off := l.base; off < l.base+l.size; off += span {
		n := min(span, l.base+l.size-off)
		if _, err := c.ReadAt(b[:n], off); err != nil {
			return fmt.Errorf("read %d bytes at %d: %w", n, off, err)
		}
		if err := l.compare(b[:n], off, settle); err != nil {
			return err
		}
	}
	return nil
}

var zeroSector [sectorSize]byte

// compare checks what was read at off.
func (l *ledger) compare(b []byte, off int64, settle bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	first, _ := l.sectors(off, 0)
	for k := 0; k < len(b); k += sectorSize {
		i := first + uint64(k/sectorSize)
		s := b[k : k+sectorSize]
		var g uint64
		if !bytes.Equal(s, zeroSector[:]) {
			var ok bool
			if g, ok = l.recognise(s, off+int64(k)); !ok {
				return fmt.Errorf("%w: %s: the sector at %d holds foreign data: % x… (generation %d was acknowledged, %d begun, trimmed %t)",
					errMismatch, l.what, off+int64(k), s[:32], l.stable[i], l.maybe[i], l.loose[i])
			}
		}
		if g != l.stable[i] && !(g == 0 && l.loose[i]) && !slices.Contains(l.maybe[i], g) {
			return fmt.Errorf("%w: %s: the sector at %d holds generation %d; %d was acknowledged, %d begun, trimmed %t",
				errMismatch, l.what, off+int64(k), g, l.stable[i], l.maybe[i], l.loose[i])
		}
		if settle {
			l.stable[i] = g
			delete(l.maybe, i)
		}
	}
	return nil
}

// cells recognises sectors that stamp filled, with the address of the block of
// so many bytes that they lie in.
func cells(blockSize int64) func([]byte, int64) (uint64, bool) {
	return func(b []byte, off int64) (uint64, bool) {
		address, generation := uint64(off&^(blockSize-1)), binary.LittleEndian.Uint64(b[8:])
		for k := 0; k < len(b); k += 16 {
			if binary.LittleEndian.Uint64(b[k:]) != address || binary.LittleEndian.Uint64(b[k+8:]) != generation {
				return 0, false
			}
		}
		return generation, true
	}
}

// uniform recognises sectors of one byte.
func uniform(b []byte, _ int64) (uint64, bool) {
	for _, c := range b {
		if c != b[0] {
			return 0, false
		}
	}
	return uint64(b[0]), true
}

// stampSectors fills b, to be written at off, for cells(sectorSize).
func stampSectors(b []byte, off int64, generation uint64) {
	for k := 0; k < len(b); k += sectorSize {
		stamp(b[k:k+sectorSize], uint64(off)+uint64(k), generation)
	}
}

// mustBe fails the test unless a volume holds what the ledger says.
func (s *site) mustBe(l *ledger, when string, settle bool) {
	s.t.Helper()
	c := s.dial()
	defer c.Abort()
	if err := l.verify(c, settle); err != nil {
		s.t.Fatalf("%s: %v\n%s", when, err, s.log)
	}
}
