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

// remote is a disk that can be away.
type remote struct {
	*disktest.Disk
	reach geomlib.Reach
	tell  func()
}

func (r *remote) Reach() geomlib.Reach { return r.reach }
func (r *remote) Watch(tell func())    { r.tell = tell }

func TestAComponentThatIsAwayIsInTroubleUntilItIsReached(t *testing.T) {
	a, b := disktest.New("a", 16*crashChunk, 512), &remote{Disk: disktest.New("b", 16*crashChunk, 512)}
	label(t, 16*crashChunk, crashChunk, a, b.Disk)
	events := make(chan Event, 100)
	var members []Member
	for _, p := range []geomlib.Provider{a, b} {
		m, err := geomlib.ReadMetadata(p)
		if err != nil {
			t.Fatal(err)
		}
		members = append(members, Member{Provider: p, Metadata: m})
	}
	v, err := Open(Assemble(members)[0], Config{Events: func(e Event) { events <- e }})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	for _, away := range []time.Duration{time.Second, 0} {
		b.reach.Away = away
		b.tell()
		e := <-events
		for e.Kind != EventTrouble {
			e = <-events
		}
		cs := v.Status().Components
		want := []Trouble{Unreached}[:min(away, 1)]
		if e.Component != 1 || !slices.Equal(cs[1].Trouble, want) || cs[1].Reach != b.reach || !cs[1].Remote || cs[0].Remote || len(cs[0].Trouble) > 0 {
			t.Errorf("away %v: %+v, %+v", away, e, cs)
		}
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
