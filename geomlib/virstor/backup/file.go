package backup

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/gvirstor/gvirstor/ondisk"
)

// ErrFormat: not a backup, one of a later version, or a damaged one.
var ErrFormat = errors.New("not a backup of a volume, or a damaged one")

const (
	magic       = "GVIRSTOR::BACKUP\n"
	version     = 1       // of a volume alone
	poolVersion = 2       // with snapshots or further volumes
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
	Pool       *headerPool       `json:"pool,omitempty"`      // at poolVersion
}

// headerPool is a Pool but for the runs of its parts, which follow those of the volume.
type headerPool struct {
	Snapshots []string     `json:"snapshots"`         // for people
	Volumes   []string     `json:"volumes,omitempty"` // likewise, further ones
	Directory []byte       `json:"directory"`         // its contents as on the disk
	Maps      []headerMap  `json:"maps"`
	Parts     []headerPart `json:"parts"`
}

type headerMap struct {
	Places []headerPlace `json:"places"`
	List   []byte        `json:"list"` // its contents as on the disk
}

type headerPlace struct {
	Member uint64 `json:"member"`
	Chunk  uint32 `json:"chunk"`
}

type headerPart struct {
	Number uint16 `json:"member_number"`
	Chunk  uint32 `json:"chunk"`
	Runs   int    `json:"runs"`
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
	v := uint32(version)
	if b.Pool != nil {
		v = poolVersion
		var err error
		if h.Pool, err = b.poolHeader(); err != nil {
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
	out.Write(le.AppendUint32(nil, v))
	out.Write(le.AppendUint32(nil, uint32(len(text))))
	out.Write(text)
	writeRuns(out, b.Runs)
	if b.Pool != nil {
		for _, p := range b.Pool.Parts {
			writeRuns(out, p.Runs)
		}
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	if _, err := w.Write(sum.Sum(nil)); err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	return nil
}

// writeRuns writes the runs of one map, or of a part of one.
func writeRuns(out *bufio.Writer, runs []Run) {
	var next uint64
	var buf []byte
	for _, r := range runs {
		buf = binary.AppendUvarint(buf[:0], r.Virtual-next)
		buf = binary.AppendUvarint(buf, r.Length)
		buf = binary.AppendUvarint(buf, uint64(r.Component))
		buf = binary.AppendUvarint(buf, uint64(r.Chunk))
		next = r.Virtual + r.Length
		out.Write(buf)
	}
}

func (b *Backup) poolHeader() (*headerPool, error) {
	h := &headerPool{Snapshots: b.Snapshots(), Volumes: b.Volumes()}
	var err error
	if h.Directory, err = b.Pool.Directory.Encode(); err != nil {
		return nil, err
	}
	for _, m := range b.Pool.Maps {
		hm := headerMap{}
		for _, at := range m.Places {
			hm.Places = append(hm.Places, headerPlace(at))
		}
		if hm.List, err = m.List.Encode(); err != nil {
			return nil, err
		}
		h.Maps = append(h.Maps, hm)
	}
	for _, p := range b.Pool.Parts {
		h.Parts = append(h.Parts, headerPart{p.Number, p.Chunk, len(p.Runs)})
	}
	return h, nil
}

// pool is the Pool that h tells of, without the runs of its parts, and how many each has.
func (h *headerPool) pool() (p *Pool, runs []int, err error) {
	p = new(Pool)
	if p.Directory, err = ondisk.DecodeDirectory(h.Directory); err != nil {
		return nil, nil, err
	}
	for _, hm := range h.Maps {
		m := Map{}
		for _, at := range hm.Places {
			m.Places = append(m.Places, ondisk.Place(at))
		}
		if m.List, err = ondisk.DecodeMapList(hm.List); err != nil {
			return nil, nil, err
		}
		p.Maps = append(p.Maps, m)
	}
	for _, part := range h.Parts {
		p.Parts = append(p.Parts, Part{Address: ondisk.Address{Number: part.Number, Chunk: part.Chunk}})
		runs = append(runs, part.Runs)
	}
	return p, runs, nil
}

// Read reads what Write wrote, to the end of r, which it may read ahead. It fails
// with ErrFormat, and looks at the beginning before anything else: of a file that is
// no backup it reads no more than that. What it needs memory for are the runs, no
// more than the components that the file names have chunks.
func Read(r io.Reader) (*Backup, error) { return read(r, nil) }

// read asks accept, if not nil, when all but the runs is known.
func read(r io.Reader, accept func(*Backup) error) (*Backup, error) {
	d := &decoder{in: bufio.NewReader(io.LimitReader(r, maxFile+1)), sum: sha256.New()}
	b, err := d.header()
	if err != nil {
		return nil, fmt.Errorf("read backup: %w: %w", ErrFormat, err)
	}
	if accept != nil {
		if err := accept(b); err != nil {
			return nil, err
		}
	}
	if err := d.rest(b); err != nil {
		return nil, fmt.Errorf("read backup: %w: %w", ErrFormat, err)
	}
	return b, nil
}

// decoder reads a backup from its beginning to its end.
type decoder struct {
	in   *bufio.Reader
	sum  hash.Hash // of what was read
	runs int       // of the volume's map
	part []int     // runs of each of Pool.Parts
}

// full reads exactly into b.
func (d *decoder) full(b []byte) error {
	if _, err := io.ReadFull(d.in, b); err != nil {
		return fmt.Errorf("it is cut off: %w", err)
	}
	d.sum.Write(b)
	return nil
}

// header reads all that comes before the runs, and how many there are.
func (d *decoder) header() (b *Backup, err error) {
	begin := make([]byte, fixedLength)
	if err := d.full(begin); err != nil || string(begin[:len(magic)]) != magic {
		return nil, errors.New("it does not begin like one")
	}
	le := binary.LittleEndian
	v := le.Uint32(begin[len(magic):])
	if v != version && v != poolVersion {
		return nil, fmt.Errorf("version %d, known are %d and %d", v, version, poolVersion)
	}
	n := le.Uint32(begin[len(magic)+4:])
	if n > maxHeader {
		return nil, fmt.Errorf("header of %d bytes", n)
	}
	var text bytes.Buffer // grows with what is there, whatever n says
	if _, err := io.CopyN(io.MultiWriter(&text, d.sum), d.in, int64(n)); err != nil {
		return nil, fmt.Errorf("it is cut off: %w", err)
	}
	var h header
	if err := json.Unmarshal(text.Bytes(), &h); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	if b, err = h.backup(); err != nil {
		return nil, err
	}
	if (v == poolVersion) != (h.Pool != nil) {
		return nil, fmt.Errorf("version %d, with snapshots: %t", v, h.Pool != nil)
	}
	if h.Pool != nil {
		if b.Pool, d.part, err = h.Pool.pool(); err != nil {
			return nil, err
		}
	}
	d.runs = h.Runs
	return b, d.checkNumbers(b)
}

// checkNumbers refuses more runs than there can be, before there is memory for them.
func (d *decoder) checkNumbers(b *Backup) error {
	if d.runs < 0 || uint64(d.runs) > b.chunks() {
		return fmt.Errorf("%d runs on %d chunks", d.runs, b.chunks())
	}
	if uint64(len(d.part)) > b.chunks() {
		return fmt.Errorf("parts of maps in %d chunks, of %d", len(d.part), b.chunks())
	}
	for _, n := range d.part {
		if most := b.Components[0].Metadata.ChunkSize / ondisk.EntrySize; n < 0 || uint64(n) > uint64(most) {
			return fmt.Errorf("%d runs in a part of a map of %d entries", n, most)
		}
	}
	return nil
}

// chunks is how many chunks the components have for data, all together.
func (b *Backup) chunks() uint64 {
	var n uint64
	for _, c := range b.Components {
		n += uint64(c.Metadata.ChunkCount) - min(uint64(c.Metadata.ChunkCount), uint64(c.Metadata.ChunkReserved))
	}
	return n
}

// rest reads the runs and the checksum, and makes sure that all is as it should be.
func (d *decoder) rest(b *Backup) (err error) {
	if b.Runs, err = d.readRuns(d.runs); err != nil {
		return err
	}
	for i, n := range d.part {
		if b.Pool.Parts[i].Runs, err = d.readRuns(n); err != nil {
			return err
		}
	}
	want := d.sum.Sum(nil)
	got := make([]byte, len(want))
	if _, err := io.ReadFull(d.in, got); err != nil {
		return fmt.Errorf("it is cut off: %w", err)
	}
	if !bytes.Equal(got, want) {
		return errors.New("wrong checksum: it is cut off or damaged")
	}
	if _, err := d.in.ReadByte(); !errors.Is(err, io.EOF) {
		return errors.New("there is more behind its end")
	}
	return b.check()
}

// readRuns reads n runs of one map.
func (d *decoder) readRuns(n int) (runs []Run, err error) {
	var next uint64
	for i := range n {
		r, err := d.run(i, next)
		if err != nil {
			return nil, err
		}
		next = r.Virtual + r.Length
		runs = append(runs, r)
	}
	return runs, nil
}

// run reads the i-th run, which begins at next at the earliest.
func (d *decoder) run(i int, next uint64) (Run, error) {
	ahead, err := d.in.Peek(4 * binary.MaxVarintLen64)
	if err != nil && !errors.Is(err, io.EOF) {
		return Run{}, err
	}
	var v [4]uint64
	n := 0
	for k := range v {
		x, length := binary.Uvarint(ahead[n:])
		if length <= 0 {
			return Run{}, fmt.Errorf("run %d is no number, or it is cut off", i)
		}
		v[k], n = x, n+length
	}
	d.sum.Write(ahead[:n])
	if _, err := d.in.Discard(n); err != nil {
		return Run{}, err
	}
	if v[2] > 1<<16-1 || v[3] > 1<<32-1 {
		return Run{}, fmt.Errorf("run %d names component %d, chunk %d", i, v[2], v[3])
	}
	r := Run{Virtual: next + v[0], Length: v[1], Component: uint16(v[2]), Chunk: uint32(v[3])}
	if r.Virtual < next || r.Virtual+r.Length < r.Virtual {
		return Run{}, fmt.Errorf("run %d is too long", i)
	}
	return r, nil
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
		e.Directory = ondisk.Link{} // Pool knows it
		b.Extension = &e
	}
	if err := b.checkComponents(); err != nil {
		return nil, err
	}
	return b, nil
}
