package stream

import (
	"encoding/binary"
	"fmt"
	"hash/crc64"
	"io"
)

// Writer writes a stream. It is used by one goroutine.
type Writer struct {
	w     io.Writer
	table *crc64.Table
	sum   uint64 // of what was written last
	at    int64  // where the next record may begin
	size  int64
	buf   []byte
}

// NewWriter writes the start of a stream to w. It fails with ErrFormat when no Reader would
// take it, and else as w does.
func NewWriter(w io.Writer, s Start) (*Writer, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	out := &Writer{w: w, table: crc64.MakeTable(crc64.ECMA), at: s.From, size: s.Size}
	var body []byte
	for _, n := range []uint64{uint64(s.GUID), uint64(s.Base), uint64(s.Size), uint64(s.From), uint64(s.Time)} {
		body = binary.LittleEndian.AppendUint64(body, n)
	}
	for _, name := range []string{s.Volume, s.Snapshot, s.Older} {
		body = append(append(body, byte(len(name))), name...)
	}
	b := append([]byte(nil), magic...)
	b = binary.LittleEndian.AppendUint32(b, Version)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(body)))
	return out, out.put(append(b, body...))
}

// put writes b with its checksum.
func (w *Writer) put(b []byte) error {
	w.sum = crc64.Update(w.sum, w.table, b)
	b = binary.LittleEndian.AppendUint64(b, w.sum)
	w.buf = b
	if _, err := w.w.Write(b); err != nil {
		return fmt.Errorf("write the stream: %w", err)
	}
	return nil
}

// Write writes a record, behind the one before (ErrFormat).
func (w *Writer) Write(r Record) error {
	k := kindZeros
	if r.Data != nil {
		k = kindData
	}
	if err := r.check(k, w.at, w.size); err != nil {
		return err
	}
	w.at = r.Offset + r.Length
	return w.record(k, r)
}

func (w *Writer) record(k kind, r Record) error {
	b := binary.LittleEndian.AppendUint32(w.buf[:0], uint32(k))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(r.Data)))
	b = binary.LittleEndian.AppendUint64(b, uint64(r.Offset))
	b = binary.LittleEndian.AppendUint64(b, uint64(r.Length))
	return w.put(append(b, r.Data...))
}

// Close writes the end mark. w stays open.
func (w *Writer) Close() error { return w.record(kindEnd, Record{Offset: w.size}) }
