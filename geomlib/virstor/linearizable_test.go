package virstor

import (
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
)

// access is one read or write of a unit.
type access struct {
	unit  int64
	write bool
	value uint64
}

// unitModel is a register for each unit.
var unitModel = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		by := make(map[int64][]porcupine.Operation)
		for _, o := range history {
			u := o.Input.(access).unit
			by[u] = append(by[u], o)
		}
		var parts [][]porcupine.Operation
		for _, p := range by {
			parts = append(parts, p)
		}
		return parts
	},
	Init: func() any { return uint64(0) },
	Step: func(state, input, output any) (bool, any) {
		in := input.(access)
		if in.write {
			return true, in.value
		}
		return output.(uint64) == state.(uint64), state
	},
}

func TestConcurrentReadsAndWritesAreLinearizable(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		disks := []*disktest.Disk{
			disktest.New("a", 24*crashChunk, sector).FillJunk(3).SetBuffered(true),
			disktest.New("b", 24*crashChunk, sector).FillJunk(4).SetCached(false).SetStarts(true),
			disktest.New("c", 24*crashChunk, sector).FillJunk(5),
		}
		labelled(t, 64, disks[:2]...)
		v, err := openDisks(Config{Alloc: Spread, Workers: 8}, disks[:2])
		if err != nil {
			t.Fatal(err)
		}
		// Units on both sides of chunk borders, so that requests span two chunks,
		// chunks are new to several at once, and sectors of 4 KiB are shared.
		units := []int64{0, 255, 256, 257, 511, 512, 2000, 2047, 2048, 4095}
		start := time.Now()
		var mu sync.Mutex
		var history []porcupine.Operation
		var wg sync.WaitGroup
		var next uint64
		for client := range 6 {
			rng := rand.New(rand.NewPCG(uint64(sector), uint64(client)))
			wg.Go(func() {
				for range 120 {
					u := units[rng.IntN(len(units))]
					n := 1 + rng.Int64N(2)
					b := make([]byte, n*unit)
					in := make([]access, n)
					write := rng.IntN(2) == 0
					mu.Lock()
					for i := range in {
						next++
						in[i] = access{unit: u + int64(i), write: write, value: next}
						fill(b[i*unit:(i+1)*unit], next)
					}
					mu.Unlock()
					call := time.Since(start).Nanoseconds()
					var err error
					switch {
					case write && client%2 == 0:
						_, err = v.WriteAt(b, u*unit)
					case write:
						err = gathered(v, OpWrite, b, u*unit)
					case client%2 == 0:
						_, err = v.ReadAt(b, u*unit)
					default:
						err = gathered(v, OpRead, b, u*unit)
					}
					ret := time.Since(start).Nanoseconds()
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					for i := range in {
						history = append(history, porcupine.Operation{ClientId: client, Input: in[i], Call: call,
							Output: binary.LittleEndian.Uint64(b[i*unit:]), Return: ret})
					}
					mu.Unlock()
				}
			})
		}
		// Chunks move, a component comes, all the while.
		wg.Go(func() {
			if err := v.Add([]geomlib.Provider{disks[2]}, AddOptions{}); err != nil {
				t.Error(err)
			}
			for _, job := range []func(JobOptions) error{v.Rebalance, v.Pack, v.Rebalance, v.Reclaim} {
				if err := job(JobOptions{}); err != nil {
					t.Error(err)
				}
				if s, _ := v.WaitJob(t.Context()); s.Err != nil {
					t.Error(s.Err)
				}
			}
		})
		wg.Wait()
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
		if r := porcupine.CheckOperationsTimeout(unitModel, history, 30*time.Second); r != porcupine.Ok {
			t.Errorf("sectors of %d: history of %d accesses: %s", sector, len(history), r)
		}
	}
}
