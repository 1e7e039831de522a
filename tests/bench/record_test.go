package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
)

// Who comes first changes from pair to pair, the pair that warms up is not kept, and what
// was measured before an error is.
func TestPairsAreInTurnAndEachRunIsKept(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out", "pairs.json")
	var order []string
	on := func(server string, fails int) func() (result, error) {
		return func() (result, error) {
			order = append(order, server)
			if len(order) == fails {
				return result{}, errBroken
			}
			return result{Server: server, Rate: float64(len(order))}, nil
		}
	}
	for _, c := range []struct {
		fails int // which run, 0 is none
		kept  []string
	}{
		{0, []string{"a0", "b0", "b1", "a1", "a2", "b2"}},
		{6, []string{"a0", "b0", "b1"}},
		{1, []string{}},
	} {
		order = nil
		err := sitting(t.TempDir(), t.TempDir(), out, 1, func(_ *bench, r *record) error {
			a, b, err := r.inPairs("job", 3, on("a", c.fails), on("b", c.fails))
			if err == nil && (len(a) != 3 || len(b) != 3 || a[1].Rate != 6 || b[1].Rate != 5) {
				t.Errorf("%v and %v", a, b)
			}
			return err
		})
		if errors.Is(err, errBroken) != (c.fails != 0) {
			t.Errorf("%d: %v", c.fails, err)
		}
		if order[0] != "b" {
			t.Errorf("the pair that warms up begins with %s, and the first that counts with the other one", order[0])
		}
		text, err := os.ReadFile(out)
		var kept struct {
			Machine machine
			Results []result
		}
		if err == nil {
			err = json.Unmarshal(text, &kept)
		}
		if err != nil || kept.Machine.Processors != runtime.NumCPU() {
			t.Fatalf("%v: %s", err, text)
		}
		runs := []string{}
		for _, r := range kept.Results {
			runs = append(runs, fmt.Sprint(r.Server, r.Pair))
		}
		if !slices.Equal(runs, c.kept) {
			t.Errorf("kept %q, want %q", runs, c.kept)
		}
	}
}

var errBroken = errors.New("broken")

// Of four clients in 4 s of their time together: what they used, as a share of what there is.
func TestTheClientsShareOfTheProcessorsIsRead(t *testing.T) {
	const said = `{"jobs": [{"job_runtime": 4000, "usr_cpu": 5, "sys_cpu": 20,
		"read": {"iops": 70, "bw_bytes": 700, "io_bytes": 1000}, "write": {"iops": 30, "bw_bytes": 300, "io_bytes": 24}}]}`
	r, moved, err := parseFio([]byte(said), job{Connections: 4})
	if err != nil {
		t.Fatal(err)
	}
	could := min(4, runtime.NumCPU())
	if r.Rate != 100 || moved != 1024 || r.Client != (client{CPU: 1, Elapsed: 1, Processors: could, Busy: 1 / float64(could)}) {
		t.Errorf("%+v, %v bytes", r, moved)
	}
	if r, _, err := parseFio([]byte(said), job{Bytes: true}); err != nil || r.Rate != 1000 || r.Client.Processors != 1 || math.Abs(r.Client.Busy-.25) > 1e-9 {
		t.Errorf("%+v, %v", r, err)
	}
	for _, bad := range []string{"", `{"jobs": []}`, `{"jobs": [{}]}`, `{"jobs": [{"job_runtime": 4000}]}`} {
		if r, _, err := parseFio([]byte(bad), job{}); err == nil {
			t.Errorf("%q: %+v", bad, r)
		}
	}
}

func TestEveryRoundIsInAnotherOrder(t *testing.T) {
	const n = 4
	var first, last []int
	for round := -1; round < n-1; round++ {
		order := rotation(n, round)
		first, last = append(first, order[0]), append(last, order[n-1])
		if slices.Sort(order); !slices.Equal(order, []int{0, 1, 2, 3}) {
			t.Errorf("round %d: %v", round, order)
		}
	}
	if !slices.Equal(first, []int{0, 1, 2, 3}) || !slices.Equal(last, []int{3, 0, 1, 2}) {
		t.Errorf("first are %v, last are %v", first, last)
	}
}
