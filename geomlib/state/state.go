// Package state remembers which volumes this host has served, and how far each was.
//
// Old copies of all components of a volume agree among themselves: nothing on them
// tells that there is a later state somewhere. The host that served the later one
// can tell, if it keeps a note of it. The note also says which of two volumes of
// one name was here before, and where a component was last seen.
package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/ownfile"
	"github.com/gvirstor/gvirstor/ondisk"
)

// Volume is what is remembered of one volume.
type Volume struct {
	ID   uint32 `json:"id"`
	Name string `json:"name"`
	// Generation is the highest that was settled on all members
	// (ondisk.MemberBlock), and Began when it began. 0: it had none.
	Generation uint64    `json:"generation"`
	Began      time.Time `json:"began"`
	// Providers are the names of the components, by index, as they were opened.
	Providers []string  `json:"providers"`
	Served    time.Time `json:"served"` // when this was last noted
}

// LastSeen says of which providers the components of those indexes were when this host
// last served the volume, to go behind what says that they are missing. It is empty when
// none of them is known.
func (v Volume) LastSeen(missing []int) string {
	const most = 8 // of a volume of which a shelf is missing, enough to find it by
	var were []string
	for _, i := range missing {
		if len(were) == most {
			were = append(were, "and so on")
			break
		}
		if i >= 0 && i < len(v.Providers) && v.Providers[i] != "" {
			were = append(were, fmt.Sprintf("component %d was %s", i, ondisk.Printable(v.Providers[i])))
		}
	}
	if were == nil {
		return ""
	}
	return "; when this host last served it, " + strings.Join(were, ", ")
}

// DefaultDir is root's folder of notes, which outlives a reboot.
const DefaultDir = "/var/db/ggated-virstor"

// DefaultFor is DefaultDir for root, and none, "", for others, who may not write there.
func DefaultFor(uid int) string {
	if uid == 0 {
		return DefaultDir
	}
	return ""
}

// ErrOlder: what was to be noted is of an earlier generation than what is known.
var ErrOlder = errors.New("a later generation is known")

// maxSize bounds a file, in bytes: ondisk.MaxComponents with long names stay below it.
const maxSize = 64 << 20

// maxGeneration is more than any volume comes to, and leaves room above.
const maxGeneration = 1 << 62

const suffix = ".served"

// Dir is a folder with one file for each volume. Its methods may be called by many
// goroutines and processes at once; who makes notes of a volume holds its lock.
type Dir struct{ Path string }

func (d Dir) file(id uint32) string { return filepath.Join(d.Path, fmt.Sprintf("%08x%s", id, suffix)) }

// Recall is what is known of the volume of that id. known is false when this host
// never served it.
func (d Dir) Recall(id uint32) (v Volume, known bool, err error) {
	f, err := ownfile.Open(d.file(id), os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return v, false, nil
	}
	if err != nil {
		return v, false, fmt.Errorf("recall volume %08x: %w", id, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err == nil && len(b) > maxSize {
		err = fmt.Errorf("more than %d bytes", maxSize)
	}
	if err == nil {
		err = json.Unmarshal(b, &v)
	}
	if err == nil && v.ID != id {
		err = fmt.Errorf("it is about volume %08x", v.ID)
	}
	if err != nil {
		return v, false, fmt.Errorf("recall volume %08x: %s: %w", id, d.file(id), err)
	}
	return v, true, nil
}

// Remember notes v: it is on stable storage, whole, when Remember returns. With a
// generation below what is known it is ErrOlder.
func (d Dir) Remember(v Volume) error { return d.note(v, false) }

// BeginAnew notes that the generations of a volume begin anew: it is handed back to
// the kernel class, or was restored. A set of any generation, and one that has none, is
// no older than that. Of a volume that is not known nothing is noted.
func (d Dir) BeginAnew(id uint32) error {
	v, known, err := d.Recall(id)
	if err != nil || !known {
		return err
	}
	v.Generation, v.Began = 0, time.Time{}
	return d.note(v, true)
}

func (d Dir) note(v Volume, force bool) error {
	if err := d.remember(v, force); err != nil {
		return fmt.Errorf("remember volume %s (%08x): %w", v.Name, v.ID, err)
	}
	return nil
}

func (d Dir) remember(v Volume, force bool) error {
	if err := v.check(); err != nil {
		return err
	}
	if err := ownfile.MakeDir(d.Path); err != nil {
		return err
	}
	// A file that cannot be read is no reason to know nothing from now on.
	if old, known, err := d.Recall(v.ID); err == nil && known && old.Generation > v.Generation && !force {
		return fmt.Errorf("generation %d: %w: %d", v.Generation, ErrOlder, old.Generation)
	}
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return d.replace(d.file(v.ID), append(b, '\n'))
}

// replace makes b the contents of path, whole or not at all.
func (d Dir) replace(path string, b []byte) error {
	fresh := fmt.Sprintf("%s.%d.new", path, os.Getpid())
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := ownfile.Create(fresh)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(fresh, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(fresh))
	}
	return ownfile.SyncDir(d.Path)
}

// check refuses what no volume is: a process with less privilege may have made it.
func (v *Volume) check() error {
	switch {
	case v.Name == "" || len(v.Name) > 255:
		return fmt.Errorf("%w: %.40q", ondisk.ErrName, v.Name)
	case v.Generation > maxGeneration:
		return fmt.Errorf("generation %d: none is that high", v.Generation)
	case len(v.Providers) == 0 || len(v.Providers) > ondisk.MaxComponents:
		return fmt.Errorf("%w: %d of them", ondisk.ErrProviders, len(v.Providers))
	case slices.ContainsFunc(v.Providers, func(p string) bool { return len(p) > 4096 || strings.ContainsRune(p, 0) }):
		return fmt.Errorf("%w: a name that none has", ondisk.ErrProviders)
	}
	return nil
}
