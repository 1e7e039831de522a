package virstor

import (
	"encoding/binary"
	"fmt"
	"sync"
	"testing"
)

// Whoever writes to one volume and, when that was acknowledged, to another finds in the
// snapshots of one point nothing in the second that is not in the first.
func TestSnapshotsOfAllVolumesAreOfOnePoint(t *testing.T) {
	v, err := openDisks(Config{WhenFull: Fail}, poolDisks(t))
	mustDo(t, err)
	_, err = v.CreateVolume("web", 20*crashChunk, false)
	mustDo(t, err)
	web := openHead(t, v, "web")
	put := func(h *Head, n uint64) {
		b := make([]byte, 512)
		binary.LittleEndian.PutUint64(b, n)
		_, err := h.WriteAt(b, 0)
		mustDo(t, err)
	}
	put(&v.Head, 0)
	put(web, 0)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := uint64(1); ; n++ {
			select {
			case <-stop:
				return
			default:
				put(&v.Head, n)
				put(web, n)
			}
		}
	})
	for i := range 20 {
		name := fmt.Sprintf("s%d", i)
		mustDo(t, v.SnapshotAll(name))
		got := func(h *Head) uint64 {
			w, err := h.OpenSnapshot(name)
			mustDo(t, err)
			defer w.Close()
			b := make([]byte, 512)
			_, err = w.ReadAt(b, 0)
			mustDo(t, err)
			return binary.LittleEndian.Uint64(b)
		}
		if first, second := got(&v.Head), got(web); second > first || first > second+1 {
			t.Errorf("%d in the one, %d in the other", first, second)
		}
		mustDo(t, v.DeleteSnapshot(name))
		mustDo(t, web.DeleteSnapshot(name))
	}
	close(stop)
	wg.Wait()
	web.Release()
	mustDo(t, v.Close())
}

func TestOfSnapshotsOfAllVolumesAllAreTakenOrNone(t *testing.T) {
	v, err := openDisks(Config{serial: true, WhenFull: Fail}, poolDisks(t))
	mustDo(t, err)
	_, err = v.CreateVolume("web", 20*crashChunk, false)
	mustDo(t, err)
	web := openHead(t, v, "web")
	mustDo(t, web.Snapshot("s"))
	if err := v.SnapshotAll("s"); err == nil || len(v.Snapshots()) != 0 || len(web.Snapshots()) != 1 {
		t.Errorf("%v; %v, %v", err, v.Snapshots(), web.Snapshots())
	}
	mustDo(t, v.SnapshotAll("t"))
	if len(v.Snapshots()) != 1 || len(web.Snapshots()) != 2 {
		t.Errorf("%v, %v", v.Snapshots(), web.Snapshots())
	}
	web.Release()
	mustDo(t, v.Close())
}
