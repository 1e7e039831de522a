package supervisor

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/gvirstor/gvirstor/geomlib/virstor/backup"
	"github.com/gvirstor/gvirstor/ggated-virstor/supervisor/internal/fdrpc"
)

// scratch is the file without a name that a worker writes a backup into. Only one
// backup is made at a time.
type scratch struct {
	mu sync.Mutex
	f  *os.File
}

// replace makes f the scratch file, nil for none.
func (s *scratch) replace(f *os.File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.f != nil {
		s.f.Close()
	}
	s.f = f
}

// take is the scratch file, which is the caller's from now on, or nil.
func (s *scratch) take() *os.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.f
	s.f = nil
	return f
}

var errNoArchive = errors.New("keep a backup: no directory for backups was given")

// makeScratch makes the file that w writes a backup into.
func (s *Supervisor) makeScratch(w *worker) (fdrpc.Reply, error) {
	if s.opt.Archive == nil {
		return fdrpc.Reply{}, errNoArchive
	}
	f, err := s.opt.Archive.Scratch()
	if err != nil {
		return fdrpc.Reply{}, err
	}
	w.scratch.replace(f)
	return fdrpc.Reply{Files: []*os.File{f}}, nil
}

// keepBackup keeps what w wrote, which is believed only as far as it is a backup.
func (s *Supervisor) keepBackup(w *worker) (fdrpc.Reply, error) {
	if s.opt.Archive == nil {
		return fdrpc.Reply{}, errNoArchive
	}
	f := w.scratch.take()
	if f == nil {
		return fdrpc.Reply{}, errors.New("keep a backup: none was written")
	}
	defer f.Close()
	b, err := readBackup(f)
	if err == nil {
		err = s.mayServe(b.ID()) // each volume's oldest make room for its newest
	}
	if err != nil {
		return fdrpc.Reply{}, fmt.Errorf("keep a backup: %w", err)
	}
	path, err := s.opt.Archive.Keep(b)
	return fdrpc.Reply{Body: keptAnswer{path}}, err
}

// backupLimit bounds what a worker can have the supervisor read, in bytes.
const backupLimit = 1 << 30

func readBackup(f *os.File) (*backup.Backup, error) {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	if size > backupLimit {
		return nil, fmt.Errorf("it has %d bytes: at most %d", size, backupLimit)
	}
	return backup.Read(io.NewSectionReader(f, 0, size))
}

// Archive is a daemon.Archive that has the supervisor keep backups.
type Archive struct {
	Client *Client
	mu     sync.Mutex // one backup at a time
}

// Keep implements daemon.Archive.
func (a *Archive) Keep(b *backup.Backup) (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f, err := a.Client.one(methodScratch, struct{}{}, nil)
	if err != nil {
		return "", err
	}
	if err := errors.Join(b.Write(f), f.Close()); err != nil {
		return "", fmt.Errorf("keep a backup of %s: %w", b.Name(), err)
	}
	var kept keptAnswer
	_, err = a.Client.peer.Call(a.Client.peer.Context(), methodKeep, struct{}{}, &kept)
	return kept.Path, err
}
