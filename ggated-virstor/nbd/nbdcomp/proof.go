package nbdcomp

import (
	"fmt"
	"hash/crc32"
	"slices"
	"syscall"
)

// errForgot: the server has lost what it had flushed, or it is another disk.
var errForgot = fmt.Errorf("component lost flushed data: it is another disk, an older copy, or its server lost what it had said to be on stable storage: %w", syscall.EIO)

// proofZeros is how much of a range that was zeroed is read back, bytes.
const proofZeros = 64 << 10

// proof is what some bytes of the disk must hold: they were flushed, and nothing else was
// sent for them since.
type proof struct {
	off, n int64 // n is 0 where there is none
	sum    uint32
}

func (p *proof) forget(off, n int64) {
	if p.off < off+n && off < p.off+p.n {
		p.n = 0
	}
}

// proofs are the newest of what flushes have covered. A server that comes back must have
// them. They are guarded by provider.mu.
type proofs struct {
	table   *crc32.Table
	zeros   uint32 // sum of proofZeros zeros
	last    int64  // offset of the last sector, which says whose component it is
	member  proof  // of the last sector
	extents [64]proof
	next    int // of extents, the oldest
}

func (p *proofs) init(size, sector int64) {
	p.table = crc32.MakeTable(crc32.Castagnoli)
	p.zeros = crc32.Checksum(make([]byte, proofZeros), p.table)
	p.last = size - sector
}

// forget takes away what is not sure any more, as [off, off+n) is to be changed.
func (p *proofs) forget(off, n int64) {
	p.member.forget(off, n)
	for i := range p.extents {
		p.extents[i].forget(off, n)
	}
}

// keep takes the proof of what was flushed.
func (p *proofs) keep(e *entry) {
	is := proof{e.off, e.n, e.sum}
	switch {
	case e.kind == kindTrim, e.kind == kindZero && e.n < proofZeros:
		return
	case e.kind == kindZero:
		is.n, is.sum = proofZeros, p.zeros
	}
	if is.off == p.last {
		p.member = is
		return
	}
	p.extents[p.next] = is
	p.next = (p.next + 1) % len(p.extents)
}

// list are those that there are.
func (p *proofs) list() []proof {
	all := make([]proof, 0, 1+len(p.extents))
	for _, one := range append(p.extents[:], p.member) {
		if one.n > 0 {
			all = append(all, one)
		}
	}
	return all
}

// prove reads back what must be there (errForgot).
func (p *provider) prove(s *session, all []proof) error {
	var buf []byte
	for _, one := range all {
		buf = slices.Grow(buf[:0], int(one.n))[:one.n]
		for done := int64(0); done < one.n; {
			n := min(one.n-done, s.max)
			if err := s.read(buf[done:done+n], one.off+done); err != nil {
				return fmt.Errorf("%s: read back %d bytes at %d: %w", p.name, one.n, one.off, err)
			}
			done += n
		}
		if crc32.Checksum(buf, p.proofs.table) != one.sum {
			return fmt.Errorf("%s: %d bytes at %d: %w", p.name, one.n, one.off, errForgot)
		}
	}
	return nil
}
