// Package stream is what a snapshot, or what changed since an older one, is sent as: bytes
// in, values out. gvirstor(5) has its bytes.
//
// A stream is a Start, records in the order of their offsets, and an end mark. The checksum
// of each covers that of the one before, so that what is missing, doubled or out of order is
// noticed like any other damage; a stream without its end mark was cut off.
package stream

import (
	"errors"
	"fmt"
	"math"

	"github.com/gvirstor/gvirstor/ondisk"
)

const (
	// Version is that of the format.
	Version = 1
	// MaxData is the longest data of a record in bytes.
	MaxData = 512 << 10
)

const (
	magic = "GVIRSTOR::STREAM"

	// A start: magic, version, length of what follows the length but for the checksum.
	startHead  = len(magic) + 4 + 4
	startFixed = 5 * 8 // GUID, base, size, offset, time
	maxStart   = startFixed + 3*(1+maxName)
	maxName    = 255

	// A record: kind, length of the data, offset, length of the range.
	recordHead = 4 + 4 + 8 + 8
	sumSize    = 8
)

var (
	// ErrFormat: these are not the bytes of a stream, or they are damaged.
	ErrFormat = errors.New("damaged stream")
	// ErrVersion: the stream is of a later version.
	ErrVersion = errors.New("stream of a later version")
	// ErrCut: the stream ends before its end mark.
	ErrCut = errors.New("the stream is cut off")
)

// Start is what a stream begins with.
type Start struct {
	GUID ondisk.GUID // of the snapshot
	// Base is the GUID of the snapshot that the stream builds on, 0 of a full one.
	Base ondisk.GUID
	Size int64 // of the volume in bytes; beyond it there are zeros
	// From is where a stream goes on that was cut off before, in bytes; 0: it is all.
	From     int64
	Time     int64  // when the snapshot was taken, seconds since 1970
	Volume   string // the names, at most 255 bytes each
	Snapshot string
	Older    string // that of Base
}

// check refuses what no stream begins with.
func (s *Start) check() error {
	switch {
	case s.GUID == 0 || s.Base == s.GUID:
		return fmt.Errorf("%w: GUIDs %v and %v", ErrFormat, s.GUID, s.Base)
	case s.Size <= 0 || s.From < 0 || s.From > s.Size:
		return fmt.Errorf("%w: from %d of %d bytes", ErrFormat, s.From, s.Size)
	case len(s.Volume) > maxName || len(s.Snapshot) > maxName || len(s.Older) > maxName:
		return fmt.Errorf("%w: a name of more than %d bytes", ErrFormat, maxName)
	}
	return nil
}

// kind is what a record is.
type kind uint32

const (
	kindData  kind = 1 // the range holds the data
	kindZeros kind = 2 // the range reads as zeros; of an incremental stream alone
	kindEnd   kind = 3 // the end mark: Offset is the size of the volume
)

// Record says what a range holds.
type Record struct {
	Offset int64 // bytes
	Length int64
	Data   []byte // Length bytes, or nil: zeros
}

// check refuses a record that does not lie behind at and within the size of the stream.
func (r *Record) check(k kind, at, size int64) error {
	n := int64(len(r.Data))
	switch {
	case r.Offset < at || r.Length <= 0 || r.Length > math.MaxInt64-r.Offset || r.Offset+r.Length > size:
		return fmt.Errorf("%w: a range of %d bytes at %d, behind %d, of %d", ErrFormat, r.Length, r.Offset, at, size)
	case k == kindData && (n != r.Length || n > MaxData), k == kindZeros && n != 0:
		return fmt.Errorf("%w: %d bytes of data for a range of %d", ErrFormat, n, r.Length)
	}
	return nil
}
