package supervisor

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib/history"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

// TestAWorkerIsNotGoneWhileWhatItBeganIsNotDone: a process that it started stands for the
// kernel, which has what a dead worker's rings were asked for.
func TestAWorkerIsNotGoneWhileWhatItBeganIsNotDone(t *testing.T) {
	b := newBeginner(t, "exec 3>&- 4>&-")
	if w := b.start(t); b.gone(w) {
		t.Error("a worker whose requests are under way is gone")
	} else {
		b.end(t)
		<-w.gone
	}
}

// TestAWorkerWhoseRequestsNobodyAwaitsIsNoticed, as by the one before: it does not keep open
// what it is passed for them.
func TestAWorkerWhoseRequestsNobodyAwaitsIsNoticed(t *testing.T) {
	b := newBeginner(t, "exec 3>&- 4>&- 5>&-")
	if !b.gone(b.start(t)) {
		t.Error("it is awaited")
	}
	b.end(t)
}

// TestNoUpgradeWhileRequestsAreUnderWay: the next worker would write where the last one still
// does. The program fails if it is executed in the test's place.
func TestNoUpgradeWhileRequestsAreUnderWay(t *testing.T) {
	b := newBeginner(t, "exec 3>&- 4>&-")
	w := b.start(t)
	requests, next := make(chan Request, 1), make(chan step, 1)
	requests <- Upgrade
	go func() {
		n, err := b.s.attend(t.Context(), w, requests)
		if err != nil {
			t.Error(err)
		}
		next <- n
	}()
	<-b.kept
	b.end(t)
	if n := <-next; n != died {
		t.Errorf("step %d follows", n)
	}
}

// beginner is a supervisor of workers that begin what does not end before end is called, and
// die.
type beginner struct {
	s       *Supervisor
	fifo    string
	awaited chan struct{} // it told that it awaits that
	kept    chan struct{} // and that it is not upgraded
}

// newBeginner makes one whose workers close something first.
func newBeginner(t *testing.T, closes string) *beginner {
	t.Helper()
	dir := t.TempDir()
	b := &beginner{s: newPair(t).s, fifo: filepath.Join(dir, "fifo"), awaited: make(chan struct{}, 1), kept: make(chan struct{}, 1)}
	must(t, syscall.Mkfifo(b.fifo, 0o600))
	lines, log := io.Pipe()
	t.Cleanup(func() { lines.Close() })
	b.s.log = slog.New(slog.NewTextHandler(log, nil))
	b.s.opt.Program, b.s.opt.Protect = filepath.Join(dir, "program"), func(int) error { return nil }
	must(t, os.WriteFile(b.s.opt.Program, fmt.Appendf(nil, `#!/bin/sh
[ "$1" != --check-config ] || exit 0
[ "$%s" ] || exit 1
%s
cat %s >/dev/null 2>&1 &
`, workerEnv, closes, b.fifo), 0o700))
	b.s.front = newFront(b.s.log, func(control.Access) func() { return func() {} }, func(history.Deed) {})
	go func() {
		for s := bufio.NewScanner(lines); s.Scan(); {
			if strings.Contains(s.Text(), "is awaited") {
				b.awaited <- struct{}{}
			}
			if strings.Contains(s.Text(), "no upgrade before") {
				b.kept <- struct{}{}
			}
		}
	}()
	return b
}

func (b *beginner) start(t *testing.T) *worker {
	t.Helper()
	w, err := b.s.start()
	must(t, err)
	return w
}

// gone reports whether a worker is gone, or else awaited.
func (b *beginner) gone(w *worker) bool {
	select {
	case <-b.awaited:
		return w.isGone()
	case <-w.gone:
		return true
	}
}

// end ends what a worker began.
func (b *beginner) end(t *testing.T) {
	t.Helper()
	f, err := os.OpenFile(b.fifo, os.O_WRONLY, 0)
	must(t, err)
	must(t, f.Close())
}
