package ondisk_test

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/gvirstor/gvirstor/ondisk"
)

func TestPlanRefusesEachLimit(t *testing.T) {
	type request = ondisk.LabelRequest
	const gib = 1 << 30
	many := func(n int) []ondisk.LabelProvider {
		ps := make([]ondisk.LabelProvider, n)
		for i := range ps {
			ps[i] = ondisk.LabelProvider{Name: fmt.Sprint("da", i), Size: gib, SectorSize: 512}
		}
		return ps
	}
	tests := []struct {
		name   string
		change func(*request)
		want   error
		says   string // what the message must name
	}{
		{"sound", func(r *request) {}, nil, ""},
		{"no name", func(r *request) { r.Name = "" }, ondisk.ErrName, `""`},
		{"name of 15", func(r *request) { r.Name = "fifteencharname" }, nil, ""},
		{"name of 16", func(r *request) { r.Name = "sixteencharsname" }, ondisk.ErrName, "sixteencharsname"},
		{"name that is no UTF-8", func(r *request) { r.Name = "caf\xe9" }, ondisk.ErrName, `caf\xe9" is not UTF-8`},
		{"name cut in a character", func(r *request) { r.Name = "caf\xc3" }, ondisk.ErrName, "is not UTF-8"},
		{"name that cannot be seen", func(r *request) { r.Name = "a\u202eb" }, ondisk.ErrName, "cannot be printed"},
		{"name with an escape", func(r *request) { r.Name = "a\u009bb" }, ondisk.ErrName, "cannot be printed"},
		{"name with a slash", func(r *request) { r.Name = "a/b" }, ondisk.ErrName, "a/b"},
		{"name with a blank", func(r *request) { r.Name = "a b" }, ondisk.ErrName, "a b"},
		{"name is a dot", func(r *request) { r.Name = "." }, ondisk.ErrName, "."},
		{"virtual size 0", func(r *request) { r.VirtualSize = 0 }, ondisk.ErrVirtualSize, "0"},
		{"virtual size negative", func(r *request) { r.VirtualSize = -5 }, ondisk.ErrVirtualSize, "-5"},
		{"virtual size below a chunk", func(r *request) { r.VirtualSize = 4<<20 - 1 }, ondisk.ErrVirtualSize, "4194303"},
		{"virtual size rounds beyond 63 bits", func(r *request) { r.VirtualSize, r.ChunkSize = math.MaxInt64, 2*gib }, ondisk.ErrVirtualSize, "9223372036854775807"},
		{"chunk size 0", func(r *request) { r.ChunkSize = 0 }, ondisk.ErrChunkSize, "0"},
		{"chunk size negative", func(r *request) { r.ChunkSize = -1 }, ondisk.ErrChunkSize, "-1"},
		{"chunk size 4 GiB", func(r *request) { r.ChunkSize = 4 * gib }, ondisk.ErrChunkSize, "4294967296"},
		{"chunk size rounds to 4 GiB", func(r *request) { r.ChunkSize = 4*gib - 1 }, ondisk.ErrChunkSize, "4294967295"},
		{"chunk size rounds to 2^63", func(r *request) { r.ChunkSize = math.MaxInt64 }, ondisk.ErrChunkSize, "9223372036854775807"},
		{"chunk multiple of old kernels", func(r *request) { r.ChunkMultiple = 128 << 10 }, nil, ""},
		{"chunk multiple odd", func(r *request) { r.ChunkMultiple = 4096 }, ondisk.ErrChunkSize, "4096"},
		{"chunk multiple negative", func(r *request) { r.ChunkMultiple = -1 << 20 }, ondisk.ErrChunkSize, "-1048576"},
		{"no providers", func(r *request) { r.Providers = nil }, ondisk.ErrProviders, "0"},
		{"65535 providers", func(r *request) { r.Providers = many(65535) }, nil, ""},
		{"65536 providers", func(r *request) { r.Providers = many(65536) }, ondisk.ErrProviders, "65536"},
		{"provider twice", func(r *request) { r.Providers[1].Name = "/dev/da0" }, ondisk.ErrDuplicateProvider, "/dev/da0"},
		{"mixed sectors", func(r *request) { r.Providers[1].SectorSize = 4096 }, ondisk.ErrMixedSectors, "(4096 on da1 needs to be 512)"},
		{"sector 520", func(r *request) { r.Providers[1].SectorSize = 520 }, ondisk.ErrSectorSize, "da1"},
		{"size of no whole sectors", func(r *request) { r.Providers[1].Size++ }, ondisk.ErrProviderSize, "da1"},
		{"size negative", func(r *request) { r.Providers[1].Size = -512 }, ondisk.ErrProviderSize, "da1"},
		{"sizes beyond 63 bits", func(r *request) { r.Providers[0].Size, r.Providers[1].Size = math.MaxInt64-511, 512 }, ondisk.ErrProviderSize, "da1"},
		{"four chunks", func(r *request) { r.Providers[1].Size = 16 << 20 }, nil, ""},
		{"under four chunks", func(r *request) { r.Providers[1].Size = 16<<20 - 512 }, ondisk.ErrTooSmall, "da1"},
		{"smaller than the map", func(r *request) { r.VirtualSize = 16 << 40; r.Providers[1].Size = 32<<20 - 512 }, ondisk.ErrTooSmall, "da1"},
		{"nothing beside the reserved", func(r *request) { r.VirtualSize = 4 << 40; r.Providers[0].Size = 16<<20 + 512 }, ondisk.ErrTooSmall, "da0"},
		{"one chunk beside the reserved", func(r *request) { r.VirtualSize = 4 << 40; r.Providers[0].Size = 20<<20 + 512 }, nil, ""},
		{"more chunks than 32 bits", func(r *request) { r.ChunkSize = 1 << 20; r.Providers[1].Size = 1 << 52 }, ondisk.ErrChunkCount, "da1"},
		{"map of 65534 reserved chunks", func(r *request) {
			r.ChunkSize, r.VirtualSize = 1<<20, 32767<<37
			r.Providers[0].Size, r.Providers[1].Size = 1<<40, 1<<40
		}, nil, ""},
		{"map of 65536 reserved chunks", func(r *request) {
			r.ChunkSize, r.VirtualSize = 1<<20, 32767<<37+1<<20
			r.Providers[0].Size, r.Providers[1].Size = 1<<40, 1<<40
		}, ondisk.ErrMapTooLarge, "32768"},
		{"hardcoded", func(r *request) { r.Hardcode = true; r.Providers[1].Name = "/dev/fifteencharname" }, nil, ""},
		{"hardcoded name of 16", func(r *request) { r.Hardcode = true; r.Providers[1].Name = "diskid/DISK-data" }, ondisk.ErrProviderName, "diskid/DISK-data"},
		{"hardcoded without a name", func(r *request) { r.Hardcode = true; r.Providers[1].Name = "/dev/" }, ondisk.ErrProviderName, `""`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := request{Name: "mydata", VirtualSize: 2 << 40, ChunkSize: 4 << 20, Providers: many(2)}
			tt.change(&r)
			l, err := ondisk.Plan(r)
			if !errors.Is(err, tt.want) {
				t.Fatalf("%v, want %v", err, tt.want)
			}
			if err != nil {
				if !strings.Contains(err.Error(), tt.says) {
					t.Errorf("%q does not name %q", err, tt.says)
				}
				return
			}
			for i, m := range l.Metadata {
				if err := m.Validate(r.Providers[i].Size, r.Providers[i].SectorSize); err != nil {
					t.Fatalf("component %d: %v", i, err)
				}
			}
		})
	}
}

func TestPlanTakesDevOffHardcodedNames(t *testing.T) {
	l, err := ondisk.Plan(ondisk.LabelRequest{
		Name: "hard", VirtualSize: 1 << 30, ChunkSize: 1 << 20, Hardcode: true,
		Providers: []ondisk.LabelProvider{{Name: "/dev/gpt/disk0", Size: 1 << 30, SectorSize: 512}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := l.Metadata[0].Provider; got != "gpt/disk0" {
		t.Errorf("provider %q", got)
	}
}

func TestPlanComponentMakesTheComponentThatAddWrites(t *testing.T) {
	volume := sound()
	volume.Version, volume.Count, volume.Provider = ondisk.VersionFenced, 3, "ada0"
	got, err := ondisk.PlanComponent(volume, 2, ondisk.LabelProvider{Name: "da9", Size: 40 << 20, SectorSize: 512}, false)
	if err != nil {
		t.Fatal(err)
	}
	want := ondisk.Metadata{
		Version: ondisk.VersionFenced, Name: "mydata", VirtualSize: 1 << 30, ChunkSize: 1 << 20, ID: 7, Count: 3,
		No: 2, ProviderSize: 40 << 20, ChunkCount: 39,
	}
	if got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestPlanComponentRefuses(t *testing.T) {
	good := ondisk.LabelProvider{Name: "da9", Size: 40 << 20, SectorSize: 512}
	tests := []struct {
		name   string
		index  int
		change func(*ondisk.Metadata, *ondisk.LabelProvider)
		want   error
	}{
		{"index is the count", 2, func(*ondisk.Metadata, *ondisk.LabelProvider) {}, ondisk.ErrIndex},
		{"index negative", -1, func(*ondisk.Metadata, *ondisk.LabelProvider) {}, ondisk.ErrIndex},
		{"no chunk size", 1, func(m *ondisk.Metadata, _ *ondisk.LabelProvider) { m.ChunkSize = 0 }, ondisk.ErrChunkSize},
		{"three chunks", 1, func(_ *ondisk.Metadata, p *ondisk.LabelProvider) { p.Size = 3 << 20 }, ondisk.ErrTooSmall},
		{"odd size", 1, func(_ *ondisk.Metadata, p *ondisk.LabelProvider) { p.Size++ }, ondisk.ErrProviderSize},
		{"odd sector", 1, func(_ *ondisk.Metadata, p *ondisk.LabelProvider) { p.SectorSize = 1000 }, ondisk.ErrSectorSize},
	}
	for _, tt := range tests {
		m, p := sound(), good
		tt.change(&m, &p)
		if _, err := ondisk.PlanComponent(m, tt.index, p, false); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}
