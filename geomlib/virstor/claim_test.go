package virstor

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/disktest"
)

// claimedDo does one operation of who has the claim, or of others.
func claimedDo(v *Volume, op Op, claim uint64, off int64, data []byte) error {
	w := &waiter{ch: make(chan struct{}, 1)}
	w.r = Request{Op: op, Flags: MayBlock, Offset: off, Length: int64(len(data)), Done: w, Claim: claim}
	if op == OpWrite || op == OpRead {
		w.r.Data = data
	}
	v.Submit(&w.r)
	<-w.ch
	return w.r.Err
}

func claimable(t *testing.T) *Volume {
	t.Helper()
	disks := []*disktest.Disk{disktest.New("a", 80*crashChunk, 512)}
	labelled(t, 64, disks...)
	v, err := openDisks(Config{WhenFull: Fail}, disks)
	mustDo(t, err)
	t.Cleanup(func() { mustDo(t, v.Close()) })
	return v
}

func TestAClaimedVolumeIsWrittenToByOneAlone(t *testing.T) {
	v := claimable(t)
	data := bytes.Repeat([]byte{7}, 4096)
	token, err := v.Claim()
	mustDo(t, err)
	for _, op := range []Op{OpWrite, OpDelete, OpWriteZeroes} {
		if err := claimedDo(v, op, 0, 0, data); !errors.Is(err, ErrClaimed) || !errors.Is(err, ErrReadOnly) {
			t.Errorf("%v of others: %v", op, err)
		}
		mustDo(t, claimedDo(v, op, token, 0, data))
	}
	for _, op := range []Op{OpRead, OpFlush} {
		mustDo(t, claimedDo(v, op, 0, 0, bytes.Clone(data)))
	}
	second, err := v.Claim()
	mustDo(t, err)
	if err := claimedDo(v, OpWrite, token, 0, data); !errors.Is(err, ErrClaimed) {
		t.Errorf("who has lost the claim to another: %v", err)
	}
	v.Unclaim(token) // is no longer his
	if err := claimedDo(v, OpWrite, 0, 0, data); !errors.Is(err, ErrClaimed) {
		t.Errorf("others: %v", err)
	}
	v.Unclaim(second)
	mustDo(t, claimedDo(v, OpWrite, 0, 0, data))
	if err := claimedDo(v, OpWrite, second, 0, data); !errors.Is(err, ErrClaimed) {
		t.Errorf("who has no claim any more: %v", err)
	}
}

func TestAClaimantWhoIsSilentLosesTheVolumeToOthers(t *testing.T) {
	v := claimable(t)
	data := bytes.Repeat([]byte{7}, 4096)
	token, err := v.Claim()
	mustDo(t, err)
	long := time.Now().Add(-claimLimit - time.Second).UnixNano()
	v.claim.Load().heard.Store(long)
	mustDo(t, claimedDo(v, OpWrite, token, 0, data)) // nobody has come between
	if err := claimedDo(v, OpWrite, 0, 0, data); !errors.Is(err, ErrClaimed) {
		t.Errorf("he was heard of: %v", err)
	}
	v.claim.Load().heard.Store(long)
	mustDo(t, claimedDo(v, OpWrite, 0, 0, data))
	if err := claimedDo(v, OpWrite, token, 0, data); !errors.Is(err, ErrClaimed) {
		t.Errorf("after others have written: %v", err)
	}
	if err := v.SnapshotReceived("a", 5, token); !errors.Is(err, ErrClaimed) || v.Older() != nil {
		t.Errorf("snapshot: %v, %v", err, v.Older())
	}
}

func TestAReceivedSnapshotKeepsItsGUID(t *testing.T) {
	disks := []*disktest.Disk{disktest.New("a", 80*crashChunk, 512)}
	labelled(t, 64, disks...)
	v, err := openDisks(Config{WhenFull: Fail}, disks)
	mustDo(t, err)
	token, err := v.Claim()
	mustDo(t, err)
	mustDo(t, v.SnapshotReceived("a", 5, token))
	mustDo(t, claimedDo(v, OpWrite, 0, 0, make([]byte, 512))) // the claim has ended
	mustDo(t, v.Snapshot("b"))
	mustDo(t, v.Snapshot("c"))
	was := v.Snapshots()
	mustDo(t, v.Close())
	v, err = openDisks(Config{}, disks)
	mustDo(t, err)
	defer v.Close()
	is := v.Snapshots()
	if is[0].GUID != 5 || is[1].GUID == 0 || is[1].GUID == is[2].GUID || is[2].GUID == 0 {
		t.Errorf("%+v", is)
	}
	for i := range was {
		if was[i].GUID != is[i].GUID {
			t.Errorf("%s had %v, has %v", was[i].Name, was[i].GUID, is[i].GUID)
		}
	}
}
