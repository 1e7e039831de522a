package repair_test

import (
	"errors"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/geomlib/virstor/check"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/voltest"
	"github.com/gvirstor/gvirstor/geomlib/virstor/repair"
	"github.com/gvirstor/gvirstor/ondisk"
)

// FuzzDamageNeverCrashes overwrites last sectors, map and extension block with
// anything. Whatever repair then says it has mended opens.
func FuzzDamageNeverCrashes(f *testing.F) {
	members, _ := voltest.New(f, false)
	whole := voltest.Unmarked(f, voltest.Clone(members))
	seed := func(d *disktest.Disk, off int64, n int) []byte {
		b := make([]byte, n)
		if !d.ReadCached(b, off) {
			f.Fatal("disk does not read")
		}
		return b[:n]
	}
	last := func(i int) []byte { return seed(whole[i], whole[i].MediaSize()-512, 512)[:92] }
	block := func(i int) []byte { return seed(members[i], members[i].MediaSize()-512, 512)[:ondisk.MemberBlockEnd] }
	f.Add(last(0), last(1), seed(whole[0], 0, 1024), uint16(0), true, false)
	f.Add(last(1), last(0), seed(whole[0], 0, 1024), uint16(1), false, false)
	f.Add(last(0), last(1), []byte{1, 0, 1, 0, 0, 0, 0, 0}, uint16(3), true, false)
	f.Add([]byte("GEOM::VIRSTOR\x00\x00\x00"), []byte{}, []byte{0, 1, 0, 0, 0xff}, uint16(80), false, false)
	f.Add(last(0), block(1), seed(members[0], 0, 1024), uint16(0), true, true)
	f.Add(block(1), block(0), []byte{}, uint16(0), false, true)
	f.Add(block(2), block(2), []byte{1}, uint16(0), false, true)
	f.Fuzz(func(t *testing.T, zero, one, entries []byte, vc uint16, live, marked bool) {
		disks := voltest.Clone(whole)
		if marked {
			disks = voltest.Clone(members)
		}
		overwrite(t, disks[0], disks[0].MediaSize()-512, zero)
		overwrite(t, disks[1], disks[1].MediaSize()-512, one)
		overwrite(t, disks[0], int64(vc)%1024/512*512, entries)
		if _, err := check.Inspect(ctx, voltest.Providers(disks), check.Options{Live: true}); err != nil {
			t.Fatal(err)
		}
		r, err := check.Inspect(ctx, voltest.Providers(disks), check.Options{})
		if err != nil {
			t.Fatal(err)
		}
		c := repair.Choices{Keep: []uint64{uint64(vc)}}
		if live || len(r.Volumes) > 1 {
			c = repair.Choices{}
		}
		plans, err := repair.Make(r, c)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range plans {
			j, _, err := repair.MemoryJournal(p)
			if err != nil {
				t.Fatal(err)
			}
			res, err := repair.Apply(ctx, p, j, silent)
			if errors.Is(err, repair.ErrRefused) {
				continue
			}
			if err != nil {
				t.Fatalf("planned, but: %v", err)
			}
			if again := res.Report; again.Count(check.Error) > r.Count(check.Error) {
				t.Errorf("more errors after repair: %+v", again.Findings)
			}
		}
	})
}

func overwrite(t *testing.T, d *disktest.Disk, off int64, with []byte) {
	b := make([]byte, 512)
	if !d.ReadCached(b, off) {
		t.Fatal("disk does not read")
	}
	copy(b, with)
	voltest.Write(t, d, b, off)
}
