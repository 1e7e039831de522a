package daemon

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
)

// stuckOpener opens nothing before release is closed, and counts what is closed then.
type stuckOpener struct {
	Opener
	release, closed chan struct{}
}

func (o stuckOpener) LockVolume(uint32) (io.Closer, error) {
	<-o.release
	return closer(func() { close(o.closed) }), nil
}

func (o stuckOpener) Peek(string, int) (geomlib.Provider, error) {
	<-o.release
	return nil, errors.New("no such disk")
}

type closer func()

func (c closer) Close() error { c(); return nil }

func TestAnOpenThatHangsIsSaidAndGivenUpAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said bytes.Buffer
		o := stuckOpener{release: make(chan struct{}), closed: make(chan struct{})}
		p := newPatient(o, slog.New(slog.NewTextHandler(&said, nil)))
		begun := time.Now()
		time.AfterFunc(time.Minute, p.giveUp)
		if _, err := p.LockVolume(7); !errors.Is(err, ErrStopping) || !strings.Contains(err.Error(), "volume 00000007") {
			t.Errorf("%v", err)
		}
		if d := time.Since(begun); d != time.Minute {
			t.Errorf("given up after %v", d)
		}
		if n := strings.Count(said.String(), "opening takes long"); n != 1 {
			t.Errorf("said %d times", n)
		}
		if _, err := p.Peek("disk", 0); !errors.Is(err, ErrStopping) {
			t.Errorf("begun after the end: %v", err)
		}
		close(o.release)
		<-o.closed // what came late
	})
}

func TestAnOpenThatTakesLongIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := stuckOpener{release: make(chan struct{}), closed: make(chan struct{})}
		p := newPatient(o, slog.New(slog.DiscardHandler))
		time.AfterFunc(time.Hour, func() { close(o.release) })
		c, err := p.LockVolume(7)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}

// lockedOpener finds everything in use.
type lockedOpener struct{ geomlib.Files }

func (lockedOpener) Open(string, geomlib.OpenOptions) (geomlib.Provider, error) {
	return nil, geomlib.ErrLocked
}

// TestAProviderThatIsInUseDoesNotTakeLong: its lock is waited for, in case it is about to go, and
// the error says what is wrong.
func TestAProviderThatIsInUseDoesNotTakeLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said bytes.Buffer
		p := newPatient(Direct{Registry: geomlib.Registry{"": lockedOpener{}}}, slog.New(slog.NewTextHandler(&said, nil)))
		if _, err := p.Open("disk", false, 0); !errors.Is(err, geomlib.ErrLocked) {
			t.Error(err)
		}
		if said.Len() != 0 {
			t.Errorf("said %s", &said)
		}
	})
}
