// Package history keeps what was done to volumes, by whom and when: a line for each deed,
// in a file that is put aside when it is full, so that there are two at most.
package history

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gvirstor/gvirstor/geomlib/ownfile"
)

const (
	maxFile    = 1 << 20 // bytes at which a file is put aside
	maxRequest = 4 << 10 // bytes of a request that is kept
	maxText    = 1 << 10 // bytes of an error that are kept
	fileName   = "history"
	aside      = ".0" // behind the name of the older file
)

// Deed is something that was asked for, and changed a volume or failed.
type Deed struct {
	Time time.Time `json:"time"`
	// UID is of who asked, absent where the system does not tell.
	UID *uint32 `json:"uid,omitempty"`
	PID int     `json:"pid,omitempty"` // likewise
	// Verb is what was asked for: "add", "label", …
	Verb    string          `json:"verb"`
	Volume  string          `json:"volume,omitempty"`  // NAME, or NAME/VOLUME of a further one
	Request json.RawMessage `json:"request,omitempty"` // absent where it is very long
	Error   string          `json:"error,omitempty"`   // why it was not done
}

// Dir is the folder where the history is kept. Its methods may be called by many
// processes at once.
type Dir struct{ Path string }

func (d Dir) file() string { return filepath.Join(d.Path, fileName) }

// Note adds a deed. The folder is made if need be.
func (d Dir) Note(deed Deed) error {
	if err := d.note(deed); err != nil {
		return fmt.Errorf("note what was done: %w", err)
	}
	return nil
}

func (d Dir) note(deed Deed) error {
	if len(deed.Request) > maxRequest {
		deed.Request = nil
	}
	deed.Error = deed.Error[:min(len(deed.Error), maxText)]
	line, err := json.Marshal(deed)
	if err != nil {
		return err
	}
	if err := ownfile.MakeDir(d.Path); err != nil {
		return err
	}
	for {
		f, err := ownfile.Open(d.file(), os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
		if err != nil {
			return err
		}
		again, err := appendTo(f, append(line, '\n'))
		if err = errors.Join(err, f.Close()); err != nil || !again {
			return err
		}
	}
}

// appendTo adds a line to f. again: f was full, or has been put aside by another, and
// there is a new file now.
func appendTo(f *os.File, line []byte) (again bool, err error) {
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return false, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	fi, err := f.Stat()
	if err != nil {
		return false, err
	}
	switch at, err := os.Lstat(f.Name()); {
	case errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(fi, at):
		return true, nil
	case err != nil:
		return false, err
	}
	if fi.Size() > 0 && fi.Size()+int64(len(line)) > maxFile {
		return true, os.Rename(f.Name(), f.Name()+aside)
	}
	last := []byte{'\n'}
	if fi.Size() > 0 {
		if _, err := f.ReadAt(last, fi.Size()-1); err != nil {
			return false, err
		}
	}
	if last[0] != '\n' { // that one was cut off
		line = append([]byte{'\n'}, line...)
	}
	_, err = f.Write(line)
	return false, err
}

// Read returns what is kept, the oldest first: of one volume, with those of its pool if it is
// the first of that, or with an empty name of all. A line that was cut off is left out.
func (d Dir) Read(volume string) (deeds []Deed, err error) {
	for _, path := range []string{d.file() + aside, d.file()} {
		f, err := ownfile.Open(path, os.O_RDONLY, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read what was done: %w", err)
		}
		b, err := io.ReadAll(io.LimitReader(f, 2*maxFile))
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, fmt.Errorf("read what was done: %w", err)
		}
		for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
			var deed Deed
			if json.Unmarshal(lines.Bytes(), &deed) == nil && (volume == "" || deed.Volume == volume || strings.HasPrefix(deed.Volume, volume+"/")) {
				deeds = append(deeds, deed)
			}
		}
	}
	return deeds, nil
}
