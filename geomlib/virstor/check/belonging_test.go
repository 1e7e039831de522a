package check_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/geomlib/virstor/check"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/voltest"
	"github.com/gvirstor/gvirstor/ondisk"
)

var errMedium = errors.New("medium error")

// writesFailAfter lets n writes pass.
func writesFailAfter(n int) func(disktest.Op) error {
	return func(o disktest.Op) error {
		if o.Kind == disktest.Write {
			if n--; n < 0 {
				return errMedium
			}
		}
		return nil
	}
}

// copyOf is the disk under another name.
func copyOf(t *testing.T, d *disktest.Disk, name string) *disktest.Disk {
	t.Helper()
	b := make([]byte, d.MediaSize())
	if _, err := d.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	c := disktest.New(name, d.MediaSize(), d.SectorSize())
	voltest.Write(t, c, b, 0)
	return c
}

// aged is a volume, and copies of its disks from before it was opened again.
func aged(t *testing.T) (disks, old []*disktest.Disk) {
	t.Helper()
	disks, _ = voltest.New(t, false)
	for _, d := range disks {
		old = append(old, copyOf(t, d, "old-"+d.Name()))
	}
	if err := voltest.Open(t, virstor.Config{}, disks).Close(); err != nil {
		t.Fatal(err)
	}
	return disks, old
}

func find(r *check.Report, code check.Code) *check.Finding {
	i := slices.IndexFunc(r.Findings, func(f check.Finding) bool { return f.Code == code })
	if i < 0 {
		return nil
	}
	return &r.Findings[i]
}

func TestNothingIsCleanBesideADiskThatIsNoMember(t *testing.T) {
	disks, old := aged(t)
	for _, live := range []bool{false, true} {
		opt := check.Options{Live: live}
		if r := inspect(t, opt, disks...); !r.Clean() {
			t.Fatalf("live %v: %+v", live, r.Findings)
		}
		for i := range disks {
			beside := inspect(t, opt, append(slices.Clone(disks), old[i])...)
			if f := find(beside, check.MemberStale); f == nil || beside.ExitCode() != 1 || f.Provider != old[i].Name() ||
				!strings.Contains(f.Text, "generation 2, begun") || !strings.Contains(f.Text, "it was called p") {
				t.Errorf("live %v, %s beside: %+v", live, old[i].Name(), beside.Findings)
			}
			mixed := slices.Clone(disks)
			mixed[i] = old[i]
			instead := inspect(t, opt, mixed...)
			if find(instead, check.MemberStale) == nil || find(instead, check.ComponentMissing) == nil || instead.ExitCode() != 1 {
				t.Errorf("live %v, %s instead: %+v", live, old[i].Name(), instead.Findings)
			}
		}
	}
	if r := inspect(t, check.Options{}, old...); !r.Clean() {
		t.Errorf("that all are old cannot be told from the disks: %+v", r.Findings)
	}
}

func TestMembersAreTold(t *testing.T) {
	disks, old := aged(t)
	r := inspect(t, check.Options{}, append(disks, old[1])...)
	var text, j bytes.Buffer
	if err := r.WriteText(&text, true); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"generation 4", "of generation 4", "warning: vol: old-p1: old-p1 is a stale component of vol: of generation 2", "[member-stale]"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in\n%s", want, text.String())
		}
	}
	if err := json.NewEncoder(&j).Encode(r); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Volumes []struct {
			Generation uint64
			Components []struct {
				Member struct {
					ID         string
					Generation uint64
					LastName   string `json:"last_name"`
				}
			}
		}
		Findings []struct {
			Code   string
			Member *struct{ Generation, Settled uint64 }
		}
	}
	if err := json.Unmarshal(j.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	v := got.Volumes[0]
	if v.Generation != 4 || v.Components[2].Member.Generation != 4 || v.Components[2].Member.LastName != "p2" || len(v.Components[2].Member.ID) != 16 {
		t.Errorf("%s", j.Bytes())
	}
	if f := got.Findings[0]; f.Code != "member-stale" || f.Member == nil || f.Member.Generation != 2 {
		t.Errorf("%+v", f)
	}
}

func TestAHalfRisenGenerationIsWorthKnowing(t *testing.T) {
	disks, _ := voltest.New(t, false)
	voltest.SetMetadata(t, disks[0], func(m *ondisk.Metadata) { m.Member.Generation, m.Member.Nonce = m.Member.Generation+1, 77 })
	r := inspect(t, check.Options{}, disks...)
	if f := find(r, check.Unsettled); f == nil || !r.Clean() || !strings.Contains(f.Text, "from generation 2 to 3, which 1 of 3 have") {
		t.Errorf("%+v", r.Findings)
	}
	if r := inspect(t, check.Options{Live: true}, disks...); find(r, check.Unsettled) != nil {
		t.Errorf("of a volume in service: %+v", r.Findings)
	}
}

func TestAMemberThatTakesNoWritesIsNamedWithItsAge(t *testing.T) {
	disks, _ := voltest.New(t, false)
	v := voltest.Open(t, virstor.Config{}, disks)
	disks[1].Inject(writesFailAfter(0))
	if err := v.RaiseGeneration(); err != nil {
		t.Fatal(err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	r := inspect(t, check.Options{}, disks...)
	if f := find(r, check.MemberFailed); f == nil || r.ExitCode() != 1 || f.Provider != "p1" || !strings.Contains(f.Text, "stayed at generation 3") || f.Remedy == "" {
		t.Errorf("%+v", r.Findings)
	}
	if !r.Volumes[0].Components[1].Failed || r.Volumes[0].Components[0].Failed {
		t.Errorf("%+v", r.Volumes[0].Components)
	}
}

func TestAnInterruptedChangeOfTheIDIsOneVolume(t *testing.T) {
	disks, _ := voltest.New(t, false)
	var members []virstor.Member
	for _, d := range disks {
		members = append(members, virstor.Member{Provider: d, Metadata: voltest.Metadata(t, d)})
	}
	rec := disktest.Record(disks...)
	if err := virstor.NewID(virstor.Assemble(members)[0], 0x77, false, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	mixed := 0
	for k := range rec.Len() + 1 {
		left := rec.State(k, disktest.All)
		if voltest.Metadata(t, left[0]).ID != voltest.Metadata(t, left[2]).ID {
			mixed++
		}
		if r := inspect(t, check.Options{}, left...); len(r.Volumes) != 1 || r.Count(check.Error) > 0 || find(r, check.MemberStranger) != nil {
			t.Errorf("after %d operations: %+v, %+v", k, r.Volumes, r.Findings)
		}
	}
	if mixed == 0 {
		t.Error("no state had two ids")
	}
}
