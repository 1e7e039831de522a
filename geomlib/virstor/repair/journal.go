package repair

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/ownfile"
)

// A journal is a header, then records. All numbers are little-endian.
//
//	header  magic[16] · length of text u32 · text (JSON) · SHA-256 of all that
//	record  "WRIT" · provider u32 · offset u64 · length u32 · old · new · SHA-256 of all that
//	end     "DONE" · number of records u64 · SHA-256 of all that
//
// A record is on stable storage before what it is about is written, so that a
// torn one at the end is of a write that was never made. Where there is no end, the
// repair was interrupted, or somebody cut the file.
const (
	journalMagic  = "GVIRSTOR::UNDO1\n"
	recordMagic   = "WRIT"
	endMagic      = "DONE"
	recordHead    = 4 + 4 + 8 + 4
	maxRecord     = 1 << 20 // bytes of data in one record
	maxHeaderText = 64 << 20
)

type journalHeader struct {
	Volume    string            `json:"volume"`
	ID        string            `json:"id"`
	Time      time.Time         `json:"time"`
	Providers []journalProvider `json:"providers"`
}

type journalProvider struct {
	Name       string `json:"name"`
	MediaSize  int64  `json:"media_size"`
	SectorSize int    `json:"sector_size"`
}

// Journal is the file that a repair saves what it replaces in.
type Journal struct {
	mu    sync.Mutex
	f     journalFile
	index map[string]uint32 // by provider name
	count uint64            // of records
	buf   bytes.Buffer
}

type journalFile interface {
	io.Writer
	Sync() error
	Close() error
}

// CreateJournal makes a new journal for plan at path, which must not exist. It
// and its folder are on stable storage when it returns.
func CreateJournal(path string, plan *Plan, now time.Time) (*Journal, error) {
	f, err := ownfile.Create(path)
	if err != nil {
		return nil, fmt.Errorf("create the backup of what repair replaces: %w", err)
	}
	j, err := newJournal(f, plan, now)
	if err == nil {
		err = ownfile.SyncDir(filepath.Dir(path))
	}
	if err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(path))
	}
	return j, nil
}

func newJournal(f journalFile, plan *Plan, now time.Time) (*Journal, error) {
	j := &Journal{f: f, index: make(map[string]uint32)}
	h := journalHeader{Volume: plan.Volume, ID: plan.ID, Time: now.UTC()}
	add := func(p geomlib.Provider) {
		if _, ok := j.index[p.Name()]; ok {
			return
		}
		j.index[p.Name()] = uint32(len(h.Providers))
		h.Providers = append(h.Providers, journalProvider{p.Name(), p.MediaSize(), p.SectorSize()})
	}
	for _, p := range plan.volume.Providers() {
		add(p)
	}
	text, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	j.buf.WriteString(journalMagic)
	j.buf.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(text))))
	j.buf.Write(text)
	return j, j.seal()
}

// seal appends the checksum to what is in buf and puts it on stable storage.
func (j *Journal) seal() error {
	sum := sha256.Sum256(j.buf.Bytes())
	j.buf.Write(sum[:])
	_, err := j.f.Write(j.buf.Bytes())
	j.buf.Reset()
	if err == nil {
		err = j.f.Sync()
	}
	if err != nil {
		return fmt.Errorf("save what repair replaces: %w", err)
	}
	return nil
}

// save notes that old is about to become new.
func (j *Journal) save(provider string, off int64, old, now []byte) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	i, ok := j.index[provider]
	if !ok {
		return fmt.Errorf("save what repair replaces: %s is not in the journal", provider)
	}
	le := binary.LittleEndian
	head := append(make([]byte, 0, recordHead), recordMagic...)
	head = le.AppendUint32(head, i)
	head = le.AppendUint64(head, uint64(off))
	head = le.AppendUint32(head, uint32(len(old)))
	j.buf.Write(head)
	j.buf.Write(old)
	j.buf.Write(now)
	j.count++
	return j.seal()
}

// Close writes the journal's end: nothing more will be replaced.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.buf.WriteString(endMagic)
	j.buf.Write(binary.LittleEndian.AppendUint64(nil, j.count))
	if err := errors.Join(j.seal(), j.f.Close()); err != nil {
		return fmt.Errorf("close the backup of what repair replaced: %w", err)
	}
	return nil
}

// Guard returns p with the journal before its writes: what a write replaces is
// saved first. What a write does not change needs no saving, but is written: after a
// failed flush a cache may hold what the medium does not. Delete is refused.
func (j *Journal) Guard(p geomlib.Provider) geomlib.Provider {
	g := &guarded{Provider: p, journal: j}
	if h, ok := p.(geomlib.HoleFinder); ok {
		return struct {
			*guarded
			geomlib.HoleFinder
		}{g, h}
	}
	return g
}

type guarded struct {
	geomlib.Provider
	journal *Journal
}

func (g *guarded) WriteAt(b []byte, off int64) (int, error) {
	for n := 0; n < len(b); n += maxRecord {
		part := b[n:min(n+maxRecord, len(b))]
		at := off + int64(n)
		old := make([]byte, len(part))
		if _, err := g.Provider.ReadAt(old, at); err != nil {
			return n, fmt.Errorf("read what is to be replaced: %w", err)
		}
		if !bytes.Equal(old, part) {
			if err := g.journal.save(g.Name(), at, old, part); err != nil {
				return n, err
			}
		}
		if m, err := g.Provider.WriteAt(part, at); err != nil {
			return n + m, err
		}
	}
	return len(b), nil
}

// DropCache passes on what its Provider can do: the journal keeps no cache.
func (g *guarded) DropCache() error {
	if d, ok := g.Provider.(geomlib.CacheDropper); ok {
		return d.DropCache()
	}
	return nil
}

func (g *guarded) Delete(int64, int64) error { return geomlib.ErrNotSupported }
