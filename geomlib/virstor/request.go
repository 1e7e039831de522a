package virstor

import (
	"math/bits"

	"github.com/gvirstor/gvirstor/geomlib"
)

// Op is what a Request asks of the volume.
type Op uint8

// The operations of a Request.
const (
	OpRead        Op = iota + 1 // fill Data from Offset
	OpWrite                     // write Data at Offset
	OpFlush                     // everything acknowledged before is on stable storage
	OpDelete                    // the range is no longer needed (BIO_DELETE, NBD TRIM)
	OpWriteZeroes               // the range reads as zeros afterwards
)

// Flags modify a Request.
type Flags uint8

// The flags of a Request.
const (
	// FUA: the write is on stable storage before it is acknowledged.
	FUA Flags = 1 << iota
	// NoHole: OpWriteZeroes allocates what it covers, unless Config.DetectZeroes is set.
	NoHole
	// MayBlock: Submit may do device I/O on the caller's goroutine. Without
	// it, Submit does only what cannot wait for a device and hands the rest
	// to the volume's workers.
	MayBlock
	// NoHold: a write that finds the volume full while the volume already
	// holds its limit of data (Config.HeldLimit) fails with ErrNoSpace
	// instead of being held.
	NoHold
	// Gather: a component may keep the request, to send it with others, until
	// Push is called, which who submits it does before he waits for anything.
	Gather
)

// Completer is told when a Request is done.
type Completer interface {
	// Complete is called exactly once for each submitted Request, with r.Err
	// set, either by Submit itself on the caller's goroutine or later on
	// one of the volume's. It must not block.
	Complete(r *Request)
}

// Taker takes what is read without a copy of it in Data.
type Taker interface {
	// Take is offered all that r reads, and returns how much of it was taken, from its
	// beginning, bytes; the rest comes in its place in Data, in whose beginning it may keep
	// what it took. p is for system calls (geomlib.Loan), and must not be used after Take
	// returns; what changes the volume may wait for that. Take is called before Complete, on
	// any goroutine, and not again once it took something. r may still fail if not all was
	// taken.
	Take(r *Request, p []byte) int
}

// Request is one operation on a volume. The caller owns and reuses it; from
// Submit until Complete the volume owns it and Data.
type Request struct {
	Op     Op
	Flags  Flags
	Offset int64  // bytes from the start of the volume
	Length int64  // bytes; equals len(Data) for OpRead and OpWrite
	Data   []byte // OpRead and OpWrite
	Claim  uint64 // what Volume.Claim gave who asks, or 0
	Done   Completer
	Taker  Taker          // of an OpRead, or nil
	Err    error          // result, valid in Complete
	Batch  *geomlib.Batch // that it is completed in, valid in Complete; nil: in none

	req  reqState
	lane uint8 // of traffic, from 1 on, for as long as it is used; 0: none yet
}

// counted is o, or 0 for what is no operation.
func (o Op) counted() Op {
	if o > OpWriteZeroes {
		return 0
	}
	return o
}

func (o Op) String() string {
	switch o {
	case OpRead:
		return "read"
	case OpWrite:
		return "write"
	case OpFlush:
		return "flush"
	case OpDelete:
		return "delete"
	case OpWriteZeroes:
		return "write zeroes"
	}
	return "unknown operation"
}

// piece is the part of a range that lies in one chunk.
type piece struct {
	vc uint64
	in int64 // offset in the chunk
	n  int64
}

// chunkOf is the virtual chunk that byte off lies in.
func (v *Volume) chunkOf(off int64) int64 {
	if v.chunkShift > 0 {
		return off >> v.chunkShift
	}
	return off / v.chunk
}

// shiftOf is the binary logarithm of a power of two above 1, else 0.
func shiftOf(n uint32) uint8 {
	if bits.OnesCount32(n) != 1 {
		return 0
	}
	return uint8(bits.TrailingZeros32(n))
}

// pieceAt returns the piece of [off, end) that off lies in.
func (v *Volume) pieceAt(off, end int64) piece {
	vc := v.chunkOf(off)
	in := off - vc*v.chunk
	return piece{vc: uint64(vc), in: in, n: min(end-off, v.chunk-in)}
}

func (v *Volume) aligned(off, n int64) bool { return (off|n)&(v.sector-1) == 0 }
