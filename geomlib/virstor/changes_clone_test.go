package virstor

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
)

// A clone, and what is a clone of one, is compared with the snapshots that it descends from,
// and with none that were taken later.
func TestACloneIsComparedWithTheSnapshotsThatItDescendsFrom(t *testing.T) {
	v, err := openDisks(Config{serial: true, WhenFull: Fail}, poolDisks(t))
	mustDo(t, err)
	write := func(h *Head, vc uint64, b byte) []byte {
		t.Helper()
		writeChunk(t, h, vc, b)
		return headHolds(t, v, h.ownName())
	}
	held := make(map[string][]byte)
	write(&v.Head, 1, 1)
	held["vol@a"] = write(&v.Head, 2, 1)
	mustDo(t, v.Snapshot("a"))
	held["vol@b"] = write(&v.Head, 3, 1)
	mustDo(t, v.Snapshot("b"))
	mustDo(t, cloneOf(&v.Head, "b", "web"))
	web := openHead(t, v, "web")
	write(&v.Head, 4, 2)
	mustDo(t, v.Snapshot("c")) // which web does not come from
	held["vol/web@d"] = write(web, 5, 3)
	mustDo(t, web.Snapshot("d"))
	mustDo(t, web.Discard(2*crashChunk, crashChunk))
	mustDo(t, cloneOf(web, "d", "more"))
	more := openHead(t, v, "more")
	held["now"] = write(more, 1, 4)

	if got := strings.Join(web.Older(), " "); got != "vol@a vol@b d" {
		t.Errorf("of the clone: %s", got)
	}
	if got := strings.Join(more.Older(), " "); got != "vol@a vol@b vol/web@d" {
		t.Errorf("of the clone of a clone: %s", got)
	}
	if _, err := web.ChangesSince("vol@c"); !errors.Is(err, ErrNoSnapshot) {
		t.Errorf("since a snapshot of later: %v", err)
	}
	for name, want := range map[string][]int{"vol@a": {1, 3, 5}, "vol@b": {1, 5}, "vol/web@d": {1}} {
		c, err := more.ChangesSince(name)
		mustDo(t, err)
		changed := changedChunks(t, c, 0, c.Size())
		missesNone(t, changed, held[name], held["now"])
		var got []int
		for i, is := range changed {
			if is {
				got = append(got, i)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("since %s chunks %v have changed, not %v", name, got, want)
		}
		c.Close()
	}

	// A snapshot of a clone, while the clone goes on.
	view, err := web.OpenSnapshot("d")
	mustDo(t, err)
	if got := strings.Join(view.Older(), " "); got != "vol@a vol@b" {
		t.Errorf("of the clone's snapshot: %s", got)
	}
	c, err := view.ChangesSince("vol@a")
	mustDo(t, err)
	if err := v.DeleteSnapshot("a"); !errors.Is(err, ErrSnapshotInUse) {
		t.Errorf("what is compared is deleted: %v", err)
	}
	changed := changedChunks(t, c, 0, c.Size())
	missesNone(t, changed, held["vol@a"], held["vol/web@d"])
	if n := bytes.Count(boolBytes(changed), []byte{1}); n != 2 {
		t.Errorf("%d chunks have changed", n)
	}
	c.Close()
	view.Close()
	mustDo(t, v.DeleteSnapshot("a"))
	web.Release()
	more.Release()
	mustDo(t, v.Close())
}

func boolBytes(all []bool) (b []byte) {
	for _, is := range all {
		if is {
			b = append(b, 1)
		} else {
			b = append(b, 0)
		}
	}
	return b
}
