package check_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/geomlib/virstor/check"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/voltest"
	"github.com/gvirstor/gvirstor/ondisk"
)

// churn allocates, frees and packs until ctx ends.
func churn(ctx context.Context, t *testing.T, v *virstor.Volume) {
	rng := rand.New(rand.NewPCG(7, 7))
	b := make([]byte, 4096)
	for ctx.Err() == nil {
		at := rng.Int64N(40) * voltest.Chunk
		var err error
		switch rng.IntN(8) {
		case 0, 1, 2, 3:
			_, err = v.WriteAt(b, at)
		case 4, 5:
			err = v.Discard(at, voltest.Chunk)
		case 6:
			err = v.Flush()
		default:
			if err = v.Pack(virstor.JobOptions{}); err == nil {
				_, err = v.WaitJob(ctx)
			}
			if ctx.Err() != nil {
				return
			}
			if errors.Is(err, virstor.ErrJobRunning) { // the evacuation
				err = nil
			}
		}
		if err != nil {
			t.Error(err)
			return
		}
	}
}

func TestWhatIsInMotionIsNoFinding(t *testing.T) {
	disks, _ := voltest.New(t, true)
	spare := disktest.New("p3", 18*voltest.Chunk, voltest.Sector)
	v := voltest.Open(t, virstor.Config{}, disks)
	ctx, stop := context.WithCancel(context.Background())
	var busy sync.WaitGroup
	busy.Go(func() { churn(ctx, t, v) })
	defer func() { stop(); busy.Wait(); v.Close() }()
	for i := range 100 {
		if i%10 == 5 {
			if err := v.Add([]geomlib.Provider{spare}, virstor.AddOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		r := inspect(t, check.Options{Live: true}, disks...)
		for _, f := range r.Findings {
			added := i%10 >= 5 && f.Code == check.ComponentMissing
			if f.Severity > check.Info && !added {
				t.Fatalf("%+v", f)
			}
		}
		if i%10 == 9 {
			for v.Remove("p3") != nil { // until its chunks are packed away
				if err := v.Evacuate([]string{"p3"}, "", virstor.JobOptions{}); err == nil {
					if _, err := v.WaitJob(ctx); err != nil {
						t.Fatal(err)
					}
					break
				}
			}
		}
	}
}

func TestDamageOfAVolumeInUseIsFound(t *testing.T) {
	disks, _ := voltest.New(t, false)
	e := voltest.Entry(t, disks[0], 17)
	voltest.SetEntry(t, disks[0], 0, e, ondisk.LittleEndian)
	r := inspect(t, check.Options{Live: true}, disks...)
	if got := codes(r); len(got) != 1 || got[0] != check.ChunkDoubled {
		t.Errorf("findings: %v", got)
	}
}

func TestManyFindingsOfOneKindAreCounted(t *testing.T) {
	disks, _ := voltest.New(t, false)
	for vc := range uint64(30) {
		voltest.SetEntry(t, disks[0], 90+vc, ondisk.Entry{Flags: 1, Component: 77}, ondisk.LittleEndian)
	}
	r := inspect(t, check.Options{MaxEach: 5}, disks...)
	n := 0
	for _, f := range r.Findings {
		if f.Code == check.EntryComponent {
			n++
		}
	}
	last := r.Findings[len(r.Findings)-1]
	for _, f := range r.Findings {
		if f.Code == check.TooManyFindings {
			last = f
		}
	}
	if n != 5 || last.Text != "25 more findings of the kind entry-component" || last.Severity != check.Error {
		t.Errorf("%d listed; %+v", n, last)
	}
}

func TestBigEndianMapsAreRead(t *testing.T) {
	disks, _ := voltest.New(t, true)
	for vc := range uint64(128) {
		if e := voltest.Entry(t, disks[0], vc); e.Allocated() {
			voltest.SetEntry(t, disks[0], vc, e, ondisk.BigEndian)
		}
	}
	r := inspect(t, check.Options{}, disks...)
	if !r.Clean() || r.Volumes[0].Order != "big-endian" || r.Volumes[0].Allocated != 24 {
		t.Errorf("%v, %+v", codes(r), r.Volumes[0])
	}
}

func TestPlacementThatTheKernelClassWouldCorruptIsAnErrorWhereItHasTheVolume(t *testing.T) {
	for _, fenced := range []bool{false, true} {
		disks, _ := voltest.New(t, !fenced)
		voltest.SetEntry(t, disks[0], 0, ondisk.Entry{}, ondisk.LittleEndian)
		r := inspect(t, check.Options{}, disks...)
		want := check.Error
		if fenced {
			want = check.Info
		}
		found := false
		for _, f := range r.Findings {
			if f.Code == check.Holes {
				found = true
				if f.Severity != want || f.Provider != "p0" || f.Prevents {
					t.Errorf("%+v", f)
				}
			}
		}
		if !found {
			t.Errorf("fenced %v: no hole found", fenced)
		}
	}
}

func TestAChunkInUseOverTheMetadataSectorIsNamed(t *testing.T) {
	disks := voltest.Label(t, voltest.Sector, 16*voltest.Chunk, 20*voltest.Chunk)
	voltest.SetMetadata(t, disks[1], func(m *ondisk.Metadata) { m.ChunkCount = 20 })
	voltest.SetEntry(t, disks[0], 5, ondisk.Entry{Flags: 1, Component: 1, Chunk: 19}, ondisk.LittleEndian)
	r := inspect(t, check.Options{}, disks...)
	for _, f := range r.Findings {
		if f.Code == check.LastSectorUsed {
			if f.Virtual == nil || *f.Virtual != 5 || f.Provider != "p1" || f.Severity != check.Error {
				t.Errorf("%+v", f)
			}
			return
		}
	}
	t.Errorf("not found: %v", codes(r))
}
