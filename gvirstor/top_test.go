package main

import (
	"strings"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

func TestTopTellsWhatHappenedBetweenTwoStatuses(t *testing.T) {
	ops := func(requests, bytes, nanoseconds uint64, buckets ...uint64) control.OpStatus {
		return control.OpStatus{Requests: requests, Bytes: bytes, Nanoseconds: nanoseconds, Buckets: buckets}
	}
	status := func(v control.VolumeStatus) control.Status { return control.Status{Volumes: []control.VolumeStatus{v}} }
	// Of 100 timed writes 98 took less than 8 ns, and 2 less than 2^21: 1 in 100 more than 99 of them.
	before := control.VolumeStatus{ID: 7, Operations: map[string]control.OpStatus{"write": ops(100, 1<<20, 50, 0, 0, 0, 5), "read": ops(9, 9, 9, 9)}}
	slow := make([]uint64, 22)
	slow[3], slow[21] = 103, 2
	now := control.VolumeStatus{Name: "vol\x1b", ID: 7, Held: control.Held{Count: 3}, PhysicalChunks: 100, FreeChunks: 40,
		Job:        &control.JobStatus{Kind: "evacuate", Done: 1, Total: 4},
		Operations: map[string]control.OpStatus{"write": ops(1700, 33<<20, 200_000_050, slow...), "read": ops(4, 8192, 4_000_000, 0, 0, 0, 0, 4), "flush": ops(20, 0, 0)}}
	for _, c := range []struct {
		was  control.Status
		want string
	}{
		// It was opened anew between the two, as its reads tell.
		{status(before), `"vol\x1b" 2 4.0K 1ms 0us 800 16M 2ms 2ms 10 - 3 40% evacuate 25%`},
		{control.Status{}, `"vol\x1b" 2 4.0K 1ms 0us 850 17M 1ms 2ms 10 - 3 40% evacuate 25%`},
	} {
		var b strings.Builder
		if err := printTop(&b, c.was, status(now), 2*time.Second); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(b.String(), "\n")
		if got := strings.Join(strings.Fields(lines[1]), " "); got != c.want {
			t.Errorf("%s\nwant\n%s", got, c.want)
		}
	}
}
