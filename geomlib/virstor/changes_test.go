package virstor

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/chunkmap"
)

// changedChunks says of each chunk whether it has changed, from [off, off+n) on.
func changedChunks(t *testing.T, c Changes, off, n int64) []bool {
	t.Helper()
	all := make([]bool, (c.Size()+crashChunk-1)/crashChunk)
	at, end := off, min(off+n, c.Size())
	c.Ranges(off, n, func(length int64, changed bool) bool {
		if length <= 0 || at+length > end || at+length != end && (at+length)%crashChunk != 0 {
			t.Fatalf("a run of %d at %d, of [%d, %d)", length, at, off, end)
		}
		for i := at / crashChunk; i*crashChunk < at+length; i++ {
			all[i] = changed
		}
		at += length
		return true
	})
	if at != end {
		t.Fatalf("the runs of [%d, %d) end at %d", off, end, at)
	}
	return all
}

// missesNone fails the test unless now and then are the same in all chunks but changed ones.
func missesNone(t *testing.T, changed []bool, then, now []byte) {
	t.Helper()
	for i, is := range changed {
		lo, hi := i*crashChunk, min((i+1)*crashChunk, len(now))
		if !is && (hi > len(then) || !bytes.Equal(now[lo:hi], then[lo:hi])) {
			t.Fatalf("chunk %d has changed, and is said not to have", i)
		}
	}
}

func TestNoChangeSinceASnapshotIsMissed(t *testing.T) {
	t.Parallel()
	for seed := range uint64(8) {
		rng := rand.New(rand.NewPCG(seed, 11))
		disks := snapshotDisks(t)
		cfg := Config{WhenFull: Fail, Alloc: AllocOrder(seed % 2)}
		v, err := openDisks(cfg, disks)
		mustDo(t, err)
		now := make([]byte, v.Size())
		held := make(map[string][]byte)
		for step := range 10 {
			change(t, v, rng, now, 3)
			name := fmt.Sprint("s", step)
			if err := v.Snapshot(name); err == nil {
				held[name] = bytes.Clone(now)
			} else if !errors.Is(err, ErrNoSpace) {
				t.Fatal(err)
			}
			if older := v.Older(); len(older) > 3 {
				gone := older[rng.IntN(len(older))]
				mustDo(t, v.DeleteSnapshot(gone))
				delete(held, gone)
			}
			if rng.IntN(3) == 0 {
				mustDo(t, v.Close())
				v, err = openDisks(cfg, disks)
				mustDo(t, err)
			}
			change(t, v, rng, now, rng.IntN(3))
			for name, then := range held {
				c, err := v.ChangesSince(name)
				mustDo(t, err)
				missesNone(t, changedChunks(t, c, 0, c.Size()), then, now)
				c.Close()
				w, err := v.OpenSnapshot(name)
				mustDo(t, err)
				for _, older := range w.Older() {
					c, err := w.ChangesSince(older)
					mustDo(t, err)
					missesNone(t, changedChunks(t, c, 0, c.Size()), held[older], then)
					c.Close()
				}
				w.Close()
			}
		}
		mustDo(t, v.Close())
	}
}

func TestWhatChangedSinceASnapshotIsToldByChunk(t *testing.T) {
	disks := snapshotDisks(t)
	v, err := openDisks(Config{WhenFull: Fail}, disks)
	mustDo(t, err)
	defer v.Close()
	fill := bytes.Repeat([]byte{1}, 8*crashChunk)
	_, err = v.WriteAt(fill, 0)
	mustDo(t, err)
	mustDo(t, v.Snapshot("monday"))
	c, err := v.ChangesSince("monday")
	mustDo(t, err)
	defer c.Close()
	want := make([]bool, v.Size()/crashChunk)
	same := func(when string) {
		t.Helper()
		if got := changedChunks(t, c, 0, v.Size()); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", when, got, want)
		}
	}
	same("nothing was written")
	_, err = v.WriteAt([]byte{2}, crashChunk+5)
	mustDo(t, err)
	want[1] = true
	same("a byte was written")
	mustDo(t, v.Discard(2*crashChunk, crashChunk))
	want[2] = true
	same("a chunk was discarded")
	mustDo(t, v.Discard(20*crashChunk, crashChunk))
	same("what was empty was discarded")
	_, err = v.WriteAt([]byte{2}, 30*crashChunk)
	mustDo(t, err)
	want[30] = true
	same("what was empty was written to")
	mustDo(t, v.Snapshot("tuesday"))
	_, err = v.WriteAt([]byte{3}, crashChunk)
	mustDo(t, err)
	same("what had changed was written to again")

	c.(*changes).older.Size -= 2 * crashChunk // as if the volume had grown since
	defer func() { c.(*changes).older.Size += 2 * crashChunk }()
	want[62], want[63] = true, true
	same("the volume has grown")
	part := make([]bool, len(want))
	part[1], part[2] = true, true
	if got := changedChunks(t, c, crashChunk+9, 2*crashChunk); !slices.Equal(got, part) {
		t.Errorf("of a part: %v, want %v", got, part)
	}
}

func TestChangesHoldTheirSnapshots(t *testing.T) {
	disks := snapshotDisks(t)
	v, err := openDisks(Config{WhenFull: Fail}, disks)
	mustDo(t, err)
	defer v.Close()
	mustDo(t, v.Snapshot("a"))
	mustDo(t, v.Snapshot("b"))
	w, err := v.OpenSnapshot("b")
	mustDo(t, err)
	if got := w.Older(); !slices.Equal(got, []string{"a"}) {
		t.Errorf("older than b: %q", got)
	}
	if got := v.Older(); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("older than the volume: %q", got)
	}
	for name, want := range map[string]error{"b": ErrNotOlder, "c": ErrNoSnapshot} {
		if _, err := w.ChangesSince(name); !errors.Is(err, want) {
			t.Errorf("b since %s: %v, want %v", name, err, want)
		}
	}
	c, err := w.ChangesSince("a")
	mustDo(t, err)
	w.Close()
	for _, name := range []string{"a", "b"} {
		if err := v.DeleteSnapshot(name); !errors.Is(err, ErrSnapshotInUse) {
			t.Errorf("delete %s: %v", name, err)
		}
	}
	c.Close()
	mustDo(t, v.DeleteSnapshot("a"))
	mustDo(t, v.DeleteSnapshot("b"))
}

// TestADifferenceIsToldAcrossPages: of maps of several pages, of which some are kept.
func TestADifferenceIsToldAcrossPages(t *testing.T) {
	disks := []*disktest.Disk{disktest.New("a", 80*crashChunk, 512)}
	labelled(t, 4*chunkmap.PageEntries, disks...)
	v, err := openDisks(Config{WhenFull: Fail}, disks)
	mustDo(t, err)
	defer v.Close()
	at := []int64{0, chunkmap.PageEntries - 1, chunkmap.PageEntries, 3*chunkmap.PageEntries + 7}
	for _, vc := range at[:2] {
		_, err = v.WriteAt([]byte{1}, vc*crashChunk)
		mustDo(t, err)
	}
	mustDo(t, v.Snapshot("a"))
	for _, vc := range at[1:] {
		_, err = v.WriteAt([]byte{2}, vc*crashChunk)
		mustDo(t, err)
	}
	mustDo(t, v.Snapshot("b"))
	_, err = v.WriteAt([]byte{3}, 0)
	mustDo(t, err)
	w, err := v.OpenSnapshot("b")
	mustDo(t, err)
	defer w.Close()
	for _, tt := range []struct {
		of    interface{ ChangesSince(string) (Changes, error) }
		since string
		want  []int64
	}{
		{w, "a", at[1:]},
		{v, "a", at},
		{v, "b", at[:1]},
	} {
		c, err := tt.of.ChangesSince(tt.since)
		mustDo(t, err)
		var got []int64
		for i, is := range changedChunks(t, c, 0, c.Size()) {
			if is {
				got = append(got, int64(i))
			}
		}
		c.Close()
		if !slices.Equal(got, tt.want) {
			t.Errorf("since %s: %v, want %v", tt.since, got, tt.want)
		}
	}
}
