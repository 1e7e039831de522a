package virstor

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gvirstor/gvirstor/geomlib/disktest"
)

const roomPage = 4096 // bytes

// thinStorage is what sparse components of 4 MiB lie on: their data takes a page of it
// for each that was never written. The map and the metadata have theirs already.
type thinStorage struct {
	mu     sync.Mutex
	left   int64 // pages
	backed map[string]bool
	err    error // when none is left
}

func (s *thinStorage) carry(d *disktest.Disk, first int64) {
	d.Inject(func(op disktest.Op) error {
		if op.Kind != disktest.Write || op.Off < first || op.Off+op.Len == d.MediaSize() {
			return nil
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		for at := op.Off &^ (roomPage - 1); at < op.Off+op.Len; at += roomPage {
			page := fmt.Sprint(d.Name(), at)
			if s.backed[page] {
				continue
			}
			if s.left == 0 {
				return disktest.Partial{Done: max(0, at-op.Off), Err: s.err}
			}
			s.left--
			s.backed[page] = true
		}
		return nil
	})
}

func (s *thinStorage) give(pages int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left += pages
}

// openThin opens a volume of 64 chunks on two components with room for so many pages of
// data.
func openThin(t testing.TB, cfg Config, pages int64) (*Volume, *thinStorage, []*disktest.Disk) {
	t.Helper()
	disks := []*disktest.Disk{disktest.New("a", 4<<20, 512), disktest.New("b", 4<<20, 512)}
	labelled(t, 64, disks...)
	v, err := openDisks(cfg, disks)
	if err != nil {
		t.Fatal(err)
	}
	s := &thinStorage{left: pages, backed: make(map[string]bool), err: syscall.ENOSPC}
	s.carry(disks[0], v.component(0).offset(v.component(0).first()))
	s.carry(disks[1], 0)
	return v, s, disks
}

// openShared opens a volume whose pages at 0 and at off, of one chunk, hold ones. The latter is
// shared with a snapshot below the component: whoever changes it needs room, of which there is none.
func openShared(t testing.TB, cfg Config, off int64) (*Volume, *thinStorage) {
	t.Helper()
	v, s, disks := openThin(t, cfg, 2)
	for _, at := range []int64{0, off} {
		if _, err := v.WriteAt(bytes.Repeat([]byte{1}, roomPage), at); err != nil {
			t.Fatal(err)
		}
	}
	c := v.component(0)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.backed, fmt.Sprint(disks[0].Name(), c.offset(c.first())+off))
	return v, s
}

// submit starts w and returns when it is done or held.
func (w *heldRequest) submit(v *Volume) {
	v.Submit(&w.r)
	select {
	case <-w.done:
	case <-w.held:
	}
}

func (w *heldRequest) isDone() bool {
	select {
	case <-w.done:
		return true
	default:
		return false
	}
}

// roomRun writes where there is room for a part of it, into new chunks and into holes
// of old ones, makes room, and tells what is not as it must be.
func roomRun(tb testing.TB, t *rapid.T, cfg Config) error {
	const slot, slots = 16 << 10, 24 * crashChunk / (16 << 10)
	cfg.Alloc = AllocOrder(rapid.IntRange(0, 1).Draw(t, "order"))
	v, storage, disks := openThin(tb, cfg, rapid.Int64Range(0, 40).Draw(t, "pages"))
	defer func() { v.Close() }()
	chunks := v.Status().Free + v.Status().Allocated
	places := rapid.Permutation(numbers(slots)).Draw(t, "places")
	model := make([]byte, slots*slot)
	var ws []*heldRequest
	for i, at := range places[:rapid.IntRange(8, 40).Draw(t, "writes")] {
		w := newHeldRequest(OpWrite, int64(at)*slot, bytes.Repeat([]byte{byte(i + 1)}, slot))
		if rapid.IntRange(0, 3).Draw(t, "zeroes") == 0 {
			w = newHeldZeroing(int64(at)*slot, slot)
		} else {
			copy(model[at*slot:], w.r.Data)
		}
		if rapid.Bool().Draw(t, "FUA") {
			w.r.Flags |= FUA
		}
		w.submit(v)
		ws = append(ws, w)
	}
	if err := v.Flush(); err != nil {
		return fmt.Errorf("flush beside held writes: %w", err)
	}
	for _, w := range ws {
		if w.isDone() {
			if w.r.Err != nil {
				return fmt.Errorf("write at %d: %w", w.r.Offset, w.r.Err)
			}
			if w.r.Op != OpWrite {
				continue
			}
			over := newHeldRequest(OpWrite, w.r.Offset, w.r.Data)
			if over.submit(v); !over.isDone() || over.r.Err != nil {
				v.FailHeld()
				return fmt.Errorf("a write over what is there: held or %w", over.r.Err)
			}
		}
	}
	storage.give(1 << 20)
	v.RetryHeld()
	for _, w := range ws {
		<-w.done
		if w.r.Err != nil {
			return fmt.Errorf("write at %d with room again: %w", w.r.Offset, w.r.Err)
		}
	}
	if s := v.Status(); s.Free+s.Allocated != chunks || s.Held.Count != 0 || s.Held.Bytes != 0 {
		return fmt.Errorf("%d chunks are free and %d allocated of %d, %d writes held", s.Free, s.Allocated, chunks, s.Held.Count)
	}
	for _, when := range []string{"with room again", "opened again"} {
		got := make([]byte, len(model))
		if _, err := v.ReadAt(got, 0); err != nil {
			return err
		}
		if i := firstDifference(got, model); i >= 0 {
			return fmt.Errorf("%s, byte %d is %d, want %d", when, i, got[i], model[i])
		}
		if err := v.Close(); err != nil {
			return err
		}
		var err error
		if v, err = openDisks(Config{}, disks); err != nil {
			return err
		}
	}
	return nil
}

// newHeldZeroing zeroes n bytes, which may be freed.
func newHeldZeroing(off, n int64) *heldRequest {
	w := newHeldRequest(OpWriteZeroes, off, nil)
	w.r.Length = n
	return w
}

func numbers(n int) []int {
	ns := make([]int, n)
	for i := range ns {
		ns[i] = i
	}
	return ns
}

func TestWritesWaitForRoomBelowComponentsAndNothingIsLost(t *testing.T) {
	tb := t
	rapid.Check(t, func(t *rapid.T) {
		if err := roomRun(tb, t, Config{}); err != nil {
			t.Fatal(err)
		}
	})
}

// TestTheRulesOfWaitingForRoomAreNeeded breaks each on purpose.
func TestTheRulesOfWaitingForRoomAreNeeded(t *testing.T) {
	for name, cfg := range map[string]Config{
		"a held write is acknowledged without being written": heldUnwritten(),
		"the chunks of a held write are not free again":      failedLeaks(),
	} {
		t.Run(name, func(t *testing.T) {
			tb, caught := t, 0
			rapid.Check(t, func(t *rapid.T) {
				if err := roomRun(tb, t, cfg); err != nil {
					caught++
				}
			})
			if caught == 0 {
				t.Error("nobody noticed")
			}
		})
	}
}

func TestNothingIsSaidToBeFullWhenTheStorageIs(t *testing.T) {
	full := make(chan Event, 100)
	v, storage, _ := openThin(t, Config{Events: func(e Event) {
		if e.Kind == EventFull || e.Kind == EventTrouble {
			full <- e
		}
	}}, 0)
	defer v.Close()
	var ws []*heldRequest
	for i := range int64(6) {
		w := newHeldRequest(OpWrite, i*crashChunk, make([]byte, crashChunk))
		w.submit(v)
		ws = append(ws, w)
	}
	if e := <-full; e.Kind != EventTrouble || len(full) > 0 {
		t.Errorf("event %d and %d others", e.Kind, len(full))
	}
	storage.give(1 << 20) // and nobody says so: they are tried again unasked
	for _, w := range ws {
		<-w.done
		if w.r.Err != nil {
			t.Error(w.r.Err)
		}
	}
}

// TestAWriteIntoAHoleOfAComponentWaitsForRoom: aligned and not, from Submit and from a
// worker, data and zeros.
func TestAWriteIntoAHoleOfAComponentWaitsForRoom(t *testing.T) {
	for _, tt := range []struct {
		name   string
		off    int64
		op     Op
		flags  Flags
		length int
	}{
		{"whole sectors", 64 << 10, OpWrite, 0, roomPage},
		{"parts of sectors", 64<<10 + 7, OpWrite, 0, 1000},
		{"on the caller's goroutine", 64 << 10, OpWrite, MayBlock, roomPage},
		{"durable", 64 << 10, OpWrite, FUA, roomPage},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v, storage, _ := openThin(t, Config{}, 1)
			defer v.Close()
			if _, err := v.WriteAt(bytes.Repeat([]byte{1}, roomPage), 0); err != nil {
				t.Fatal(err)
			}
			w := newHeldRequest(tt.op, tt.off, bytes.Repeat([]byte{2}, tt.length))
			w.r.Flags |= tt.flags
			w.submit(v)
			if w.isDone() {
				t.Fatalf("it is not held: %v", w.r.Err)
			}
			if _, err := v.WriteAt(bytes.Repeat([]byte{3}, roomPage), 0); err != nil {
				t.Errorf("write over what is there: %v", err)
			}
			storage.give(10)
			v.RetryHeld()
			<-w.done
			got := make([]byte, tt.length)
			if _, err := v.ReadAt(got, tt.off); err != nil || w.r.Err != nil || !bytes.Equal(got, bytes.Repeat([]byte{2}, tt.length)) {
				t.Errorf("ended with %v; read: %v", w.r.Err, err)
			}
		})
	}
}

func TestWhatWaitsForRoomEndsAsWhatWaitsForChunks(t *testing.T) {
	v, storage, _ := openThin(t, Config{}, 0)
	defer v.Close()
	start := func(at int64) *heldRequest {
		w := newHeldRequest(OpWrite, at*crashChunk, bytes.Repeat([]byte{1}, crashChunk))
		w.submit(v)
		return w
	}
	dead, superseded, other := start(0), start(1), start(2)
	v.EndHeld(&dead.r)
	<-dead.done
	if !errors.Is(dead.r.Err, ErrAbandoned) {
		t.Errorf("the write of a client that is gone: %v", dead.r.Err)
	}
	v.Supersede(&superseded.r, crashChunk, crashChunk) // by a discard, say
	<-superseded.done
	if superseded.r.Err != nil || v.allocatedIn(crashChunk, 2*crashChunk) != 0 {
		t.Errorf("a write of which nothing is left to do: %v, %d chunks", superseded.r.Err, v.allocatedIn(0, v.Size()))
	}
	v.SetFull(Wait, time.Millisecond)
	<-other.done
	if !errors.Is(other.r.Err, syscall.ENOSPC) || !strings.Contains(other.r.Err.Error(), "held for 1ms") {
		t.Errorf("a write that waited too long: %v", other.r.Err)
	}
	v.SetFull(Wait, 0)
	first, second := start(0), start(1)
	v.SetFull(Fail, 0)
	for _, w := range []*heldRequest{first, second, start(3)} {
		if <-w.done; !errors.Is(w.r.Err, syscall.ENOSPC) {
			t.Errorf("under the policy error: %v", w.r.Err)
		}
	}
	storage.mu.Lock()
	storage.err = syscall.EDQUOT
	storage.mu.Unlock()
	v.SetFull(Wait, 0)
	last := start(5)
	if err := v.Close(); err != nil {
		t.Error(err)
	}
	if <-last.done; last.r.Err == nil {
		t.Error("a write was done though the volume closed without room for it")
	}
}

// TestAMapSectorWithoutRoomDegradesAndHoldsNothing: its write may be done in part.
func TestAMapSectorWithoutRoomDegradesAndHoldsNothing(t *testing.T) {
	v, _, disks := openThin(t, Config{}, 1<<20)
	defer v.Close()
	remove := disks[0].FailRange(disktest.Write, 0, 512, syscall.ENOSPC)
	w := newHeldRequest(OpWrite, 0, make([]byte, roomPage))
	w.submit(v)
	if !w.isDone() || !errors.Is(w.r.Err, syscall.ENOSPC) || !v.Status().Degraded {
		t.Errorf("done: %v, %v, degraded: %v", w.isDone(), w.r.Err, v.Status().Degraded)
	}
	remove()
	if _, err := v.WriteAt(make([]byte, roomPage), 0); err != nil {
		t.Error(err)
	}
}

// TestZeroingWaitsForRoomBelowComponents: into a hole, aligned and not, and where the
// file system has no room even for a hole.
func TestZeroingWaitsForRoomBelowComponents(t *testing.T) {
	zeros := make([]byte, roomPage)
	for _, tt := range []struct {
		name string
		cfg  Config
		w    *heldRequest
	}{
		{"zeroes", Config{}, newHeldZeroing(64<<10, roomPage)},
		{"parts of sectors", Config{}, newHeldZeroing(64<<10+7, 1000)},
		{"beside chunks that are not allocated", Config{}, newHeldZeroing(64<<10, 2*crashChunk)},
		{"zeroes that are to stay", Config{}, func() *heldRequest { w := newHeldZeroing(64<<10, roomPage); w.r.Flags = NoHole; return w }()},
		{"durable", Config{}, func() *heldRequest { w := newHeldZeroing(64<<10, roomPage); w.r.Flags = FUA; return w }()},
		{"zeros that are detected", Config{DetectZeroes: true}, newHeldRequest(OpWrite, 64<<10, zeros)},
		{"without discards", Config{Discard: DiscardOff}, newHeldZeroing(64<<10, roomPage)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v, storage := openShared(t, tt.cfg, 64<<10)
			defer v.Close()
			tt.w.submit(v)
			if tt.w.isDone() {
				t.Fatalf("it is not held: %v", tt.w.r.Err)
			}
			v.RetryHeld() // without room
			if _, err := v.WriteAt(bytes.Repeat([]byte{3}, roomPage), 0); err != nil {
				t.Errorf("write over what is there: %v", err)
			}
			if _, err := v.ReadAt(make([]byte, roomPage), 64<<10); err != nil {
				t.Errorf("read of what is to be zeroed: %v", err)
			}
			if tt.w.isDone() {
				t.Fatalf("it is done without room: %v", tt.w.r.Err)
			}
			storage.give(1 << 10)
			v.RetryHeld()
			<-tt.w.done
			got := make([]byte, tt.w.r.Length)
			if _, err := v.ReadAt(got, tt.w.r.Offset); err != nil || tt.w.r.Err != nil || !isZero(got) {
				t.Errorf("ended with %v; read: %v", tt.w.r.Err, err)
			}
			if n := v.allocatedIn(0, v.Size()); n != 1 {
				t.Errorf("%d chunks are allocated, want the one that was", n)
			}
		})
	}
}

func TestZeroingFailsAtOnceUnderThePolicyError(t *testing.T) {
	v, _ := openShared(t, Config{WhenFull: Fail}, 64<<10)
	defer v.Close()
	if err := v.WriteZeroes(64<<10, roomPage, 0); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("zeroing without room: %v", err)
	}
}

// supersededZeroing zeroes a chunk and a page, without room for the page, and writes meanwhile into
// what it has still to do. It tells what is not as it must be then.
func supersededZeroing(t *testing.T, rule rule) error {
	t.Helper()
	v, storage := openShared(t, Config{breakRule: rule}, 64<<10)
	defer v.Close()
	storage.give(1)
	at := int64(crashChunk)
	if _, err := v.WriteAt(bytes.Repeat([]byte{1}, roomPage), at); err != nil {
		return err
	}
	w := newHeldZeroing(64<<10, 2*crashChunk-(64<<10)-roomPage)
	if w.submit(v); w.isDone() {
		return fmt.Errorf("it is not held: %w", w.r.Err)
	}
	later := bytes.Repeat([]byte{2}, roomPage)
	if _, err := v.WriteAt(later, at); err != nil { // it is backed
		return err
	}
	v.Supersede(&w.r, at, roomPage)
	storage.give(1 << 10)
	v.RetryHeld()
	if <-w.done; w.r.Err != nil {
		return w.r.Err
	}
	got := make([]byte, 2*crashChunk)
	if _, err := v.ReadAt(got, 0); err != nil {
		return err
	}
	if !bytes.Equal(got[at:at+roomPage], later) {
		return errors.New("what was written later is gone")
	}
	if !isZero(got[64<<10:at]) || !isZero(got[at+roomPage:]) {
		return errors.New("not all is zeroed")
	}
	return nil
}

func TestZeroingThatWasHeldLeavesAloneWhatWasWrittenLater(t *testing.T) {
	if err := supersededZeroing(t, 0); err != nil {
		t.Error(err)
	}
	if err := supersededZeroing(t, breakDiscardsLater); err == nil {
		t.Error("nobody noticed that it does not")
	}
}

// TestADiscardWhoseMapSectorFindsNoRoomIsNotHeld: its write may be done in part.
func TestADiscardWhoseMapSectorFindsNoRoomIsNotHeld(t *testing.T) {
	v, _, disks := openThin(t, Config{}, 1<<20)
	defer v.Close()
	if _, err := v.WriteAt(make([]byte, crashChunk), 0); err != nil {
		t.Fatal(err)
	}
	disks[0].FailRange(disktest.Write, 0, 512, syscall.ENOSPC)
	w := newHeldZeroing(0, crashChunk)
	w.submit(v)
	if !w.isDone() || !errors.Is(w.r.Err, syscall.ENOSPC) || !v.Status().Degraded {
		t.Errorf("done: %v, %v, degraded: %v", w.isDone(), w.r.Err, v.Status().Degraded)
	}
	disks[0].Heal()
}
