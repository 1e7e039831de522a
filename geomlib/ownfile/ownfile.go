package ownfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrUnsafe is wrapped when somebody else could have put, or could change, what
// is at a path.
var ErrUnsafe = errors.New("refused")

// Open opens the file at path as os.OpenFile does, which must be this program's:
// a regular file of this user's, or of root's, that has no other name and that
// nobody else can write to. A link at path is not followed. With os.O_TRUNC the
// file is emptied once it is known to be one of those.
func Open(path string, flag int, mode fs.FileMode) (*os.File, error) {
	fd, err := open(path, flag&^os.O_TRUNC|unix.O_NOFOLLOW, mode)
	// FreeBSD says EMLINK of a link where others say ELOOP.
	if err == unix.ELOOP || err == unix.EMLINK {
		return nil, aside(path, "it is a link")
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	if err := checkOwn(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if flag&os.O_TRUNC != 0 {
		if err := f.Truncate(0); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return f, nil
}

// Create makes a file at path, mode 0600, for writing. Whatever is there already
// is an error (fs.ErrExist), a link included.
func Create(path string) (*os.File, error) {
	return Open(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
}

// OpenRegular opens for reading what somebody named: a regular file, whoever's it
// is. It waits for nobody.
func OpenRegular(path string) (*os.File, error) {
	fd, err := open(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("%s: it is %s, not a file: %w", path, kind(fi.Mode()), syscall.EINVAL)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// open never waits: O_NONBLOCK means nothing to regular files, and a FIFO is
// opened without its other end.
func open(path string, flag int, mode fs.FileMode) (fd int, err error) {
	for {
		fd, err = unix.Open(path, flag|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, uint32(mode.Perm()))
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// checkOwn refuses what is not this program's file.
func checkOwn(f *os.File) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	switch path := f.Name(); {
	case !fi.Mode().IsRegular():
		return notAFile(path, fi.Mode())
	case !ok:
		return nil
	case !ours(st.Uid):
		return aside(path, fmt.Sprintf("it belongs to another user (uid %d)", st.Uid))
	case st.Nlink > 1:
		return aside(path, fmt.Sprintf("the file has %d names", st.Nlink))
	case writableByOthers(fi.Mode(), st.Gid):
		return refuse(path, "others can write to it", "chmod go-w "+ShellWord(path))
	}
	return nil
}

// CheckDir refuses a folder in which others could put what they like in the place
// of this program's files: another user's, one that others can write to, and, for
// root, a link.
func CheckDir(dir string) error {
	fi, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if fi.Mode()&fs.ModeSymlink != 0 {
		if os.Geteuid() == 0 {
			return fmt.Errorf("%s: %w: the folder is a link; name the folder it leads to (`readlink -f %s` tells)", dir, ErrUnsafe, ShellWord(dir))
		}
		if fi, err = os.Stat(dir); err != nil {
			return err
		}
	}
	if !fi.IsDir() {
		return fmt.Errorf("%s: %w: it is %s, not a folder; name another folder: %w", dir, ErrUnsafe, kind(fi.Mode()), syscall.ENOTDIR)
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	switch {
	case !ok:
		return nil
	case !ours(st.Uid):
		return fmt.Errorf("%s: %w: the folder belongs to another user (uid %d), who may need it; name one of %s's", dir, ErrUnsafe, st.Uid, owner())
	case writableByOthers(fi.Mode(), st.Gid) && fi.Mode()&fs.ModeSticky != 0:
		return fmt.Errorf("%s: %w: the folder is for all; name one that nobody else can write to, such as one below it of mode 700", dir, ErrUnsafe)
	case writableByOthers(fi.Mode(), st.Gid):
		return fmt.Errorf("%s: %w: others can write to the folder; name another one, or, if nobody else needs it, mend it with `chmod go-w %s`",
			dir, ErrUnsafe, ShellWord(dir))
	}
	return nil
}

// MakeDir makes the folder, mode 0700, and those above it if need be, and is
// CheckDir otherwise.
func MakeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return CheckDir(dir)
}

// ours reports whether files of that user are as good as this one's: root could
// do anything anyway.
func ours(uid uint32) bool { return uid == 0 || int(uid) == os.Geteuid() }

func owner() string {
	if os.Geteuid() == 0 {
		return "root"
	}
	return fmt.Sprint(os.Geteuid())
}

// writableByOthers tells from a mode and a group. The group of a user's own, which
// where the umask is 002 has him alone in it, is not others; to root each is.
func writableByOthers(mode fs.FileMode, gid uint32) bool {
	if mode.Perm()&0o002 != 0 {
		return true
	}
	own := os.Geteuid() != 0 && int(gid) == os.Getegid()
	return mode.Perm()&0o020 != 0 && !own
}

func kind(m fs.FileMode) string {
	switch {
	case m.IsDir():
		return "a folder"
	case m&fs.ModeNamedPipe != 0:
		return "a FIFO"
	case m&fs.ModeSocket != 0:
		return "a socket"
	case m&fs.ModeDevice != 0:
		return "a device"
	case m&fs.ModeSymlink != 0:
		return "a link"
	}
	return "a regular file"
}

// notAFile refuses what is no regular file. A device is nobody's to remove: /dev/null, say,
// which some name where they want no file at all.
func notAFile(path string, m fs.FileMode) error {
	if m&fs.ModeDevice != 0 || m.IsDir() {
		return fmt.Errorf("%s: %w: it is %s, not a file; name a file in its place", path, ErrUnsafe, kind(m))
	}
	return aside(path, "it is "+kind(m)+", not a file")
}

func refuse(path, why, mend string) error {
	return fmt.Errorf("%s: %w: %s; mend it with `%s`", path, ErrUnsafe, why, mend)
}

// aside refuses what somebody else put at path, or may have. It may be anything, also what its
// owner needs: the advice is to look, and to move it, which loses nothing.
func aside(path, why string) error {
	w := ShellWord(path)
	return fmt.Errorf("%s: %w: %s; look at it with `ls -l %s`, and move it out of the way with `mv -n %s %s`, or name another path",
		path, ErrUnsafe, why, w, w, ShellWord(path+".aside"))
}

// ShellWord is path, or another text, as sh(1) takes it for one word.
func ShellWord(path string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+:@%,=", r)
	}
	if path != "" && strings.IndexFunc(path, func(r rune) bool { return !plain(r) }) < 0 {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}

// above are the folders on the way to path, itself not among them.
func above(path string) []string {
	var all []string
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		all = append(all, dir)
		if dir == filepath.Dir(dir) {
			return all
		}
	}
}

// words are the blank-separated words of a command, without quotes around them.
func words(command string) []string {
	ws := strings.Fields(command)
	for i, w := range ws {
		ws[i] = strings.Trim(w, `"'`)
	}
	return ws
}

// CheckSocket refuses what is at path unless it is a socket of this user's or of
// root's. fs.ErrNotExist: there is nothing.
func CheckSocket(path string) error {
	fi, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if fi.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s: %w: it exists and is no socket; name another path", path, ErrUnsafe)
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok && !ours(st.Uid) {
		return aside(path, fmt.Sprintf("the socket belongs to another user (uid %d)", st.Uid))
	}
	return nil
}

// SyncDir puts what was made, renamed or removed in dir on stable storage, where
// its file system does such a thing.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("flush folder: %w", err)
	}
	if err = d.Sync(); errors.Is(err, syscall.EINVAL) {
		err = nil
	}
	if err = errors.Join(err, d.Close()); err != nil {
		return fmt.Errorf("flush folder: %w", err)
	}
	return nil
}
