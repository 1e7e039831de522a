package repair_test

import (
	"bytes"
	"errors"
	"testing"

	"pgregory.net/rapid"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/geomlib/virstor/check"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/voltest"
	"github.com/gvirstor/gvirstor/geomlib/virstor/repair"
	"github.com/gvirstor/gvirstor/ondisk"
)

// number draws values that are near the borders of what fields can be.
func number(t *rapid.T, name string) uint64 {
	return rapid.OneOf(
		rapid.Uint64Range(0, 40),
		rapid.SampledFrom([]uint64{1 << 15, 1 << 16, 1 << 17, 1 << 18, 1<<31 - 1, 1 << 31, 1<<32 - 1, 1 << 63, 1<<64 - 1, voltest.Size, 2 * voltest.Size}),
		rapid.Uint64()).Draw(t, name)
}

func damageMetadata(t *rapid.T, m ondisk.Metadata) ondisk.Metadata {
	n := number(t, "value")
	switch rapid.IntRange(0, 11).Draw(t, "field") {
	case 0:
		m.Version = uint32(n)
	case 1:
		m.Name = rapid.SampledFrom([]string{"", "other", "a/b", "..", "0123456789abcdef"}).Draw(t, "name")
	case 2:
		m.VirtualSize = n
	case 3:
		m.ChunkSize = uint32(n)
	case 4:
		m.ID = uint32(n)
	case 5:
		m.Count = uint16(n)
	case 6:
		m.Provider = rapid.SampledFrom([]string{"p0", "p1", "ada0"}).Draw(t, "name")
	case 7:
		m.No = uint16(n)
	case 8:
		m.ProviderSize = n
	case 9:
		m.ChunkCount = uint32(n)
	case 10:
		m.ChunkNext = uint32(n)
	case 11:
		m.ChunkReserved, m.Flags = uint16(n), uint16(n>>16)
	}
	return m
}

// wholes are volumes to be damaged: of each version, and with member blocks and without.
func wholes(t *testing.T) (list [][]*disktest.Disk, data []byte) {
	members, data := voltest.New(t, false)
	handed, _ := voltest.New(t, true)
	return [][]*disktest.Disk{members, voltest.Unmarked(t, voltest.Clone(members)), handed}, data
}

// spoil damages the metadata of d, of which a member block may tell.
func spoil(t *testing.T, rt *rapid.T, d *disktest.Disk) {
	was := lastSector(t, d)
	now := bytes.Clone(was)
	m := damageMetadata(rt, voltest.Metadata(t, d))
	if m.Version != ondisk.VersionFenced {
		m.Member = ondisk.MemberBlock{} // as whoever writes that does
	}
	if err := m.Encode(now); err != nil {
		rt.Fatal(err)
	}
	if !rapid.Bool().Draw(rt, "unnoticed") {
		copy(now[ondisk.MetadataSize:], was[ondisk.MetadataSize:])
	}
	setLastSector(t, d, now)
}

// What is done about a damaged field never changes what the volume holds.
func TestMendingMetadataKeepsTheData(t *testing.T) {
	all, data := wholes(t)
	rapid.Check(t, func(rt *rapid.T) {
		disks := voltest.Clone(rapid.SampledFrom(all).Draw(rt, "volume"))
		d := disks[rapid.IntRange(0, 2).Draw(rt, "disk")]
		spoil(t, rt, d)
		r, err := check.Inspect(ctx, voltest.Providers(disks), check.Options{})
		if err != nil {
			rt.Fatal(err)
		}
		plans, err := repair.Make(r, repair.Choices{})
		if err != nil {
			rt.Fatal(err)
		}
		for i, p := range plans {
			applyOne(rt, p, r.Volumes[i])
			if len(p.Refusals) > 0 {
				continue
			}
			v := voltest.Open(t, virstor.Config{ReadOnly: true}, labelled(disks)) // an empty one may have left
			b := make([]byte, 8192)
			for off := int64(0); off < voltest.Size; off += voltest.Chunk {
				if _, err := v.ReadAt(b, off); err != nil || !bytes.Equal(b, data[off:off+8192]) {
					rt.Fatalf("virtual chunk %d does not hold what it did (%v)", off/voltest.Chunk, err)
				}
			}
			v.Close()
		}
	})
}

// Whatever is damaged, nothing panics, a plan without refusals ends in a volume
// that opens, and one with them writes nothing.
func TestAnyDamageIsMendedOrRefused(t *testing.T) {
	all, _ := wholes(t)
	rapid.Check(t, func(rt *rapid.T) {
		disks := voltest.Clone(rapid.SampledFrom(all).Draw(rt, "volume"))
		for range rapid.IntRange(1, 4).Draw(rt, "wrong") {
			if rapid.Bool().Draw(rt, "entry") {
				e := ondisk.Entry{Flags: uint16(rapid.SampledFrom([]int{0, 1, 1, 1, 2, 3, 0x100}).Draw(rt, "flags")),
					Component: uint16(rapid.IntRange(0, 4).Draw(rt, "component")), Chunk: uint32(rapid.IntRange(0, 40).Draw(rt, "chunk"))}
				o := ondisk.Order(rapid.IntRange(1, 2).Draw(rt, "order"))
				voltest.SetEntry(t, disks[0], uint64(rapid.IntRange(0, 127).Draw(rt, "virtual")), e, o)
				continue
			}
			d := disks[rapid.IntRange(0, 2).Draw(rt, "disk")]
			if at := rapid.IntRange(0, 1000).Draw(rt, "byte"); at < 256 { // of any, or a field
				b := lastSector(t, d)
				b[at] ^= byte(rapid.IntRange(1, 255).Draw(rt, "bits"))
				setLastSector(t, d, b)
			} else if _, err := geomlib.ReadMetadata(d); err == nil {
				spoil(t, rt, d)
			}
		}
		before := images(disks)
		r, err := check.Inspect(ctx, voltest.Providers(disks), check.Options{})
		if err != nil {
			rt.Fatal(err)
		}
		plans, err := repair.Make(r, repair.Choices{})
		if err != nil {
			rt.Fatal(err)
		}
		for i, p := range plans {
			applyOne(rt, p, r.Volumes[i])
		}
		after := images(disks)
		for i := range before {
			if before[i] != after[i] && len(plans) == 1 && len(plans[0].Refusals) > 0 {
				rt.Fatal("refused, and yet written")
			}
		}
	})
}

func applyOne(rt *rapid.T, p *repair.Plan, v *check.Volume) {
	j, _, err := repair.MemoryJournal(p)
	if err != nil {
		rt.Fatal(err)
	}
	res, err := repair.Apply(ctx, p, j, silent)
	if errors.Is(err, repair.ErrRefused) {
		return
	}
	if err != nil {
		var b bytes.Buffer
		_ = p.WriteText(&b)
		rt.Fatalf("planned, but: %v\n%s", err, b.String())
	}
	for _, f := range res.Report.Findings {
		if f.Prevents || f.Mend == check.MendRepair || f.Mend == check.MendChoice {
			rt.Fatalf("after repair: %+v", f)
		}
	}
	var members []virstor.Member
	for _, m := range v.Members() {
		md, err := geomlib.ReadMetadata(m.Provider)
		if err != nil {
			rt.Fatal(err)
		}
		members = append(members, virstor.Member{Provider: m.Provider, Metadata: md})
	}
	vol, err := virstor.Open(virstor.Assemble(members)[0], virstor.Config{})
	if err != nil {
		rt.Fatal(err)
	}
	if err := vol.Close(); err != nil {
		rt.Fatal(err)
	}
}
