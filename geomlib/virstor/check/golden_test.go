package check_test

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/geomlib/virstor/check"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/voltest"
)

const golden = "../../../tests/testdata/golden"

func inspect(t testing.TB, opt check.Options, disks ...*disktest.Disk) *check.Report {
	t.Helper()
	r, err := check.Inspect(context.Background(), voltest.Providers(disks), opt)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// codes are the codes of the findings that are no mere information.
func codes(r *check.Report) []check.Code {
	var out []check.Code
	for _, f := range r.Findings {
		if f.Severity > check.Info {
			out = append(out, f.Code)
		}
	}
	return out
}

func TestOfWhatTheKernelWroteOnlyTheLastSectorIsReported(t *testing.T) {
	r := inspect(t, check.Options{}, voltest.Golden(t, golden)...)
	if len(r.Findings) != 1 {
		t.Fatalf("findings: %+v", r.Findings)
	}
	f := r.Findings[0]
	if f.Code != check.LastSectorReach || f.Severity != check.Warning || f.Provider != "written-2" || f.Prevents ||
		!strings.Contains(f.Text, "40 chunks") {
		t.Errorf("finding: %+v", f)
	}
	if r.ExitCode() != 1 {
		t.Errorf("exit code %d", r.ExitCode())
	}
	v := r.Volumes[0]
	if v.Name != "written" || v.ID != "c0dac9f7" || v.Fence != check.FenceNone || v.Allocated != 46 || v.VirtualChunks != 1024 ||
		v.Order != "little-endian" || !v.MapChecked {
		t.Errorf("volume: %+v", v)
	}
	want := []check.Component{
		{Index: 0, Provider: "written-0", Chunks: 29, Reserved: 2, Used: 29},
		{Index: 1, Provider: "written-1", Chunks: 31, Used: 17},
		{Index: 2, Provider: "written-2", Chunks: 39},
	}
	for i, c := range v.Components {
		if c != want[i] {
			t.Errorf("component: %+v, want %+v", c, want[i])
		}
	}
}

func TestReportsArePrintedForPeopleAndScripts(t *testing.T) {
	r := inspect(t, check.Options{}, voltest.Golden(t, golden)...)
	var text, js bytes.Buffer
	if err := r.WriteText(&text, true); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"Volume written (id c0dac9f7): 3 components, 46 of 1024 virtual chunks allocated\n",
		"  1. written-1: 17 of 31 chunks used, 0 reserved, 0 holes\n",
		"warning: written: written-2: metadata says 40 chunks, ",
		"[last-sector-reach]\n    The next start lowers",
		"0 errors, 1 warning.\n",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in:\n%s", want, text.String())
		}
	}
	if err := json.NewEncoder(&js).Encode(r); err != nil {
		t.Fatal(err)
	}
	var back struct {
		Findings []struct{ Severity, Code, Provider, Mend string }
		Volumes  []struct {
			Fence      string
			Components []struct{ Used int }
		}
	}
	if err := json.Unmarshal(js.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	f := back.Findings[0]
	if f.Severity != "warning" || f.Code != "last-sector-reach" || f.Provider != "written-2" || f.Mend != "repair" ||
		back.Volumes[0].Fence != "none" || back.Volumes[0].Components[1].Used != 17 {
		t.Errorf("%s", js.String())
	}
}
