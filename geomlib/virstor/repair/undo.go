package repair

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/extblock"
	"github.com/gvirstor/gvirstor/ondisk"
)

// Errors of Undo.
var (
	// ErrJournal: what is read is no journal, or a damaged one.
	ErrJournal = errors.New("not a backup that repair made, or a damaged one")
	// ErrMismatch: the providers are not those that were repaired.
	ErrMismatch = errors.New("not what was repaired")
	// ErrCut: the journal has no end. It was cut off, or the repair was interrupted.
	ErrCut = errors.New("the end is missing")
	// ErrChanged: something else was written since.
	ErrChanged = errors.New("changed since the repair")
	// ErrSnapshots: they were taken since the repair, and name chunks by what it left.
	ErrSnapshots = errors.New("it changed since the repair, and has snapshots, for which what is taken back would be wrong: send away what is wanted of them, since it is lost with them, and delete them first")
)

// UndoOptions modify Undo.
type UndoOptions struct {
	// Force restores also what was changed since the repair.
	Force bool
	// Partial takes back as much as a journal without an end tells (ErrCut), which
	// is all that an interrupted repair has done, and less of one that was cut off.
	Partial bool
	// DryRun checks, and writes nothing.
	DryRun bool
	// RunDir is where volumes are locked while they are served
	// (geomlib.DefaultRunDir); empty: the caller has the lock.
	RunDir string
	// Locked, if not nil, reports whether the caller has the lock of a volume, by its id.
	Locked func(id uint32) bool
}

// UndoResult is what Undo did, or would do.
type UndoResult struct {
	Volume    string   `json:"volume"`
	ID        string   `json:"id"`
	Providers []string `json:"providers"`
	Writes    int      `json:"writes"`
	Bytes     int64    `json:"bytes"`
}

type record struct {
	provider uint32
	off      int64
	old, now []byte
}

// entry is a record without its data, which stays in the journal: a journal may be larger than
// memory.
type entry struct {
	provider uint32
	n        uint32 // bytes replaced
	off      int64  // on the provider, bytes
	at       int64  // of the record in the journal, bytes
}

// contents are the records of a journal. A record that says something else than
// when the journal was looked through is an error.
type contents struct {
	r       io.ReaderAt
	entries []entry
}

func (c *contents) record(i int) (record, error) {
	e := c.entries[i]
	rec, err := readRecord(io.NewSectionReader(c.r, e.at, recordHead+2*int64(e.n)+sha256.Size))
	if err == nil && (rec.provider != e.provider || rec.off != e.off || len(rec.old) != int(e.n)) {
		err = errors.New("it has changed")
	}
	if err != nil {
		return record{}, fmt.Errorf("undo: %w: record %d, read again: %w", ErrJournal, i, err)
	}
	return rec, nil
}

// Undo reads the journal r and makes the providers what they were before the
// repair. They are found by name among those given, which must be open for
// writing and locked. Nothing is written unless every sector holds what the
// repair found or left there (ErrChanged). Doing it again, or after
// an interruption, does no harm. Of the journal's data it holds one record at a time.
func Undo(ctx context.Context, r io.ReaderAt, providers []geomlib.Provider, opt UndoOptions) (*UndoResult, error) {
	h, entries, err := readJournal(r)
	if errors.Is(err, ErrCut) && opt.Partial {
		err = nil
	}
	if err != nil {
		return nil, err
	}
	if opt.RunDir != "" {
		id, err := strconv.ParseUint(h.ID, 16, 32)
		if err != nil {
			return nil, fmt.Errorf("undo: %w: volume id %q", ErrJournal, h.ID)
		}
		if opt.Locked == nil || !opt.Locked(uint32(id)) {
			lock, err := geomlib.LockVolume(opt.RunDir, uint32(id))
			if err != nil {
				return nil, fmt.Errorf("undo: %w", err)
			}
			defer lock.Close()
		}
	}
	on, err := match(h, entries, providers)
	if err != nil {
		return nil, err
	}
	c := &contents{r, entries}
	if err := c.unchanged(on); err != nil {
		if pool := refusePool(providers); pool != nil {
			return nil, pool
		}
		if !opt.Force {
			return nil, err
		}
	}
	res := &UndoResult{Volume: ondisk.Printable(h.Volume), ID: h.ID}
	for i, e := range slices.Backward(entries) {
		res.Writes++
		res.Bytes += int64(e.n)
		p := on[e.provider]
		if !slices.Contains(res.Providers, p.Name()) {
			res.Providers = append(res.Providers, p.Name())
		}
		if opt.DryRun {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("undo: %w", err)
		}
		rec, err := c.record(i)
		if err != nil {
			return nil, err
		}
		if _, err := p.WriteAt(rec.old, rec.off); err != nil {
			return nil, fmt.Errorf("undo: write %s at byte %d: %w", p.Name(), rec.off, err)
		}
		// The order of a repair matters, and so does that of taking it back.
		if i > 0 && entries[i-1].provider != e.provider || i == 0 {
			if err := extblock.Flush(p); err != nil {
				return nil, fmt.Errorf("undo: %w", err)
			}
		}
	}
	return res, nil
}

// refusePool refuses components of a volume that has snapshots (ErrSnapshots).
func refusePool(providers []geomlib.Provider) error {
	for _, p := range providers {
		m, err := geomlib.ReadMetadata(p)
		if err != nil {
			continue // it is nobody's component
		}
		if rec, _, err := virstor.Record(p, m); err == nil && rec.Directory.Exists() {
			return fmt.Errorf("undo: %s: %w", ondisk.Printable(m.Name), ErrSnapshots)
		}
	}
	return nil
}

// readJournal reads the header and all whole records, whose entries it returns also with
// ErrCut.
func readJournal(from io.ReaderAt) (*journalHeader, []entry, error) {
	r := io.NewSectionReader(from, 0, math.MaxInt64)
	head := make([]byte, len(journalMagic)+4)
	if _, err := io.ReadFull(r, head); err != nil || string(head[:len(journalMagic)]) != journalMagic {
		return nil, nil, fmt.Errorf("undo: %w", ErrJournal)
	}
	n := binary.LittleEndian.Uint32(head[len(journalMagic):])
	if n > maxHeaderText {
		return nil, nil, fmt.Errorf("undo: %w: a header of %d bytes", ErrJournal, n)
	}
	text, err := readSealed(r, head, int64(n))
	if err != nil {
		return nil, nil, fmt.Errorf("undo: %w: header: %w", ErrJournal, err)
	}
	h := new(journalHeader)
	if err := json.Unmarshal(text, h); err != nil {
		return nil, nil, fmt.Errorf("undo: %w: header: %w", ErrJournal, err)
	}
	var entries []entry
	for at := int64(len(head)) + int64(n) + sha256.Size; ; {
		rec, err := readRecord(r)
		if errors.Is(err, errEnd) {
			return h, entries, readEnd(r, uint64(len(entries)))
		}
		if err != nil && torn(r, err) {
			return h, entries, fmt.Errorf("undo: %w behind %d whole records of what was replaced", ErrCut, len(entries))
		}
		if err != nil {
			return nil, nil, fmt.Errorf("undo: %w: record %d: %w", ErrJournal, len(entries), err)
		}
		if int(rec.provider) >= len(h.Providers) {
			return nil, nil, fmt.Errorf("undo: %w: record %d is about provider %d of %d", ErrJournal, len(entries), rec.provider, len(h.Providers))
		}
		entries = append(entries, entry{rec.provider, uint32(len(rec.old)), rec.off, at})
		at += recordHead + 2*int64(len(rec.old)) + sha256.Size
	}
}

// torn reports whether err is of the last record, of a write that was not made
// since its record was not on stable storage: the file ends, or has zeros
// for the rest.
func torn(r io.Reader, err error) bool {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return true
	}
	b := make([]byte, 4096)
	for {
		n, err := r.Read(b)
		if bytes.Count(b[:n], []byte{0}) != n {
			return false
		}
		if err != nil {
			return errors.Is(err, io.EOF)
		}
	}
}

// errEnd: what follows is no record but the end.
var errEnd = errors.New("end of the journal")

// readEnd reads the end behind its magic, of a journal of so many records. Zeros may
// follow.
func readEnd(r io.Reader, records uint64) error {
	body, err := readSealed(r, []byte(endMagic), 8)
	if err != nil && torn(r, err) {
		return fmt.Errorf("undo: %w behind %d whole records of what was replaced", ErrCut, records)
	}
	if err != nil {
		return fmt.Errorf("undo: %w: end: %w", ErrJournal, err)
	}
	if n := binary.LittleEndian.Uint64(body); n != records {
		return fmt.Errorf("undo: %w: %d records of %d", ErrJournal, records, n)
	}
	if !torn(r, errEnd) {
		return fmt.Errorf("undo: %w: there is more behind its end", ErrJournal)
	}
	return nil
}

var errChecksum = errors.New("wrong checksum")

// readSealed reads n bytes and the checksum of head and of them.
func readSealed(r io.Reader, head []byte, n int64) ([]byte, error) {
	var b bytes.Buffer // grows with what is there, whatever n says
	if _, err := io.CopyN(&b, r, n+sha256.Size); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	body, sum := b.Bytes()[:n], b.Bytes()[n:]
	h := sha256.New()
	h.Write(head)
	h.Write(body)
	if !bytes.Equal(h.Sum(nil), sum) {
		return nil, errChecksum
	}
	return body, nil
}

func readRecord(r io.Reader) (record, error) {
	head := make([]byte, recordHead)
	if _, err := io.ReadFull(r, head[:4]); err != nil {
		return record{}, err
	}
	if string(head[:4]) == endMagic {
		return record{}, errEnd
	}
	if _, err := io.ReadFull(r, head[4:]); err != nil {
		return record{}, err
	}
	if string(head[:4]) != recordMagic {
		return record{}, fmt.Errorf("begins with %q", head[:4])
	}
	le := binary.LittleEndian
	n := le.Uint32(head[16:])
	if n == 0 || n > maxRecord {
		return record{}, fmt.Errorf("of %d bytes", n)
	}
	body, err := readSealed(r, head, 2*int64(n))
	if err != nil {
		return record{}, err
	}
	return record{provider: le.Uint32(head[4:]), off: int64(le.Uint64(head[8:])), old: body[:n], now: body[n:]}, nil
}

// match finds the providers of the journal, and refuses others.
func match(h *journalHeader, records []entry, providers []geomlib.Provider) ([]geomlib.Provider, error) {
	on := make([]geomlib.Provider, len(h.Providers))
	var missing []string
	used := make(map[uint32]bool)
	for _, r := range records {
		used[r.provider] = true
	}
	for i, want := range h.Providers {
		for _, p := range providers {
			if p.Name() == want.Name {
				on[i] = p
			}
		}
		switch p := on[i]; {
		case p == nil && used[uint32(i)]:
			missing = append(missing, ondisk.Printable(want.Name))
		case p != nil && (p.MediaSize() != want.MediaSize || p.SectorSize() != want.SectorSize):
			return nil, fmt.Errorf("undo: %s is %w: %d bytes in sectors of %d now, %d in sectors of %d then",
				ondisk.Printable(want.Name), ErrMismatch, p.MediaSize(), p.SectorSize(), want.MediaSize, want.SectorSize)
		}
	}
	if missing != nil {
		return nil, fmt.Errorf("undo the repair of %s: %w: name also %s", ondisk.Printable(h.Volume), ErrMismatch, strings.Join(missing, ", "))
	}
	for _, r := range records {
		p := on[r.provider]
		s := int64(p.SectorSize())
		if n := int64(r.n); r.off < 0 || r.off%s != 0 || n%s != 0 || r.off > p.MediaSize()-n {
			return nil, fmt.Errorf("undo: %w: byte %d of %s", ErrJournal, r.off, p.Name())
		}
	}
	return on, nil
}

// sectorAt is a sector of a provider.
type sectorAt struct {
	provider uint32
	off      int64
}

// maxUnlike bounds the sectors that one record does not know and another may.
const maxUnlike = 1 << 18

// unchanged makes sure that every sector holds something that the repair found
// or wrote. What one record does not know is looked for in the others: few
// sectors are written more than once.
func (c *contents) unchanged(on []geomlib.Provider) error {
	unlike := make(map[sectorAt]bool)
	err := c.sectors(on, func(k sectorAt, known bool) error {
		if !known {
			unlike[k] = true
		}
		if len(unlike) > maxUnlike {
			return changedAt(k, on)
		}
		return nil
	})
	if err != nil || len(unlike) == 0 {
		return err
	}
	err = c.sectors(on, func(k sectorAt, known bool) error {
		if known {
			delete(unlike, k)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for k := range unlike {
		return changedAt(k, on)
	}
	return nil
}

// sectors calls each with every sector of every record, and whether it holds what that
// record found or wrote.
func (c *contents) sectors(on []geomlib.Provider, each func(k sectorAt, known bool) error) error {
	for i := range c.entries {
		rec, err := c.record(i)
		if err != nil {
			return err
		}
		p := on[rec.provider]
		b := make([]byte, len(rec.old))
		if _, err := p.ReadAt(b, rec.off); err != nil {
			return fmt.Errorf("undo: read %s at byte %d: %w", p.Name(), rec.off, err)
		}
		s := p.SectorSize()
		for at := 0; at < len(b); at += s {
			is := b[at : at+s]
			known := bytes.Equal(is, rec.old[at:at+s]) || bytes.Equal(is, rec.now[at:at+s])
			if err := each(sectorAt{rec.provider, rec.off + int64(at)}, known); err != nil {
				return err
			}
		}
	}
	return nil
}

func changedAt(k sectorAt, on []geomlib.Provider) error {
	return fmt.Errorf("undo: the sector at byte %d of %s has %w; the volume was used: taking the repair back now would lose what was written",
		k.off, on[k.provider].Name(), ErrChanged)
}
