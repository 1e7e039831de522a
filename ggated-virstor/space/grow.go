package space

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/ownfile"
)

// Plan is where and in which steps a volume grows.
type Plan struct {
	Dir  string
	Size int64 // bytes of each file
}

// ParsePlan reads NAME=DIR:SIZE, where expand reads a size.
func ParsePlan(s string, expand func(string) (int64, error)) (volume string, p Plan, err error) {
	volume, rest, ok := strings.Cut(s, "=")
	i := strings.LastIndexByte(rest, ':')
	if !ok || volume == "" || i <= 0 {
		return "", p, fmt.Errorf("%s: NAME=DIR:SIZE is needed", s)
	}
	if strings.ContainsRune(volume, '/') {
		return "", p, fmt.Errorf("%s: a volume whose name has a slash cannot grow", s)
	}
	p.Dir = rest[:i]
	if !filepath.IsAbs(p.Dir) {
		return "", p, fmt.Errorf("%s: the folder's path must be absolute", s)
	}
	p.Size, err = expand(rest[i+1:])
	if err != nil || p.Size < 1<<20 {
		return "", p, fmt.Errorf("%s: a size of at least 1m is needed", s)
	}
	p.Size &^= 1<<20 - 1
	return volume, p, nil
}

// ErrLimit: the files there would be larger than the limit allows.
var ErrLimit = errors.New("the limit of --grow-max is reached")

// FileGrower makes files. Its methods may be called by many goroutines.
type FileGrower struct {
	Plans map[string]Plan // by volume
	Max   int64           // bytes of all files of one volume together
	// Attach makes a disk of a file, if the file is not one already, and
	// returns its name. Detach undoes that. Nil: files are used as they are.
	Attach func(ctx context.Context, path string) (string, error)
	Detach func(ctx context.Context, provider string) error

	mu sync.Mutex
}

const suffix = ".grown"

// fileName is the name of the n-th file of a volume.
func fileName(volume string, n int) string { return fmt.Sprintf("%s.%d%s", volume, n, suffix) }

// numberOf is the inverse of fileName.
func numberOf(volume, name string) (int, bool) {
	middle, begins := strings.CutPrefix(name, volume+".")
	middle, ends := strings.CutSuffix(middle, suffix)
	if !begins || !ends {
		return 0, false
	}
	n, err := strconv.Atoi(middle)
	return n, err == nil && n > 0 && fileName(volume, n) == name
}

// files are the numbers of the files that were made for a volume, ascending,
// and their size in all.
func (p Plan) files(volume string) (numbers []int, bytes int64, err error) {
	if err := ownfile.CheckDir(p.Dir); err != nil {
		return nil, 0, fmt.Errorf("look for what %s has grown by: %w", volume, err)
	}
	entries, err := os.ReadDir(p.Dir)
	if err != nil {
		return nil, 0, fmt.Errorf("look for what %s has grown by: %w", volume, err)
	}
	for _, e := range entries {
		n, ok := numberOf(volume, e.Name())
		if !ok {
			continue
		}
		st, err := e.Info()
		if err != nil {
			return nil, 0, fmt.Errorf("look at what %s has grown by: %w", volume, err)
		}
		numbers = append(numbers, n)
		bytes += st.Size()
	}
	slices.Sort(numbers)
	return numbers, bytes, nil
}

// Grown are the providers that volumes have grown by before. A file that never
// became a component, or is none any more, is left alone.
func (g *FileGrower) Grown(ctx context.Context) ([]string, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	var all []string
	var errs error
	for volume, p := range g.Plans {
		numbers, _, err := p.files(volume)
		errs = errors.Join(errs, err)
		for _, n := range numbers {
			path := filepath.Join(p.Dir, fileName(volume, n))
			is, err := isComponent(path)
			if err != nil {
				errs = errors.Join(errs, fmt.Errorf("open what %s has grown by: %w", volume, err))
			}
			if !is {
				continue
			}
			name, err := g.attach(ctx, path)
			if err != nil {
				errs = errors.Join(errs, err)
				continue
			}
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return all, errs
}

// isComponent reports whether the file holds metadata. It fails with
// ownfile.ErrUnsafe when it is none that was made here: then it may hold anything.
func isComponent(path string) (bool, error) {
	f, err := ownfile.Open(path, os.O_RDONLY, 0)
	if errors.Is(err, ownfile.ErrUnsafe) {
		return false, err
	}
	if err != nil {
		return false, nil
	}
	p, err := geomlib.Files{}.Adopt(f, path, nil, geomlib.OpenOptions{ReadOnly: true, NoLock: true})
	if err != nil {
		f.Close()
		return false, nil
	}
	defer p.Close()
	_, err = geomlib.ReadMetadata(p)
	return err == nil, nil
}

func (g *FileGrower) attach(ctx context.Context, path string) (string, error) {
	if g.Attach == nil {
		return path, nil
	}
	return g.Attach(ctx, path)
}

// Has reports whether a volume may grow at all.
func (g *FileGrower) Has(volume string) bool {
	_, ok := g.Plans[volume]
	return ok
}

// Grow makes the next file of a volume and returns the provider. It fails with
// ErrLimit, and when the file system has less free than the file may come to
// hold.
func (g *FileGrower) Grow(ctx context.Context, volume string) (string, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	p, ok := g.Plans[volume]
	if !ok {
		return "", fmt.Errorf("grow %s: no folder is given for it", volume)
	}
	numbers, total, err := p.files(volume)
	if err != nil {
		return "", err
	}
	if total+p.Size > g.Max {
		return "", fmt.Errorf("grow %s by %d bytes: its files in %s have %d of %d: %w", volume, p.Size, p.Dir, total, g.Max, ErrLimit)
	}
	free, err := freeIn(p.Dir)
	if err != nil {
		return "", fmt.Errorf("grow %s: %w", volume, err)
	}
	if free < p.Size {
		return "", fmt.Errorf("grow %s by %d bytes: the file system of %s has %d free: %w", volume, p.Size, p.Dir, free, syscall.ENOSPC)
	}
	next := 1
	if len(numbers) > 0 {
		next = numbers[len(numbers)-1] + 1
	}
	path := filepath.Join(p.Dir, fileName(volume, next))
	if err := create(path, p.Size); err != nil {
		return "", fmt.Errorf("grow %s: %w", volume, err)
	}
	name, err := g.attach(ctx, path)
	if err != nil {
		return "", errors.Join(fmt.Errorf("grow %s: %w", volume, err), os.Remove(path))
	}
	return name, nil
}

// Undo removes what Grow has just made of provider and what did not become a
// component. It refuses what it did not make.
func (g *FileGrower) Undo(ctx context.Context, volume, provider string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	p, ok := g.Plans[volume]
	if !ok {
		return fmt.Errorf("remove %s: no folder is given for %s", provider, volume)
	}
	numbers, _, err := p.files(volume)
	if err != nil || len(numbers) == 0 {
		return errors.Join(err, fmt.Errorf("remove %s: it was not made for %s", provider, volume))
	}
	path := filepath.Join(p.Dir, fileName(volume, numbers[len(numbers)-1]))
	is, err := isComponent(path)
	if err != nil {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	if is {
		return fmt.Errorf("remove %s: it is a component", path)
	}
	name, err := g.attach(ctx, path)
	if err != nil {
		return err
	}
	if name != provider {
		return fmt.Errorf("remove %s: the last file made for %s is %s", provider, volume, path)
	}
	if g.Detach != nil {
		if err := g.Detach(ctx, name); err != nil {
			return err
		}
	}
	return os.Remove(path)
}

// create makes a sparse file that is there after a loss of power.
func create(path string, size int64) error {
	f, err := ownfile.Create(path)
	if err != nil {
		return err
	}
	err = errors.Join(f.Truncate(size), f.Sync(), f.Close())
	if err == nil {
		err = ownfile.SyncDir(filepath.Dir(path))
	}
	if err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// freeIn is what users may still write to the file system of dir, in bytes.
func freeIn(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return max(0, int64(st.Bavail)) * int64(st.Bsize), nil
}

const mdconfigTime = 30 * time.Second

// Mdconfig attaches files as vnode-backed md(4) disks, which geom_gate can be
// published from safely. A file that is attached already is not attached twice.
func Mdconfig(ctx context.Context, path string) (string, error) {
	out, err := mdconfig(ctx, "-l", "-f", path)
	if name, _, _ := strings.Cut(strings.TrimSpace(out), " "); err == nil && strings.HasPrefix(name, "md") {
		return name, nil
	}
	out, err = mdconfig(ctx, "-a", "-t", "vnode", "-f", path)
	if err != nil {
		return "", err
	}
	name := strings.TrimSpace(out)
	if !strings.HasPrefix(name, "md") {
		return "", fmt.Errorf("mdconfig -a of %s answers %.80q", path, out)
	}
	return name, nil
}

// MdconfigDetach undoes Mdconfig.
func MdconfigDetach(ctx context.Context, provider string) error {
	_, err := mdconfig(ctx, "-d", "-u", provider)
	return err
}

func mdconfig(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, mdconfigTime)
	defer cancel()
	var out, errs bytes.Buffer
	c := exec.CommandContext(ctx, "mdconfig", args...)
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Run(); err != nil {
		return "", fmt.Errorf("mdconfig %s: %w: %.200s", strings.Join(args, " "), err, bytes.TrimSpace(errs.Bytes()))
	}
	return out.String(), nil
}
