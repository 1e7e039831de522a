package virstor

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
	// NoHole: OpWriteZeroes allocates what it covers.
	NoHole
	// MayBlock: Submit may do device I/O on the caller's goroutine. Without
	// it, Submit does only what cannot wait for a device and hands the rest
	// to the volume's workers.
	MayBlock
	// NoHold: a write that finds the volume full while the volume already
	// holds its limit of data (Config.HeldLimit) fails with ErrNoSpace
	// instead of being held.
	NoHold
)

// Completer is told when a Request is done.
type Completer interface {
	// Complete is called exactly once for each submitted Request, with r.Err
	// set, either by Submit itself on the caller's goroutine or later on
	// one of the volume's. It must not block.
	Complete(r *Request)
}

// Request is one operation on a volume. The caller owns and reuses it; from
// Submit until Complete the volume owns it and Data.
type Request struct {
	Op     Op
	Flags  Flags
	Offset int64  // bytes from the start of the volume
	Length int64  // bytes; equals len(Data) for OpRead and OpWrite
	Data   []byte // OpRead and OpWrite
	Done   Completer
	Err    error // result, valid in Complete

	req reqState
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
