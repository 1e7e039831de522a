package virstor

import (
	"bytes"
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib/disktest"
)

// isNeeded wants try to find nothing wrong, and something where a rule is broken.
func isNeeded(t *testing.T, broken Config, try func(*testing.T, Config) error) {
	t.Helper()
	if err := try(t, Config{}); err != nil {
		t.Error(err)
	}
	if err := try(t, broken); err == nil {
		t.Error("nobody noticed that the rule is broken")
	} else {
		t.Log(err)
	}
}

// TestEachRuleOfTrustIsNeeded: what goes wrong when one of them is broken on purpose is
// noticed, and nothing is when none is.
func TestEachRuleOfTrustIsNeeded(t *testing.T) {
	t.Parallel()
	for name, r := range map[string]struct {
		rule rule
		try  func(t *testing.T, cfg Config) error // tells what went wrong
	}{
		"a member that takes no writes gets no new chunk":                   {breakRefusedTakes, allocatesBesideFailed},
		"that a member takes no writes is noted":                            {breakFailedUnnoted, opensAfterFailure},
		"who leaves is cleared when it is noted that it does":               {breakClearEarly, opensAfterHalfARemoval},
		"opening raises the generation":                                     {breakNoRise, refusesACopyOfBefore},
		"a set that is older than what was served is refused":               {breakOldSet, refusesAnOldSet},
		"a held write leaves alone what later requests did":                 {breakSuperseded, keepsWhatCameLater},
		"a held write ends with who waits for it":                           {breakHeldOutlives, endsWithItsClient},
		"a volume that is degraded allocates nothing":                       {breakConditions, stopsAllocating},
		"growing keeps what became of the metadata meanwhile":               {breakOldMetadata, growBeside},
		"the generation of a change of members is settled before it counts": {breakListEarly, refusesACopyOfBefore},
		"a chunk is nobody else's while it is lent":                         {breakLentUnpinned, keepsWhatIsLent},
	} {
		t.Run(name, func(t *testing.T) {
			isNeeded(t, Config{breakRule: r.rule}, r.try)
		})
	}
}

// filledPair is a volume of 64 chunks on two disks, of which virtual chunks 0 to 7 are
// written to.
func filledPair(t *testing.T, cfg Config) (*Volume, []*disktest.Disk) {
	t.Helper()
	disks := []*disktest.Disk{disktest.New("a", 16*crashChunk, 512), disktest.New("b", 16*crashChunk, 512)}
	labelled(t, 64, disks...)
	cfg.Alloc, cfg.WhenFull = Spread, Fail
	v, err := openDisks(cfg, disks)
	mustDo(t, err)
	fillUnits(t, v, 8)
	return v, disks
}

// withFailed is filledPair opened again, with b taking no writes.
func withFailed(t *testing.T, cfg Config) (*Volume, []*disktest.Disk) {
	t.Helper()
	v, disks := filledPair(t, cfg)
	mustDo(t, v.Close())
	disks[1].FailFrom(disktest.Write, 1, syscall.EROFS)
	cfg.Alloc, cfg.WhenFull = Spread, Fail
	v, err := openDisks(cfg, disks)
	mustDo(t, err)
	return v, disks
}

func allocatesBesideFailed(t *testing.T, cfg Config) (err error) {
	v, _ := withFailed(t, cfg)
	for vc := int64(20); vc < 24; vc++ {
		err = errors.Join(err, <-startWrite(v, vc*crashChunk, 7).done)
	}
	_ = v.Close()
	return err
}

func opensAfterFailure(t *testing.T, cfg Config) error {
	v, disks := withFailed(t, cfg)
	_ = v.Close()
	disks[1].Heal()
	v, err := openDisks(cfg, disks)
	if err != nil {
		return err
	}
	return v.Close()
}

// opensAfterHalfARemoval loses power at every write of a removal.
func opensAfterHalfARemoval(t *testing.T, cfg Config) error {
	disks := []*disktest.Disk{disktest.New("a", 16*crashChunk, 512), disktest.New("b", 16*crashChunk, 512)}
	labelled(t, 64, disks...)
	v, err := openDisks(cfg, disks)
	mustDo(t, err)
	rec := disktest.Record(disks...)
	mustDo(t, v.Remove("b"))
	for k := range rec.Len() {
		w, err := openDisks(Config{}, rec.State(k, disktest.None))
		if err != nil {
			return fmt.Errorf("at %d: %w", k, err)
		}
		mustDo(t, w.Close())
	}
	return v.Close()
}

func refusesACopyOfBefore(t *testing.T, cfg Config) error {
	v, disks := filledPair(t, Config{})
	mustDo(t, v.Close())
	old := disks[1].Clone()
	v, err := openDisks(cfg, disks)
	mustDo(t, err)
	fillUnits(t, v, 12)
	a := assemblyOf(t, []*disktest.Disk{disks[0].Survivor(), old})
	_ = v.Close()
	if a.Err == nil {
		return errors.New("a copy that misses writes is taken for the member")
	}
	return nil
}

func refusesAnOldSet(t *testing.T, cfg Config) error {
	v, disks := filledPair(t, Config{})
	mustDo(t, v.Close())
	old := []*disktest.Disk{disks[0].Clone(), disks[1].Clone()}
	v, err := openDisks(cfg, disks)
	mustDo(t, err)
	cfg.MinGeneration, _ = v.Generation()
	mustDo(t, v.Close())
	if v, err = openDisks(cfg, old); err == nil {
		return errors.Join(errors.New("old copies of all members are opened"), v.Close())
	}
	return nil
}

// heldOnFull is a full volume that holds a write of a chunk to virtual chunk 4.
func heldOnFull(t *testing.T, cfg Config) (*Volume, *heldRequest) {
	const chunk = 128 << 10
	a := newMem("a", 4<<20, 512)
	label(t, 8<<20, chunk, a)
	v := open(t, cfg, a)
	mustDo(t, v.SetReserve(v.Status().Free))
	w := newHeldRequest(OpWrite, 4*chunk, bytes.Repeat([]byte{2}, chunk))
	v.Submit(&w.r)
	<-w.held
	return v, w
}

func keepsWhatCameLater(t *testing.T, cfg Config) error {
	v, w := heldOnFull(t, cfg)
	defer v.Close()
	v.Supersede(&w.r, w.r.Offset, 512) // by a discard
	mustDo(t, v.SetReserve(0))
	<-w.done
	got := make([]byte, 1024)
	if _, err := v.ReadAt(got, w.r.Offset); err != nil {
		return err
	}
	if got[0] != 0 || got[1023] != 2 {
		return fmt.Errorf("what was discarded later reads as %d, the rest as %d", got[0], got[1023])
	}
	return w.r.Err
}

func endsWithItsClient(t *testing.T, cfg Config) error {
	v, w := heldOnFull(t, cfg)
	defer v.Close()
	v.EndHeld(&w.r)
	mustDo(t, v.SetReserve(0))
	if <-w.done; !errors.Is(w.r.Err, ErrAbandoned) || v.Status().Allocated != 0 {
		return fmt.Errorf("it ended with %v, and %d chunks are allocated", w.r.Err, v.Status().Allocated)
	}
	return nil
}

func stopsAllocating(t *testing.T, cfg Config) error {
	v, d := wide(t, cfg, 1)
	remove := d.FailRange(disktest.Write, 1000/64*512, 512, syscall.EIO)
	<-startWrite(v, 1000*crashChunk, 7).done // fails with its map sector
	err := <-startWrite(v, 2*crashChunk, 8).done
	remove()
	_ = v.Close()
	if !errors.Is(err, ErrDegraded) {
		return fmt.Errorf("a new chunk while a map sector is in doubt: %v", err)
	}
	return nil
}
