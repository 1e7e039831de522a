package daemon

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
)

// ErrStopping: the daemon ends, and waits for nothing that hangs any more.
var ErrStopping = errors.New("the daemon ends")

// openSilence is how long an open may take without a word: longer than a lock is waited for
// that another process has (geomlib.Registry.OpenOwn), which is told when that was in vain.
const openSilence = 1500 * time.Millisecond

// patient is an Opener over another one, whose opens may hang: in a file system whose
// server is gone, in a disk that does not answer. It tells of that, and gives them up
// when the daemon ends. What comes of one that was given up is closed.
type patient struct {
	opener Opener
	log    *slog.Logger
	once   sync.Once
	stop   chan struct{}
}

func newPatient(o Opener, log *slog.Logger) *patient {
	return &patient{opener: o, log: log, stop: make(chan struct{})}
}

// giveUp ends the waits, also those to come. It may be called by any goroutine.
func (p *patient) giveUp() { p.once.Do(func() { close(p.stop) }) }

func (p *patient) Open(name string, readOnly bool, sectorSize int) (geomlib.Provider, error) {
	return await(p, name, func() (geomlib.Provider, error) { return p.opener.Open(name, readOnly, sectorSize) })
}

func (p *patient) Peek(name string, sectorSize int) (geomlib.Provider, error) {
	return await(p, name, func() (geomlib.Provider, error) { return p.opener.Peek(name, sectorSize) })
}

func (p *patient) LockVolume(id uint32) (io.Closer, error) {
	return await(p, fmt.Sprintf("volume %08x", id), func() (io.Closer, error) { return p.opener.LockVolume(id) })
}

// await returns what open does, or ErrStopping when the daemon ends before. The
// goroutine that then is left ends with open.
func await[T io.Closer](p *patient, what string, open func() (T, error)) (T, error) {
	type outcome struct {
		t   T
		err error
	}
	var none T
	done := make(chan outcome)
	go func() {
		t, err := open()
		select {
		case done <- outcome{t, err}:
		case <-p.stop:
			if err == nil {
				err = t.Close()
			}
			p.log.Debug("opened in vain", "what", what, "error", err)
		}
	}()
	silence := time.NewTimer(openSilence)
	defer silence.Stop()
	for {
		select {
		case o := <-done:
			return o.t, o.err
		case <-silence.C:
			p.log.Warn("opening takes long: what it lies on does not answer, or another process has it", "what", what)
		case <-p.stop:
			return none, fmt.Errorf("open %s: given up: %w", what, ErrStopping)
		}
	}
}
