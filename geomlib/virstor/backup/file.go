package backup

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/gvirstor/gvirstor/ondisk"
)

// ErrFormat: not a backup, one of a later version, or a damaged one.
var ErrFormat = errors.New("not a backup of a volume, or a damaged one")

const (
	magic       = "GVIRSTOR::BACKUP\n"
	version     = 1
	maxFile     = 1 << 30 // bytes; a map of 64 million runs
	maxHeader   = 64 << 20
	fixedLength = len(magic) + 4 + 4 // magic, version u32, length of header u32
)

// header is the part of a file that people can read, too.
type header struct {
	Volume     string            `json:"volume"`
	ID         string            `json:"id"`
	Time       time.Time         `json:"time"`
	ByteOrder  string            `json:"byte_order"`
	Allocated  uint64            `json:"allocated_chunks"`
	Runs       int               `json:"runs"`
	Components []headerComponent `json:"components"`
	Extension  []byte            `json:"extension,omitempty"` // an encoded record
}

type headerComponent struct {
	Name       string `json:"name"`
	SectorSize int    `json:"sector_size"`
	MediaSize  uint64 `json:"media_size"`
	Metadata   []byte `json:"metadata"` // MetadataSize bytes as on the disk, or MemberBlockEnd with a member block
}

// Write writes b. The bytes depend on b alone.
func (b *Backup) Write(w io.Writer) error {
	h := header{Volume: b.Name(), ID: fmt.Sprintf("%08x", b.ID()), Time: b.Time, ByteOrder: b.Order.String(),
		Allocated: b.Allocated(), Runs: len(b.Runs)}
	for _, c := range b.Components {
		md := make([]byte, ondisk.MetadataSize)
		if c.Metadata.Member.Exists() {
			md = make([]byte, ondisk.MemberBlockEnd)
		}
		if err := c.Metadata.Encode(md); err != nil {
			return fmt.Errorf("write backup: %w", err)
		}
		h.Components = append(h.Components, headerComponent{c.Name, c.SectorSize, c.Metadata.ProviderSize, md})
	}
	if b.Extension != nil {
		h.Extension = make([]byte, ondisk.ExtensionRecordSize)
		if err := b.Extension.Encode(h.Extension); err != nil {
			return fmt.Errorf("write backup: %w", err)
		}
	}
	text, err := json.MarshalIndent(h, "", "  ")
	if err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	sum := sha256.New()
	out := bufio.NewWriter(io.MultiWriter(w, sum))
	le := binary.LittleEndian
	out.WriteString(magic) // a bufio.Writer keeps its first error for Flush
	out.Write(le.AppendUint32(nil, version))
	out.Write(le.AppendUint32(nil, uint32(len(text))))
	out.Write(text)
	var next uint64
	var buf []byte
	for _, r := range b.Runs {
		buf = binary.AppendUvarint(buf[:0], r.Virtual-next)
		buf = binary.AppendUvarint(buf, r.Length)
		buf = binary.AppendUvarint(buf, uint64(r.Component))
		buf = binary.AppendUvarint(buf, uint64(r.Chunk))
		next = r.Virtual + r.Length
		out.Write(buf)
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	if _, err := w.Write(sum.Sum(nil)); err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	return nil
}

// Read reads what Write wrote, to the end of r. It fails with ErrFormat.
func Read(r io.Reader) (*Backup, error) {
	all, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read backup: %w", err)
	}
	b, err := decode(all)
	if err != nil {
		return nil, fmt.Errorf("read backup: %w: %w", ErrFormat, err)
	}
	return b, nil
}

func decode(all []byte) (*Backup, error) {
	if len(all) > maxFile {
		return nil, fmt.Errorf("more than %d bytes", maxFile)
	}
	if len(all) < fixedLength+sha256.Size || string(all[:len(magic)]) != magic {
		return nil, errors.New("it does not begin like one")
	}
	le := binary.LittleEndian
	if v := le.Uint32(all[len(magic):]); v != version {
		return nil, fmt.Errorf("version %d, known is %d", v, version)
	}
	body, sum := all[:len(all)-sha256.Size], all[len(all)-sha256.Size:]
	if got := sha256.Sum256(body); !bytes.Equal(got[:], sum) {
		return nil, errors.New("wrong checksum: it is cut off or damaged")
	}
	n := le.Uint32(all[len(magic)+4:])
	body = body[fixedLength:]
	if n > maxHeader || int(n) > len(body) {
		return nil, fmt.Errorf("header of %d bytes", n)
	}
	var h header
	if err := json.Unmarshal(body[:n], &h); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	b, err := h.backup()
	if err != nil {
		return nil, err
	}
	if err := b.decodeRuns(body[n:], h.Runs); err != nil {
		return nil, err
	}
	return b, b.check()
}

// backup is what the header says.
func (h *header) backup() (*Backup, error) {
	b := &Backup{Time: h.Time}
	switch h.ByteOrder {
	case ondisk.LittleEndian.String():
		b.Order = ondisk.LittleEndian
	case ondisk.BigEndian.String():
		b.Order = ondisk.BigEndian
	case ondisk.OrderUnknown.String():
	default:
		return nil, fmt.Errorf("byte order %q", h.ByteOrder)
	}
	for i, c := range h.Components {
		m, err := ondisk.DecodeMetadata(c.Metadata)
		if err != nil {
			return nil, fmt.Errorf("component %d: %w", i, err)
		}
		b.Components = append(b.Components, Component{Name: c.Name, SectorSize: c.SectorSize, Metadata: m})
	}
	if h.Extension != nil {
		e, err := ondisk.DecodeExtension(h.Extension)
		if err != nil {
			return nil, err
		}
		b.Extension = &e
	}
	if err := b.checkComponents(); err != nil {
		return nil, err
	}
	return b, nil
}

func (b *Backup) decodeRuns(data []byte, n int) error {
	if n < 0 || n > len(data)/4 {
		return fmt.Errorf("%d runs in %d bytes", n, len(data))
	}
	b.Runs = make([]Run, 0, n)
	var next uint64
	for range n {
		var v [4]uint64
		for i := range v {
			k := 0
			if v[i], k = binary.Uvarint(data); k <= 0 {
				return fmt.Errorf("run %d is no number", len(b.Runs))
			}
			data = data[k:]
		}
		if v[2] > 1<<16-1 || v[3] > 1<<32-1 {
			return fmt.Errorf("run %d names component %d, chunk %d", len(b.Runs), v[2], v[3])
		}
		r := Run{Virtual: next + v[0], Length: v[1], Component: uint16(v[2]), Chunk: uint32(v[3])}
		if r.Virtual < next || r.Virtual+r.Length < r.Virtual {
			return fmt.Errorf("run %d is too long", len(b.Runs))
		}
		next = r.Virtual + r.Length
		b.Runs = append(b.Runs, r)
	}
	if len(data) > 0 {
		return fmt.Errorf("%d bytes too many", len(data))
	}
	return nil
}
