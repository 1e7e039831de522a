package virstor

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
)

// TestClientsGoOnWhileComponentsChangePlaces lets clients write, discard and read
// chunks, each its own, while the volume's components leave and come and its map
// moves. Nobody waits for ever, and everybody reads what he wrote.
func TestClientsGoOnWhileComponentsChangePlaces(t *testing.T) {
	const clients, chunks = 12, 96
	disks := []*disktest.Disk{newMem("a", 72*jobChunk, 512), newMem("b", 72*jobChunk, 512), newMem("c", 72*jobChunk, 512)}
	label(t, 128*jobChunk, jobChunk, disks...)
	v := open(t, Config{Workers: 4, Alloc: Spread}, disks...)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for c := range int64(clients) {
		wg.Go(func() {
			if err := client(ctx, v, c, clients, chunks); err != nil {
				t.Error(err)
			}
		})
	}
	within(t, time.Minute, "jobs among discards", func() {
		spare := newMem("d", 72*jobChunk, 512)
		size := v.Size()
		for range 12 {
			zero := v.component(0).prov().(*disktest.Disk)
			must := func(err error) {
				if err == nil {
					var s JobStatus
					s, err = v.WaitJob(t.Context())
					err = errors.Join(err, s.Err)
				}
				if err != nil {
					t.Error(err)
				}
			}
			if err := v.Add([]geomlib.Provider{spare}, AddOptions{}); err != nil {
				t.Error(err)
			}
			must(v.Evacuate([]string{zero.Name()}, "", JobOptions{}))
			spare = zero
			must(v.Pack(JobOptions{}))
			size += 600 * jobChunk
			must(v.Resize(size, false, JobOptions{}))
			must(v.Rebalance(JobOptions{}))
			must(v.Reclaim(JobOptions{}))
		}
	})
	stop()
	wg.Wait()
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
}

// client changes those of the chunks that are its own until ctx ends, and looks at
// each before it is changed.
func client(ctx context.Context, v *Volume, me, clients, chunks int64) error {
	rng := rand.New(rand.NewPCG(uint64(me), 1))
	holds := make(map[int64]byte)
	b := make([]byte, 4096)
	for n := byte(1); ctx.Err() == nil; n++ {
		vc := me + clients*rng.Int64N(chunks/clients)
		at := vc * jobChunk
		if _, err := v.ReadAt(b, at); err != nil {
			return err
		}
		if !bytes.Equal(b, bytes.Repeat([]byte{holds[vc]}, len(b))) {
			return errors.New("a chunk does not hold what was written")
		}
		var err error
		switch rng.IntN(5) {
		case 0, 1:
			err = v.Discard(at, jobChunk)
			holds[vc] = 0
		case 2: // not whole sectors
			holds[vc] = n
			_, err = v.WriteAt(bytes.Repeat([]byte{n}, 4096+7), at)
		case 3:
			holds[vc] = 0
			err = v.WriteZeroes(at, 8192, 0)
		default:
			holds[vc] = n
			err = v.do(OpWrite, FUA, bytes.Repeat([]byte{n}, 8192), at, 8192)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
