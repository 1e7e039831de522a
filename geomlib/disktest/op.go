package disktest

import "fmt"

// Kind is a kind of request.
type Kind int

const (
	Read Kind = iota
	// CachedRead is a ReadCached. It cannot be failed or held.
	CachedRead
	Write
	Flush
	Delete
	Zero
	Close
	// DropCache cannot be held. It fails when the disk is gone.
	DropCache
	// Mark is a remark in a Recorder's log, no request.
	Mark
	kinds
)

func (k Kind) String() string {
	return [...]string{"read", "cached read", "write", "flush", "delete", "zero", "close", "drop of the cache", "mark"}[k]
}

// Op is one request to a disk, or one entry of a Recorder's log.
type Op struct {
	Kind Kind
	Off  int64 // bytes
	Len  int64
	// Data is what a Write writes. It must not be changed.
	Data []byte

	// The rest is for entries of a log.

	// Pos is the position in the log.
	Pos int
	// Disk is the index of the disk in the Recorder.
	Disk int
	// Covers says of a Flush which requests to its disk it made durable, or
	// lost if it failed on a forgetful disk: those whose Seq is below it.
	Covers int
	// Sector is the sector size of the disk.
	Sector int64
	// Seq counts the writes, deletes and zeroings of one disk.
	Seq int
	// Remark is what Recorder.Mark was given.
	Remark any
}

func (o Op) String() string {
	switch o.Kind {
	case Flush, Close:
		return o.Kind.String()
	case Mark:
		return fmt.Sprintf("mark %v", o.Remark)
	}
	return fmt.Sprintf("%s %d+%d", o.Kind, o.Off, o.Len)
}
