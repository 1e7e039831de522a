package ownfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Secret says whether others may know what is in a file.
type Secret bool

// Public files others may read; of Private ones nobody but the owner may, and
// the group of one that is root's.
const (
	Public  Secret = false
	Private Secret = true
)

// OpenTrusted opens the file at path for reading, which an administrator wrote:
// what this process does depends on it. It must be a regular file of root's or of
// this user's that nobody else can write to, and a Private one that nobody else
// can read. For root, nobody else may be able to put another in its place either.
func OpenTrusted(path string, secret Secret) (*os.File, error) {
	fd, err := open(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	if err := checkTrusted(f, secret); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// ReadTrusted is what is in the file that OpenTrusted opens, of at most limit
// bytes.
func ReadTrusted(path string, secret Secret, limit int64) ([]byte, error) {
	f, err := OpenTrusted(path, secret)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s: more than %d bytes", path, limit)
	}
	return b, nil
}

func checkTrusted(f *os.File, secret Secret) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	path := f.Name()
	if !fi.Mode().IsRegular() {
		return notAFile(path, fi.Mode())
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	switch {
	case !ok:
		return nil
	case !ours(st.Uid):
		return refuse(path, fmt.Sprintf("it belongs to another user (uid %d), who can change it", st.Uid), "chown "+owner()+" "+ShellWord(path)+"`, once you have read it: `less "+ShellWord(path))
	case writableByOthers(fi.Mode(), st.Gid):
		return refuse(path, "others can write to it", "chmod go-w "+ShellWord(path))
	case bool(secret) && fi.Mode().Perm()&0o004 != 0:
		return refuse(path, "others can read it", "chmod o-r "+ShellWord(path))
	case bool(secret) && fi.Mode().Perm()&0o040 != 0 && st.Uid != 0:
		return refuse(path, "its group can read it", "chmod go-r "+ShellWord(path))
	}
	if os.Geteuid() == 0 {
		return checkWay(path)
	}
	return nil
}

// checkWay refuses a path where somebody else than root could put another file in
// the place of this one: rename a folder on the way, or change where a link leads.
// In a folder with the sticky bit, such as /tmp, only the owner of a thing can.
func checkWay(path string) error {
	named, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	real, err := filepath.EvalSymlinks(named)
	if err != nil {
		return err
	}
	if err := checkStep(path, named); err != nil {
		return err
	}
	for _, dir := range append(above(named), above(real)...) {
		if err := checkStep(path, dir); err != nil {
			return err
		}
	}
	return nil
}

// checkStep looks at one folder or link on the way to path, or at its end.
func checkStep(path, at string) error {
	fi, err := os.Lstat(at)
	if err != nil {
		return err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	switch {
	case !ok:
	case st.Uid != 0 && st.Uid != topOwner():
		return fmt.Errorf("%s: %w: on its way %s belongs to another user (uid %d), who can put another file in its place; keep it in a folder of root's",
			path, ErrUnsafe, at, st.Uid)
	case fi.IsDir() && fi.Mode().Perm()&0o022 != 0 && fi.Mode()&fs.ModeSticky == 0:
		return fmt.Errorf("%s: %w: others can write to %s on its way, and put another file in its place; keep it elsewhere, or, if nobody else needs that folder, mend it with `chmod go-w %s`",
			path, ErrUnsafe, at, ShellWord(at))
	}
	return nil
}

// topOwner is whose "/" is, who can do anything: in a user namespace that is not
// user 0.
func topOwner() uint32 {
	fi, err := os.Lstat("/")
	if err != nil {
		return 0
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return st.Uid
	}
	return 0
}

// CheckCommand refuses a command for sh(1) that runs a file which somebody else
// can change: of its words, the first and those that are executable are looked at
// where they are absolute paths of files.
func CheckCommand(command string) error {
	for i, w := range words(command) {
		if !filepath.IsAbs(w) {
			continue
		}
		fi, err := os.Stat(w)
		if err != nil || !fi.Mode().IsRegular() || i > 0 && fi.Mode().Perm()&0o111 == 0 && !interpreted(command, i) {
			continue // there is nothing to run; sh(1) tells
		}
		f, err := OpenTrusted(w, Public)
		if errors.Is(err, fs.ErrPermission) {
			continue // who may not read a program may run it
		}
		if err != nil {
			return err
		}
		f.Close()
	}
	return nil
}

// interpreted reports whether the i-th word is what the first one interprets.
func interpreted(command string, i int) bool {
	switch first := filepath.Base(words(command)[0]); first {
	case "sh", "bash", "csh", "tcsh", "ksh", "zsh", "dash", "perl", "python", "python3", "ruby", "lua", "awk":
		return i == 1
	}
	return false
}
