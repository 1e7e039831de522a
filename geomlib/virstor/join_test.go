package virstor

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/ondisk"
)

// What names the volume and is no member of it is refused by every verb that would take
// it in, with its age and last name, and is not written to.
func TestADiskThatIsLabelledForTheVolumeDoesNotJoinAgain(t *testing.T) {
	type setting struct {
		v     *Volume
		disks []*disktest.Disk
		early []*disktest.Disk // copies of disks from before the last openings
	}
	for _, tt := range []struct {
		name string
		disk func(t *testing.T, s *setting) *disktest.Disk
		kind error
		says string
	}{
		{"an older copy of a component", func(_ *testing.T, s *setting) *disktest.Disk { return s.early[1] }, ErrStale, "it was called b"},
		{"an older copy of component 0", func(_ *testing.T, s *setting) *disktest.Disk { return s.early[0] }, ErrStale, "it was called a"},
		{"a copy of a component as it is", func(_ *testing.T, s *setting) *disktest.Disk { return s.disks[1].Clone().Renamed("copy") }, ErrStale, "of generation"},
		{"one that was removed and could not be cleared", func(t *testing.T, s *setting) *disktest.Disk {
			s.disks[2].FailFrom(disktest.Write, 1, syscall.EIO)
			mustDo(t, s.v.Evacuate([]string{"c"}, "", JobOptions{}))
			if j, err := s.v.WaitJob(t.Context()); err != nil || j.Err != nil {
				t.Fatal(err, j.Err)
			}
			s.disks[2].Heal()
			return s.disks[2].Renamed("c again")
		}, ErrStranger, "it was called c"},
		{"one of label's time", func(t *testing.T, s *setting) *disktest.Disk {
			d := s.early[1]
			m := mustMeta(t, d)
			m.Version, m.Member = ondisk.Version, ondisk.MemberBlock{}
			mustDo(t, geomlib.StoreMetadata(d, m))
			return d
		}, ErrStale, "from before the volume had generations"},
		{"one whose member block is damaged", func(t *testing.T, s *setting) *disktest.Disk {
			d := s.early[1]
			b := []byte(sectorOf(d))
			b[130] ^= 1
			b[160] ^= 1
			_, err := d.WriteAt(b, d.MediaSize()-512)
			mustDo(t, err)
			return d
		}, ErrDamagedMember, "damaged member block"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := new(setting)
			s.v, s.disks = trio(t)
			mustDo(t, s.v.Close())
			for _, d := range s.disks {
				s.early = append(s.early, d.Clone().Renamed(d.Name()+" old"))
			}
			for range 2 {
				var err error
				s.v, err = openDisks(Config{}, s.disks)
				mustDo(t, err)
				if s.v.meta.gen.settled < 5 {
					mustDo(t, s.v.Close())
				}
			}
			defer s.v.Close()
			d := tt.disk(t, s)
			was := sectorOf(d)
			n := len(s.v.components())
			for verb, err := range map[string]error{
				"add":       s.v.Add([]geomlib.Provider{d}, AddOptions{Force: true}),
				"replace":   s.v.Replace("b", d, true, JobOptions{}),
				"may join?": s.v.MayJoin(AddOptions{Force: true}, d),
			} {
				if !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), d.Name()) {
					t.Errorf("%s: %v", verb, err)
				}
			}
			if sectorOf(d) != was || len(s.v.components()) != n {
				t.Error("it was written to, or is a component")
			}
			mustDo(t, geomlib.ClearMetadata(d)) // as the user does by hand
			mustDo(t, s.v.Add([]geomlib.Provider{d}, AddOptions{}))
		})
	}
}

func TestADiskOfAnotherVolumeJoinsByForceAlone(t *testing.T) {
	v, _ := trio(t)
	defer v.Close()
	fresh := func(name string) *disktest.Disk {
		d := disktest.New(name, 16*crashChunk, 512)
		mustDo(t, geomlib.StoreMetadata(d, ondisk.Metadata{Version: ondisk.VersionFenced, Name: "theirs", ID: v.ID() + 1, Count: 1,
			Member: ondisk.MemberBlock{ID: 1, Generation: 2, Settled: 2}}))
		return d
	}
	d, e := fresh("d"), fresh("e")
	damaged := fresh("damaged")
	b := []byte(sectorOf(damaged))
	b[160] ^= 1
	_, err := damaged.WriteAt(b, damaged.MediaSize()-512)
	mustDo(t, err)
	for _, p := range []*disktest.Disk{d, damaged} {
		if err := v.Add([]geomlib.Provider{p}, AddOptions{}); !errors.Is(err, ErrLabelled) {
			t.Errorf("add %s: %v", p.Name(), err)
		}
	}
	if err := v.Replace("b", e, false, JobOptions{}); !errors.Is(err, ErrLabelled) {
		t.Errorf("replace: %v", err)
	}
	mustDo(t, v.Add([]geomlib.Provider{d, damaged}, AddOptions{Force: true}))
	endsWell(t, v, v.Replace("b", fresh("f"), true, JobOptions{}))
	for _, c := range v.components() {
		if m := mustMeta(t, c.prov().(*disktest.Disk)); m.ID != v.ID() {
			t.Errorf("%s is of %s", c.name(), m.Name)
		}
	}
}

// crashedAdd is a volume, closed, and a disk that its add, which was cut off by a loss
// of power, left labelled.
func crashedAdd(t *testing.T, joins ...string) (disks, left []*disktest.Disk) {
	t.Helper()
	v, disks := trio(t)
	var ps []geomlib.Provider
	for _, name := range joins {
		d := disktest.New(name, 16*crashChunk, 512)
		left, ps = append(left, d), append(ps, d)
	}
	heal := disks[0].FailFrom(disktest.Write, 1, syscall.EIO) // before component 0 counts them
	for _, d := range left {
		n := 0
		defer d.Inject(func(o disktest.Op) error { // and nobody could clear them
			if o.Kind == disktest.Write {
				if n++; n > 1 {
					return syscall.EIO
				}
			}
			return nil
		})()
	}
	if v.Add(ps, AddOptions{}) == nil {
		t.Fatal("added")
	}
	heal()
	_ = v.Close()
	for i := range disks {
		disks[i] = disks[i].Crash(rand.New(rand.NewPCG(1, 1)))
	}
	for i := range left {
		left[i] = left[i].Survivor()
		if m := mustMeta(t, left[i]); !m.Member.Exists() {
			t.Fatal("it is not labelled: this test shows nothing")
		}
	}
	return disks, left
}

func TestAnAddThatWasCutOffCanBeGivenAgain(t *testing.T) {
	for _, joins := range [][]string{{"d"}, {"d", "e"}} {
		for _, restarts := range []int{1, 3} {
			disks, left := crashedAdd(t, joins...)
			var v *Volume
			for range restarts {
				if v != nil {
					mustDo(t, v.Close())
				}
				var err error
				v, err = openDisks(Config{}, append(slices.Clone(disks), left...))
				mustDo(t, err)
			}
			if n := len(v.components()); n != 3 {
				t.Fatalf("%d components", n)
			}
			var ps []geomlib.Provider
			for i := range left { // in another order
				ps = append(ps, left[len(left)-1-i])
			}
			mustDo(t, v.Add(ps, AddOptions{}))
			holdsUnits(t, v, 9)
			mustDo(t, v.Close())
		}
	}
}

func TestAnAddThatFailedCanBeGivenAgainInTheSameService(t *testing.T) {
	v, disks := trio(t)
	d := disktest.New("d", 16*crashChunk, 512)
	heal := disks[0].FailFrom(disktest.Flush, 1, syscall.EIO)
	if v.Add([]geomlib.Provider{d}, AddOptions{}) == nil {
		t.Fatal("added")
	}
	heal()
	e := disktest.New("e", 16*crashChunk, 512)
	mustDo(t, v.Add([]geomlib.Provider{e}, AddOptions{})) // the members change
	mustDo(t, v.Add([]geomlib.Provider{d}, AddOptions{}))
	_ = v.Close() // component 0 failed a flush
	v, err := openDisks(Config{}, append(disks, d, e))
	mustDo(t, err)
	holdsUnits(t, v, 9)
	mustDo(t, v.Close())
}

// named is a disk by a name that is not its only one.
type named struct {
	*disktest.Disk
	name string
	id   geomlib.Identity
}

func (n named) Name() string               { return n.name }
func (n named) Identity() geomlib.Identity { return n.id }

func TestOneDiskUnderTwoNamesIsOneComponent(t *testing.T) {
	disks := []*disktest.Disk{disktest.New("a", 16*crashChunk, 512), disktest.New("b", 16*crashChunk, 512)}
	labelled(t, 64, disks...)
	file := filepath.Join(t.TempDir(), "disk")
	mustDo(t, os.WriteFile(file, make([]byte, 512), 0o600))
	f, err := geomlib.Open(file, geomlib.OpenOptions{})
	mustDo(t, err)
	defer f.Close()
	b := func(name string) named { return named{disks[1], name, geomlib.IdentityOf(f)} }
	as := Assemble([]Member{{disks[0], mustMeta(t, disks[0])}, {b("b"), mustMeta(t, disks[1])}, {b("link to b"), mustMeta(t, disks[1])}})
	if len(as) != 1 || as[0].Err != nil || len(as[0].Ignored) != 1 {
		t.Fatalf("%+v", as[0])
	}
	if ig := as[0].Ignored[0]; ig.Provider.Name() != "link to b" || !errors.Is(ig.Reason, geomlib.ErrSame) || !strings.Contains(ig.Reason.Error(), "link to b is b") {
		t.Errorf("%s: %v", ig.Provider.Name(), ig.Reason)
	}
	v, err := Open(as[0], Config{})
	mustDo(t, err)
	defer v.Close()
	if err := v.Add([]geomlib.Provider{b("another link")}, AddOptions{}); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "another link already in vol, as b") {
		t.Errorf("add: %v", err)
	}
	if err := v.Replace("b", b("another link"), false, JobOptions{}); !errors.Is(err, ErrInUse) {
		t.Errorf("replace: %v", err)
	}
	c := named{disktest.New("c", 16*crashChunk, 512), "c", geomlib.Identity{}}
	mustDo(t, v.Add([]geomlib.Provider{c}, AddOptions{}))
}
