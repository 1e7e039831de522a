package ownfile_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gvirstor/gvirstor/geomlib/ownfile"
)

// somebody is a user that is neither root nor the one who runs the tests.
const somebody = 12345

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func write(t testing.TB, path string, mode fs.FileMode) {
	t.Helper()
	must(t, os.WriteFile(path, []byte("old"), 0o600), os.Chmod(path, mode))
}

func needsRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("gives files to another user: root is needed")
	}
}

// refused makes sure that err says what is wrong and what to do that does no harm, and came soon.
func refused(t testing.TB, begun time.Time, err error, texts ...string) {
	t.Helper()
	if !errors.Is(err, ownfile.ErrUnsafe) {
		t.Fatalf("error %v, want %v", err, ownfile.ErrUnsafe)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%q does not say %q", err, text)
		}
	}
	advises := func(word string) bool { return strings.Contains(err.Error(), word) }
	if !slices.ContainsFunc([]string{"mend it with `", "`mv -n ", "name ", "keep it "}, advises) {
		t.Errorf("%q does not say what to do", err)
	}
	if slices.ContainsFunc([]string{"`rm ", "remove", "delete", "chown -"}, advises) {
		t.Errorf("%q advises what may do harm", err)
	}
	if d := time.Since(begun); d > 20*time.Second {
		t.Errorf("said after %v", d)
	}
}

func TestAFileThatIsNotOursIsNeitherFollowedNorChanged(t *testing.T) {
	rows := []struct {
		name string
		root bool
		make func(t *testing.T, path, victim string)
		text string
	}{
		{"link", false, func(t *testing.T, path, victim string) { must(t, os.Symlink(victim, path)) }, "it is a link"},
		{"link to nothing", false, func(t *testing.T, path, victim string) { must(t, os.Symlink(victim+"-none", path)) }, "it is a link"},
		{"second name", false, func(t *testing.T, path, victim string) { must(t, os.Link(victim, path)) }, "2 names"},
		{"FIFO", false, func(t *testing.T, path, _ string) { must(t, unix.Mkfifo(path, 0o600)) }, "it is a FIFO"},
		{"writable by others", false, func(t *testing.T, path, _ string) { write(t, path, 0o602) }, "chmod go-w"},
		{"another user's", true, func(t *testing.T, path, _ string) {
			write(t, path, 0o600)
			must(t, os.Chown(path, somebody, somebody))
		}, "uid 12345"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			if row.root {
				needsRoot(t)
			}
			dir := t.TempDir()
			path, victim := filepath.Join(dir, "lock"), filepath.Join(dir, "victim")
			write(t, victim, 0o600)
			row.make(t, path, victim)
			begun := time.Now()
			_, err := ownfile.Open(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
			refused(t, begun, err, path, row.text)
			if b, err := os.ReadFile(victim); err != nil || string(b) != "old" {
				t.Errorf("the victim holds %q, %v", b, err)
			}
			if _, err := os.Stat(victim + "-none"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("what the link named was made: %v", err)
			}
			if _, err := ownfile.Create(path); !errors.Is(err, fs.ErrExist) {
				t.Errorf("Create: %v", err)
			}
		})
	}
}

func TestOurFileIsOpenedAndEmptiedOnlyOnRequest(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	f, err := ownfile.Open(path, os.O_RDWR|os.O_CREATE, 0o600)
	must(t, err)
	_, err = f.WriteString("one")
	must(t, err, f.Close())
	f, err = ownfile.Open(path, os.O_RDWR|os.O_CREATE, 0o600)
	must(t, err, f.Close())
	if b, _ := os.ReadFile(path); string(b) != "one" {
		t.Errorf("it holds %q", b)
	}
	f, err = ownfile.Open(path, os.O_RDWR|os.O_TRUNC, 0o600)
	must(t, err, f.Close())
	if b, _ := os.ReadFile(path); len(b) != 0 {
		t.Errorf("it holds %q", b)
	}
	if fi, _ := os.Stat(path); fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", fi.Mode())
	}
	if _, err := ownfile.Open(filepath.Join(path, "below"), os.O_RDONLY, 0); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("below a file: %v", err)
	}
}

func TestAFolderThatOthersReachIsRefused(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "good")
	must(t, ownfile.MakeDir(good), ownfile.CheckDir(good), ownfile.MakeDir(good))
	open := filepath.Join(dir, "open")
	must(t, os.Mkdir(open, 0o700), os.Chmod(open, 0o777))
	refused(t, time.Now(), ownfile.CheckDir(open), open, "chmod go-w")
	must(t, os.Chmod(open, 0o777|fs.ModeSticky))
	err := ownfile.MakeDir(open) // as /tmp is: whoever changes its mode breaks the system
	if refused(t, time.Now(), err, open, "the folder is for all"); strings.Contains(err.Error(), "chmod") {
		t.Errorf("%v", err)
	}
	file := filepath.Join(dir, "file")
	write(t, file, 0o600)
	if err := ownfile.CheckDir(file); !errors.Is(err, ownfile.ErrUnsafe) || !errors.Is(err, syscall.ENOTDIR) ||
		!strings.Contains(err.Error(), "name another folder") {
		t.Errorf("%v", err)
	}
	link := filepath.Join(dir, "link")
	must(t, os.Symlink(good, link))
	if os.Geteuid() != 0 {
		must(t, ownfile.CheckDir(link))
		return
	}
	refused(t, time.Now(), ownfile.CheckDir(link), "is a link", "name the folder it leads to")
	must(t, os.Chown(good, somebody, -1))
	refused(t, time.Now(), ownfile.CheckDir(good), "uid 12345", "name one of root's")
}

func TestWhatAnAdministratorWroteIsReadUnlessOthersCanChangeIt(t *testing.T) {
	rows := []struct {
		name   string
		mode   fs.FileMode
		secret ownfile.Secret
		text   string // empty: it is read
	}{
		{"configuration", 0o644, ownfile.Public, ""},
		{"configuration of all", 0o666, ownfile.Public, "chmod go-w"},
		{"key", 0o600, ownfile.Private, ""},
		{"key that all may read", 0o604, ownfile.Private, "chmod o-r"},
		{"key that all may write", 0o602, ownfile.Private, "chmod go-w"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "file")
			write(t, path, row.mode)
			link := path + "-link" // an administrator may keep it elsewhere
			must(t, os.Symlink(path, link))
			for _, name := range []string{path, link} {
				b, err := ownfile.ReadTrusted(name, row.secret, 100)
				switch {
				case row.text != "":
					refused(t, time.Now(), err, row.text)
				case err != nil || string(b) != "old":
					t.Errorf("%s: %q, %v", name, b, err)
				}
			}
		})
	}
	path := filepath.Join(t.TempDir(), "fifo")
	must(t, unix.Mkfifo(path, 0o600))
	begun := time.Now()
	_, err := ownfile.ReadTrusted(path, ownfile.Public, 100)
	refused(t, begun, err, "it is a FIFO")
	big := filepath.Join(t.TempDir(), "big")
	write(t, big, 0o600)
	if _, err := ownfile.ReadTrusted(big, ownfile.Public, 2); err == nil {
		t.Error("more than the limit is read")
	}
}

func TestRootReadsNothingThatAnotherCanPutInItsPlace(t *testing.T) {
	needsRoot(t)
	dir := filepath.Join(t.TempDir(), "theirs")
	must(t, os.Mkdir(dir, 0o755))
	path := filepath.Join(dir, "file")
	write(t, path, 0o600)
	_, err := ownfile.ReadTrusted(path, ownfile.Public, 100)
	must(t, err)
	must(t, os.Chown(path, somebody, -1))
	_, err = ownfile.ReadTrusted(path, ownfile.Public, 100)
	refused(t, time.Now(), err, "uid 12345", "chown root "+path)
	must(t, os.Chown(path, 0, -1), os.Chown(dir, somebody, -1))
	_, err = ownfile.ReadTrusted(path, ownfile.Public, 100)
	refused(t, time.Now(), err, "uid 12345", dir)
	must(t, os.Chown(dir, 0, -1), os.Chmod(dir, 0o777))
	_, err = ownfile.ReadTrusted(path, ownfile.Public, 100)
	refused(t, time.Now(), err, "chmod go-w "+dir)
	must(t, os.Chmod(dir, 0o755))
	link := filepath.Join(os.TempDir(), filepath.Base(t.TempDir())+"-link")
	must(t, os.Symlink(path, link), os.Lchown(link, somebody, -1))
	defer os.Remove(link)
	_, err = ownfile.ReadTrusted(link, ownfile.Public, 100)
	if errors.Is(err, fs.ErrPermission) && strings.Contains(err.Error(), link) {
		return // the system refuses it itself (fs.protected_symlinks)
	}
	refused(t, time.Now(), err, link)
}

func TestACommandThatOthersCanChangeIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hook")
	write(t, path, 0o777)
	for _, command := range []string{path, path + " now", "sh " + path, "env A=b '" + path + "'"} {
		refused(t, time.Now(), ownfile.CheckCommand(command), path)
	}
	must(t, os.Chmod(path, 0o666))
	refused(t, time.Now(), ownfile.CheckCommand("/bin/sh "+path), path)
	must(t, ownfile.CheckCommand("logger -f "+path)) // only read
	must(t, os.Chmod(path, 0o755))
	for _, command := range []string{path, "sh " + path, "logger -t gvirstor", "", "/nonexistent/hook"} {
		must(t, ownfile.CheckCommand(command))
	}
}

// TestWhatIsInTheWayIsMovedAsideByTheCommandThatIsGiven: whatever its name is, and
// nothing is lost.
func TestWhatIsInTheWayIsMovedAsideByTheCommandThatIsGiven(t *testing.T) {
	dir := t.TempDir()
	victim := filepath.Join(dir, "victim")
	write(t, victim, 0o600)
	for _, name := range []string{"lock", "it's a lock", "$(touch pwned)", "a;b", "-rf"} {
		path := filepath.Join(dir, name)
		must(t, os.Symlink(victim, path))
		_, err := ownfile.Open(path, os.O_RDWR|os.O_CREATE, 0o600)
		refused(t, time.Now(), err, "it is a link")
		_, rest, _ := strings.Cut(err.Error(), "out of the way with `")
		command, _, _ := strings.Cut(rest, "`")
		sh := exec.Command("sh", "-c", command)
		sh.Dir = dir
		if out, err := sh.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", command, err, out)
		}
		if to, err := os.Readlink(path + ".aside"); err != nil || to != victim {
			t.Errorf("after %s: %q, %v", command, to, err)
		}
		f, err := ownfile.Open(path, os.O_RDWR|os.O_CREATE, 0o600)
		must(t, err, f.Close())
	}
	if _, err := os.Stat(filepath.Join(dir, "pwned")); err == nil {
		t.Error("the advice ran what a name said")
	}
}

func TestNobodyIsToldToRemoveADevice(t *testing.T) {
	_, file := ownfile.Open(os.DevNull, os.O_RDWR, 0)
	for _, err := range []error{file, ownfile.CheckDir(os.DevNull), ownfile.CheckSocket(os.DevNull)} {
		if !errors.Is(err, ownfile.ErrUnsafe) || strings.Contains(err.Error(), "rm ") || strings.Contains(err.Error(), "remove") {
			t.Errorf("%v", err)
		}
	}
}
