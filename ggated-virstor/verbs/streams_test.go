package verbs

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

func TestWhoReceivesHasTheVolumeToHimselfUntilTheSnapshotIsTaken(t *testing.T) {
	e, ctx := snapshotted(t), context.Background()
	all, err := e.Snapshots(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	base := all.Snapshots[1]
	q := control.ReceiveRequest{Snapshot: "c", GUID: 7, Base: base.GUID, Size: e.Vol.Size()}
	if _, err := e.Receive(ctx, "", q); control.KindOf(err) != control.Invalid { // written to since @b
		t.Fatal(err)
	}
	if _, err := e.Vol.WriteAt(make([]byte, 1<<20), 9<<20); err != nil { // so that claim is gone
		t.Fatal(err)
	}
	if err := e.Vol.Snapshot("b2"); err != nil {
		t.Fatal(err)
	}
	all, err = e.Snapshots(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	q.Base = all.Snapshots[2].GUID
	q.DryRun = true
	if res, err := e.Receive(ctx, "", q); err != nil || res.Claim != 0 {
		t.Fatal(res, err)
	}
	q.DryRun = false
	res, err := e.Receive(ctx, "", q)
	if err != nil || res.Claim == 0 || res.Size != e.Vol.Size() {
		t.Fatal(res, err)
	}
	if _, err := e.Vol.WriteAt([]byte{1}, 0); !errors.Is(err, virstor.ErrClaimed) {
		t.Errorf("a write of others: %v", err)
	}
	data := bytes.Repeat([]byte{5}, control.MaxPiece)
	for _, w := range []control.WriteRequest{
		{Claim: res.Claim, Offset: 512, Length: int64(len(data)), Data: data},
		{Claim: res.Claim, Offset: 3 << 20, Length: 1 << 20},
		{Claim: res.Claim, Offset: e.Vol.Size()},
	} {
		if err := e.Write(ctx, "", w); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Write(ctx, "", control.WriteRequest{Claim: res.Claim + 1, Length: 512}); control.KindOf(err) != control.Busy {
		t.Errorf("a claim that is another's: %v", err)
	}
	if _, err := e.Snapshot(ctx, "", control.SnapshotRequest{Snapshot: "c", GUID: 7, Claim: res.Claim}); err != nil {
		t.Fatal(err)
	}
	all, err = e.Snapshots(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	c := all.Snapshots[3]
	if c.GUID != 7 {
		t.Errorf("%+v", c)
	}
	got, err := e.Read(ctx, "", control.ReadRequest{Snapshot: "c", ID: c.ID, Offset: 512, Length: len(data)})
	if err != nil || !bytes.Equal(got.Data, data) {
		t.Errorf("read: %v", err)
	}
	if _, err := e.Read(ctx, "", control.ReadRequest{Snapshot: "c", ID: c.ID + 1, Length: 1}); control.KindOf(err) != control.NotFound {
		t.Errorf("read of another snapshot: %v", err)
	}
	if _, err := e.Vol.WriteAt([]byte{1}, 0); err != nil {
		t.Errorf("a write after it has ended: %v", err)
	}
}

func TestAWriteThatIsReceivedWaitsForSpaceOnlyAsLongAsSomebodyWaitsForIt(t *testing.T) {
	vol, err := virstor.Open(labelled(t), virstor.Config{WhenFull: virstor.Wait})
	if err != nil {
		t.Fatal(err)
	}
	defer vol.Close()
	e := Engine{Vol: vol, Host: shelf{}}
	res, err := e.Receive(context.Background(), "", control.ReceiveRequest{Snapshot: "a", GUID: 7, Size: vol.Size()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() {
		var err error
		for off := int64(0); off < vol.Size() && err == nil; off += 1 << 20 {
			err = e.Write(ctx, "", control.WriteRequest{Claim: res.Claim, Offset: off, Length: 4096, Data: bytes.Repeat([]byte{1}, 4096)})
		}
		ended <- err
	}()
	for vol.Status().Held.Count == 0 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-ended; err == nil {
		t.Error("a write for which there is no space is done")
	}
	if n := vol.Status().Held.Count; n != 0 {
		t.Errorf("%d writes are held", n)
	}
}
