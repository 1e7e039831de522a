package blackbox

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// fileWriter writes files in a folder as a program does that must not lose any: each under
// another name, synced, and put in the place of the one before.
type fileWriter struct {
	folder  string
	rng     *rand.Rand
	content *rand.ChaCha8
	sums    [][sha256.Size]byte // of the files that are there, by their number
	written atomic.Int64        // files, in all
}

// differentFiles is how many files a fileWriter has at most.
const differentFiles = 400

func newFileWriter(folder string, seed byte) *fileWriter {
	content := rand.NewChaCha8([32]byte{seed, 1})
	return &fileWriter{folder: folder, rng: rand.New(content), content: content}
}

// run writes until stop is closed, and reads a file for each that it writes.
func (w *fileWriter) run(stop <-chan struct{}) error {
	for n := 0; ; n++ {
		select {
		case <-stop:
			return nil
		default:
		}
		if err := w.write(n % differentFiles); err != nil {
			return err
		}
		if err := w.verify(w.folder, w.rng.IntN(len(w.sums))); err != nil {
			return err
		}
		w.written.Add(1)
	}
}

// write puts another file in the place of file n, or makes it.
func (w *fileWriter) write(n int) error {
	b := make([]byte, 1+w.rng.IntN(128<<10))
	_, _ = w.content.Read(b) // never fails
	path := filepath.Join(w.folder, strconv.Itoa(n))
	f, err := os.Create(path + ".new")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	if n == len(w.sums) {
		w.sums = append(w.sums, sha256.Sum256(b))
	} else {
		w.sums[n] = sha256.Sum256(b)
	}
	folder, err := os.Open(w.folder)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// verify compares file n in a folder with what was written, and takes it from the disk.
func (w *fileWriter) verify(folder string, n int) error {
	f, err := os.Open(filepath.Join(folder, strconv.Itoa(n)))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return fmt.Errorf("have the cache forget %s: %w", f.Name(), err)
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	if sha256.Sum256(b) != w.sums[n] {
		return fmt.Errorf("%s, of %d bytes, is not what was written", f.Name(), len(b))
	}
	return nil
}

// verifyAll compares all that is in a folder.
func (w *fileWriter) verifyAll(t *testing.T, folder string) {
	t.Helper()
	there, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	if len(there) != len(w.sums) {
		t.Errorf("%s has %d files, want %d", folder, len(there), len(w.sums))
	}
	for n := range w.sums {
		if err := w.verify(folder, n); err != nil {
			t.Error(err)
		}
	}
}

// healthy makes sure that a mounted ext4 can be written to and has met no error.
func healthy(t *testing.T, folder, device string) {
	t.Helper()
	var fs unix.Statfs_t
	if err := unix.Statfs(folder, &fs); err != nil {
		t.Fatal(err)
	}
	if fs.Flags&unix.ST_RDONLY != 0 {
		t.Error("the file system can no longer be written to")
	}
	n, err := os.ReadFile(filepath.Join("/sys/fs/ext4", filepath.Base(device), "errors_count"))
	if err != nil {
		t.Fatal(err)
	}
	if s := strings.TrimSpace(string(n)); s != "0" {
		t.Errorf("the file system has met %s errors", s)
	}
}

// TestAFileSystemStaysMountedWhileTheFirstReleaseIsUpgraded: a client that connects again
// keeps the upgrade from the ext4 above it, and from the programs that write there.
func TestAFileSystemStaysMountedWhileTheFirstReleaseIsUpgraded(t *testing.T) {
	need(t, "nbdkit", "nbdfuse", "fusermount3", "mkfs.ext4", "losetup", "mount", "umount", "e2fsck")
	needRoot(t)
	needFUSE(t)
	const size = 256 * mib
	s := newSite(t, 160*mib, 160*mib) // has room for all of the file system
	bin := buildFirstRelease(t)
	s.label("-s", "256m", "-m", "1m")
	upgrade := s.startFirstToUpgrade(bin)
	uri, endClient := s.nbdkitBetween(t)
	disk, leave := s.asFileNamed("disk", uri, size)
	device, unloop := loop(t, disk, "--direct-io=on")
	last(t, &unloop)
	command(t, "mkfs.ext4", "-q", "-F", device)
	folder, unmount := s.mounted("mnt", device, "errors=remount-ro")
	last(t, &unmount)

	stop, ended := make(chan struct{}), make(chan struct{})
	halt := sync.OnceFunc(func() {
		close(stop)
		<-ended
	})
	failed := make(chan error, 2)
	var writers [2]*fileWriter
	var wg sync.WaitGroup
	for i := range writers {
		within := filepath.Join(folder, strconv.Itoa(i))
		if err := os.Mkdir(within, 0o700); err != nil {
			t.Fatal(err)
		}
		w := newFileWriter(within, byte(i))
		writers[i] = w
		wg.Go(func() {
			if err := w.run(stop); err != nil {
				failed <- err
			}
		})
	}
	go func() {
		wg.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		if t.Failed() {
			endClient() // so that what waits for the volume fails, and can be taken down
		}
		halt()
	})
	noneFailed := func() {
		t.Helper()
		select {
		case err := <-failed:
			t.Fatalf("a program on the file system: %v\n%s", err, s.log)
		default:
		}
	}
	more := func() {
		t.Helper()
		for _, w := range writers {
			before := w.written.Load()
			s.until("files are written", func() bool {
				noneFailed()
				return w.written.Load() > before+100
			})
		}
	}
	more()
	upgrade()
	more()
	for range 2 {
		s.upgradeAgain(s.worker())
		more()
	}
	halt()
	noneFailed()
	healthy(t, folder, device)
	for _, w := range writers {
		w.verifyAll(t, w.folder)
		t.Logf("%d files were written", w.written.Load())
	}
	unmount()
	unmount = nil
	command(t, "e2fsck", "-f", "-n", device)
	unloop()
	unloop = nil
	leave()
	endClient()

	// And from the components, by way of no cache.
	s.term()
	s.start()
	disk, leave = s.asFileNamed("again", s.uri(), size)
	device, unloop = loop(t, disk, "-r")
	folder, unmount = s.mounted("there", device, "ro")
	for i, w := range writers {
		w.verifyAll(t, filepath.Join(folder, strconv.Itoa(i)))
	}
	unmount()
	unmount = nil
	unloop()
	unloop = nil
	leave()
	s.gvirstor("stop", "-f", "vol")
	s.gvirstor(append([]string{"check"}, s.files...)...)
}
