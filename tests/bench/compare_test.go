package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const printed = `goos: linux
BenchmarkMapped4K/read-2   	  200000	      1806 ns/op	2267.51 MB/s	       0 B/op
BenchmarkReadCost-2        	    2000	   1290931 ns/op	        15.70 %cost
BenchmarkBroken-2   --- FAIL
PASS
`

func TestTheTimesOfBenchmarksAreRead(t *testing.T) {
	want := []engineResult{{Name: "Mapped4K/read-2", NS: 1806}, {Name: "ReadCost-2", NS: 1290931}}
	if got := parseBenchmarks([]byte(printed)); !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// A benchmark that only one of the revisions has is no comparison.
func TestWhatBothRevisionsHaveIsCompared(t *testing.T) {
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	reportEngines(out, []engineResult{
		{Name: "A", Old: true, NS: 100}, {Name: "A", NS: 50}, {Name: "A", Old: true, NS: 100}, {Name: "A", NS: 150},
		{Name: "B", NS: 7},
	})
	text, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	if s := string(text); !strings.Contains(s, "ours 100  before 100 ns  ratio 1.00 (0.50–1.50)") || strings.Contains(s, "B") {
		t.Errorf("%s", s)
	}
}

func TestAComparisonNeedsARevisionThatIsThere(t *testing.T) {
	for _, args := range [][]string{nil, {""}, {"no-such-revision"}} {
		out, err := exec.Command("sh", append([]string{"compare.sh"}, args...)...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "revision") && !strings.Contains(string(out), "REVISION") {
			t.Errorf("%q: %v, %s", args, err, out)
		}
	}
}

// Jobs with a snapshot are left out beside a revision that cannot do them, and what was
// measured before a job failed is kept.
func TestAComparisonLastsThroughWhatTheOtherRevisionDoesNotKnow(t *testing.T) {
	old, out := t.TempDir(), filepath.Join(t.TempDir(), "out", "compare.json")
	first := "#!/bin/sh\necho 'usage: gvirstor label [-s vir_size] name provider0' >&2\nexit 1\n"
	if err := os.WriteFile(filepath.Join(old, "gvirstor"), []byte(first), 0o755); err != nil {
		t.Fatal(err)
	}
	measure := func(only string) error {
		return sitting(old, t.TempDir(), out, 1, func(b *bench, r *record) error {
			return b.compare(r, 1, regexp.MustCompile(only), regexp.MustCompile(""), old)
		})
	}
	if err := measure("snapshot"); err != nil {
		t.Error(err)
	}
	if err := measure("read 4k QD1$"); err == nil || !strings.Contains(err.Error(), "usage: gvirstor label") {
		t.Errorf("a job that fails: %v", err)
	}
	if text, err := os.ReadFile(out); err != nil || !strings.Contains(string(text), `"machine"`) {
		t.Errorf("what was measured: %v, %s", err, text)
	}
}
