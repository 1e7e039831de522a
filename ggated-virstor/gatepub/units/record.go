package units

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/gvirstor/gvirstor/geomlib/ownfile"
)

// record is what a file ID.unit in the run folder says.
type record struct {
	Unit int    `json:"unit"` // or -1 before a unit made by name has its number
	Name string `json:"name"` // below /dev
	// Made is false while CREATE is under way, or was when the daemon died.
	Made      bool     `json:"made"`
	Providers []string `json:"providers,omitempty"` // of the volume
}

const recordSuffix = ".unit"

// maxRecord bounds a record in bytes: ondisk.MaxComponents names of providers are shorter.
const maxRecord = 64 << 20

// records is the run folder.
type records struct{ dir string }

func (r records) path(id uint32) string {
	return filepath.Join(r.dir, fmt.Sprintf("%08x%s", id, recordSuffix))
}

// read returns the record of a volume; ok is false when there is none. A record
// that cannot be read as such is an error: what it said may be a unit that a
// file system hangs on.
func (r records) read(id uint32) (rec record, ok bool, err error) {
	b, err := r.load(id)
	if errors.Is(err, fs.ErrNotExist) {
		return rec, false, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &rec)
	}
	if err == nil && (rec.Unit < -1 || rec.Name == "" || rec.Made && rec.Unit < 0) {
		err = errors.New("no unit is named")
	}
	if err != nil {
		return rec, false, fmt.Errorf("%s: not a record of a unit (see `ggatel list -v`; remove it if no unit has the info %q): %w",
			r.path(id), Info(id), err)
	}
	return rec, true, nil
}

// load is what is in the file of a record, of at most maxRecord bytes.
func (r records) load(id uint32) ([]byte, error) {
	f, err := ownfile.Open(r.path(id), os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxRecord))
}

// write replaces the record; after a crash there is the old one or the new one.
func (r records) write(id uint32, rec record) error {
	b, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	path := r.path(id)
	if err := ownfile.MakeDir(r.dir); err != nil {
		return fmt.Errorf("record the unit: %w", err)
	}
	tmp := path + ".new"
	f, err := ownfile.Open(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("record the unit: %w", err)
	}
	_, err = f.Write(append(b, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(tmp, path)
	}
	if err == nil {
		err = r.sync()
	}
	if err != nil {
		return fmt.Errorf("record the unit: %w", err)
	}
	return nil
}

func (r records) remove(id uint32) error {
	if err := os.Remove(r.path(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget the unit: %w", err)
	}
	return r.sync()
}

func (r records) sync() error {
	err := ownfile.SyncDir(r.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// ids are the volumes that have a record.
func (r records) ids() ([]uint32, error) {
	entries, err := os.ReadDir(r.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var ids []uint32
	for _, e := range entries {
		hex, ok := strings.CutSuffix(e.Name(), recordSuffix)
		if !ok {
			continue
		}
		if id, err := strconv.ParseUint(hex, 16, 32); err == nil {
			ids = append(ids, uint32(id))
		}
	}
	return ids, nil
}
