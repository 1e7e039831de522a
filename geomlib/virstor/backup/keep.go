package backup

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/ownfile"
	"github.com/gvirstor/gvirstor/ondisk"
)

// DefaultDir is where a daemon of root's keeps backups.
const DefaultDir = "/var/db/gvirstor"

// Dir is where the last backups of volumes are kept.
type Dir struct {
	Path  string
	Count int // of backups of each volume, at least 1
}

// Keep is the function Keep in d.
func (d Dir) Keep(b *Backup) (string, error) { return Keep(d.Path, b, d.Count) }

// Scratch opens a file that has no name, in d's file system: for a process to write
// a backup into that may not write to d.
func (d Dir) Scratch() (*os.File, error) {
	if err := ownfile.MakeDir(d.Path); err != nil {
		return nil, fmt.Errorf("make room for a backup: %w", err)
	}
	f, err := os.CreateTemp(d.Path, ".gvirstor-backup-*")
	if err != nil {
		return nil, fmt.Errorf("make room for a backup: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(fmt.Errorf("make room for a backup: %w", err), f.Close())
	}
	return f, nil
}

const suffix = ".backup"

// Save writes b to path, whole or not at all: it is on stable storage under
// that name when Save returns, and what was there before is replaced.
func (b *Backup) Save(path string) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".gvirstor-backup-*")
	if err != nil {
		return fmt.Errorf("save backup of %s: %w", b.Name(), err)
	}
	err = b.Write(f)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("save backup of %s: %w", b.Name(), errors.Join(err, os.Remove(f.Name())))
	}
	if err := ownfile.SyncDir(dir); err != nil {
		return fmt.Errorf("save backup of %s: %w", b.Name(), err)
	}
	return nil
}

// Load reads the backup at path, a regular file.
func Load(path string) (*Backup, error) { return load(path, nil) }

// Recognize tells from its beginning whether the file at path is a backup
// (ErrFormat), before anything is opened for its sake.
func Recognize(path string) error {
	_, err := load(path, func(*Backup) error { return errRecognized })
	if errors.Is(err, errRecognized) {
		return nil
	}
	return err
}

var errRecognized = errors.New("it begins like a backup")

// LoadFor is Load of what is to be restored to providers. One that Restore would
// refuse to write to them (ErrProviders) is refused before its map is read: then no
// more memory is needed than what the providers can have chunks.
func LoadFor(path string, providers []geomlib.Provider, inOrder bool) (*Backup, error) {
	return load(path, func(b *Backup) error {
		if _, err := b.match(providers, inOrder); err != nil {
			return fmt.Errorf("restore %s: %w", b.Name(), err)
		}
		return nil
	})
}

func load(path string, accept func(*Backup) error) (*Backup, error) {
	f, err := ownfile.OpenRegular(path)
	if err != nil {
		return nil, fmt.Errorf("load backup: %w", err)
	}
	defer f.Close()
	b, err := read(f, accept)
	if errors.Is(err, ErrProviders) {
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("load backup: %s: %w", path, err)
	}
	return b, nil
}

// Keep saves b in dir, which is made if need be, and removes the oldest backups of
// the same volume beyond the last n (at least 1). When nothing has changed
// since the last one it saves none. It returns the path of the last one.
func Keep(dir string, b *Backup, n int) (string, error) {
	if err := ownfile.MakeDir(dir); err != nil {
		return "", fmt.Errorf("keep backup of %s: %w", b.Name(), err)
	}
	kept, err := List(dir, b.ID())
	if err != nil {
		return "", err
	}
	if len(kept) > 0 {
		last, err := Load(kept[len(kept)-1])
		if err == nil && b.same(last) {
			return kept[len(kept)-1], nil
		}
	}
	path := filepath.Join(dir, b.fileName(kept))
	if err := b.Save(path); err != nil {
		return "", err
	}
	kept = append(kept, path)
	for len(kept) > max(n, 1) {
		if err := os.Remove(kept[0]); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return path, fmt.Errorf("remove an old backup of %s: %w", b.Name(), err)
		}
		kept = kept[1:]
	}
	return path, nil
}

// List returns the paths of the backups of a volume in dir, the oldest first.
func List(dir string, id uint32) ([]string, error) {
	paths, err := filepath.Glob(filepath.Join(globEscape(dir), fmt.Sprintf("*-%08x-*%s", id, suffix)))
	if err != nil {
		return nil, fmt.Errorf("list backups: %w", err)
	}
	slices.SortFunc(paths, func(a, b string) int { return cmp.Compare(timePart(a), timePart(b)) })
	return paths, nil
}

// globEscape makes path match itself alone.
func globEscape(path string) string {
	return strings.NewReplacer(`*`, `\*`, `?`, `\?`, `[`, `\[`, `\`, `\\`).Replace(path)
}

// timePart is what comes last in a file's name.
func timePart(path string) string {
	base := strings.TrimSuffix(filepath.Base(path), suffix)
	return base[strings.LastIndexByte(base, '-')+1:]
}

// fileName is NAME-ID-TIME.backup, later than all that are kept.
func (b *Backup) fileName(kept []string) string {
	name := strings.Map(func(r rune) rune {
		if r == '/' || r == '-' {
			return '_'
		}
		return r
	}, b.Name())
	t := b.Time.UTC().Format("20060102T150405.000000000Z")
	if len(kept) > 0 {
		// A clock that was set back must not make this the oldest.
		if last := timePart(kept[len(kept)-1]); last >= t {
			t = last + "a"
		}
	}
	return fmt.Sprintf("%s-%08x-%s%s", name, b.ID(), t, suffix)
}

// same reports whether nothing but the time differs, and the generation, which rises
// with it.
func (b *Backup) same(o *Backup) bool {
	x, y := *b, *o
	x.Time, y.Time = b.Time, b.Time
	x.Components, y.Components = ageless(b.Components), ageless(o.Components)
	x.Extension, y.Extension = nil, nil
	var bx, by bytes.Buffer
	return x.Write(&bx) == nil && y.Write(&by) == nil && bytes.Equal(bx.Bytes(), by.Bytes())
}

// ageless are components without what says of which moment their members are.
func ageless(cs []Component) []Component {
	cs = slices.Clone(cs)
	for i := range cs {
		if b := &cs[i].Metadata.Member; b.Exists() {
			*b = ondisk.MemberBlock{ID: b.ID, Generation: 1, List: b.List}
		}
	}
	return cs
}
