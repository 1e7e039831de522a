package stream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc64"
	"io"

	"github.com/gvirstor/gvirstor/ondisk"
)

// Reader reads a stream. It is used by one goroutine.
type Reader struct {
	r     io.Reader
	table *crc64.Table
	sum   uint64
	start Start
	at    int64 // where the next record may begin
	ended bool
	buf   []byte
}

// NewReader reads the start of a stream. It fails with ErrFormat, ErrVersion or ErrCut, or
// as r does.
func NewReader(r io.Reader) (*Reader, error) {
	in := &Reader{r: r, table: crc64.MakeTable(crc64.ECMA)}
	head, err := in.take(startHead)
	if err != nil {
		return nil, err
	}
	version, n := binary.LittleEndian.Uint32(head[len(magic):]), binary.LittleEndian.Uint32(head[len(magic)+4:])
	switch {
	case string(head[:len(magic)]) != magic:
		return nil, fmt.Errorf("%w: it does not begin as one", ErrFormat)
	case version > Version:
		return nil, fmt.Errorf("%w: %d, this program knows %d", ErrVersion, version, Version)
	case version != Version || n < startFixed+3 || n > maxStart:
		return nil, fmt.Errorf("%w: version %d, a start of %d bytes", ErrFormat, version, n)
	}
	body, err := in.take(int(n))
	if err == nil {
		err = in.proven()
	}
	if err != nil {
		return nil, err
	}
	if in.start, err = decodeStart(body); err != nil {
		return nil, err
	}
	in.at = in.start.From
	return in, nil
}

func decodeStart(b []byte) (s Start, err error) {
	var n [startFixed / 8]uint64
	for i := range n {
		n[i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	s = Start{GUID: ondisk.GUID(n[0]), Base: ondisk.GUID(n[1]), Size: int64(n[2]), From: int64(n[3]), Time: int64(n[4])}
	b = b[startFixed:]
	for _, name := range []*string{&s.Volume, &s.Snapshot, &s.Older} {
		if len(b) == 0 || int(b[0]) >= len(b) {
			return s, fmt.Errorf("%w: a name is cut off", ErrFormat)
		}
		*name, b = string(b[1:1+b[0]]), b[1+b[0]:]
	}
	if len(b) != 0 {
		return s, fmt.Errorf("%w: %d bytes behind the names", ErrFormat, len(b))
	}
	return s, s.check()
}

// Start is what the stream began with.
func (r *Reader) Start() Start { return r.start }

// take reads the next n bytes, which count for the checksum. They are valid until the next
// record is read.
func (r *Reader) take(n int) ([]byte, error) {
	have := len(r.buf)
	r.buf = append(r.buf, make([]byte, n)...)
	b := r.buf[have:]
	if err := r.read(b); err != nil {
		return nil, err
	}
	r.sum = crc64.Update(r.sum, r.table, b)
	return b, nil
}

func (r *Reader) read(b []byte) error {
	_, err := io.ReadFull(r.r, b)
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return ErrCut
	case err != nil:
		return fmt.Errorf("read the stream: %w", err)
	}
	return nil
}

// proven reads the checksum of what was taken since the last one.
func (r *Reader) proven() error {
	var b [sumSize]byte
	if err := r.read(b[:]); err != nil {
		return err
	}
	if sum := binary.LittleEndian.Uint64(b[:]); sum != r.sum {
		return fmt.Errorf("%w: checksum %016x, not %016x", ErrFormat, sum, r.sum)
	}
	return nil
}

// Next reads a record, whose data is valid until the next one is read. io.EOF: the stream
// is whole, and was read to its end mark. It fails with ErrFormat or ErrCut, or as what it
// reads from does, and then for good.
func (r *Reader) Next() (rec Record, err error) {
	if r.ended {
		return rec, io.EOF
	}
	r.buf = r.buf[:0]
	head, err := r.take(recordHead)
	if err != nil {
		return rec, err
	}
	k, n := kind(binary.LittleEndian.Uint32(head)), binary.LittleEndian.Uint32(head[4:])
	rec.Offset, rec.Length = int64(binary.LittleEndian.Uint64(head[8:])), int64(binary.LittleEndian.Uint64(head[16:]))
	if n > MaxData || k < kindData || k > kindEnd {
		return rec, fmt.Errorf("%w: a record of kind %d with %d bytes", ErrFormat, k, n)
	}
	if n > 0 {
		if rec.Data, err = r.take(int(n)); err != nil {
			return rec, err
		}
	}
	if err := r.proven(); err != nil {
		return rec, err
	}
	if k == kindEnd {
		if rec.Offset != r.start.Size || rec.Length != 0 || n != 0 {
			return rec, fmt.Errorf("%w: an end mark at %d of %d bytes", ErrFormat, rec.Offset, r.start.Size)
		}
		r.ended = true
		return Record{}, io.EOF
	}
	if err := rec.check(k, r.at, r.start.Size); err != nil {
		return rec, err
	}
	r.at = rec.Offset + rec.Length
	return rec, nil
}
