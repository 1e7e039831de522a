package virstor

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
)

func TestATroubleIsLoggedOnceAMinuteWithItsCountAndEndsSomeTimeAfterIt(t *testing.T) {
	var said bytes.Buffer
	log := slog.New(slog.NewTextHandler(&said, nil))
	var tr troubled
	eio := errors.New("input/output error")
	for i := range 1000 {
		if news := tr.note(ReadTrouble, "ada4", eio, log); news != (i == 0) {
			t.Fatalf("failure %d is news: %v", i, news)
		}
	}
	if n := strings.Count(said.String(), "component fails"); n != 1 || !strings.Contains(said.String(), "failures=1 ") {
		t.Errorf("%d lines: %s", n, said.String())
	}
	tr.note(StorageFull, "ada4", syscall.ENOSPC, log) // another kind is said at once
	if n := strings.Count(said.String(), "component fails"); n != 2 {
		t.Errorf("%d lines: %s", n, said.String())
	}
	if got := tr.list(); !slices.Equal(got, []Trouble{ReadTrouble, StorageFull}) {
		t.Errorf("in trouble with %v", got)
	}
	ago := func(d time.Duration) int64 { return time.Now().Add(-d).UnixNano() }
	tr[ReadTrouble].logged.Store(ago(troubleSilence + time.Second))
	tr.note(ReadTrouble, "ada4", eio, log)
	if !strings.Contains(said.String(), "failures=1000 ") {
		t.Errorf("what was not said is not counted: %s", said.String())
	}
	tr[ReadTrouble].last.Store(ago(troubleLasts + time.Second))
	if got := tr.list(); !slices.Equal(got, []Trouble{StorageFull}) {
		t.Errorf("in trouble with %v", got)
	}
	if !tr.note(ReadTrouble, "ada4", eio, log) {
		t.Error("a failure after a long time is no news")
	}
}

func TestAFailedWriteIsTroubleOfItsKind(t *testing.T) {
	for err, want := range map[error]Trouble{
		syscall.EIO: WriteTrouble, syscall.ENOSPC: StorageFull, syscall.EDQUOT: StorageFull,
	} {
		c := &component{log: slog.New(slog.DiscardHandler)}
		var p geomlib.Provider = disktest.New("ada4", 1<<20, 512)
		c.provider.Store(&p)
		c.writeFailed(fmt.Errorf("write: %w", err))
		if got := c.troubled.list(); !slices.Equal(got, []Trouble{want}) {
			t.Errorf("%v: %v, want %v", err, got, want)
		}
	}
}
