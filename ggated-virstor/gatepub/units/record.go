package units

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/gvirstor/gvirstor/geomlib/ownfile"
)

// record is what a file KEY.unit in the run folder says.
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

func (r records) path(k Key) string {
	return filepath.Join(r.dir, k.String()+recordSuffix)
}

// read returns the record of a volume; ok is false when there is none. A record
// that cannot be read as such is an error: what it said may be a unit that a
// file system hangs on.
func (r records) read(k Key) (rec record, ok bool, err error) {
	b, err := r.load(k)
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
			r.path(k), Info(k), err)
	}
	return rec, true, nil
}

// load is what is in the file of a record, of at most maxRecord bytes.
func (r records) load(k Key) ([]byte, error) {
	f, err := ownfile.Open(r.path(k), os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxRecord))
}

// write replaces the record; after a crash there is the old one or the new one.
func (r records) write(k Key, rec record) error {
	b, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	path := r.path(k)
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

func (r records) remove(k Key) error {
	if err := os.Remove(r.path(k)); err != nil && !errors.Is(err, fs.ErrNotExist) {
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

// keys are what has a record.
func (r records) keys() ([]Key, error) {
	entries, err := os.ReadDir(r.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var keys []Key
	for _, e := range entries {
		text, ok := strings.CutSuffix(e.Name(), recordSuffix)
		if !ok {
			continue
		}
		if k, ok := parseKey(text); ok {
			keys = append(keys, k)
		}
	}
	return keys, nil
}
