package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"
)

// record is what was measured in one sitting, as it is kept.
type record struct {
	When      time.Time      `json:"when"`
	Machine   machine        `json:"machine"`
	Arguments []string       `json:"arguments"` // of this program
	Results   []any          `json:"results"`   // each run
	Engine    []engineResult `json:"engine,omitempty"`
}

// result is one run of a job.
type result struct {
	Job       string  `json:"job"`
	Server    string  `json:"server"`
	Pair      int     `json:"pair"`
	Rate      float64 `json:"rate"`                         // operations or bytes a second
	CPU       float64 `json:"cpu_per_gib,omitempty"`        // server's CPU seconds per GiB moved, 0 if not known
	ServerCPU float64 `json:"server_cpu_seconds,omitempty"` // the same of the whole run
	Client    client  `json:"client"`
}

// client is what fio itself used of the processors while it ran a job. One that is near all
// that it could use is what limits the rate, and not the server.
type client struct {
	CPU        float64 `json:"cpu_seconds"` // user and system, of all its clients
	Elapsed    float64 `json:"elapsed_seconds"`
	Processors int     `json:"processors"` // that it could use: one for each client, if there are as many
	Busy       float64 `json:"busy"`       // share of them that it used, 0 to 1
}

// sitting measures with the programs in bin on files in a temporary folder in dir, and writes
// each run to the file out, those before an error too.
func sitting(bin, dir, out string, seconds int, measure func(*bench, *record) error) error {
	b, err := newBench(bin, dir, seconds)
	if err != nil {
		return err
	}
	defer b.close()
	r := &record{When: time.Now().UTC(), Machine: thisMachine(), Arguments: os.Args[1:], Results: []any{}}
	fmt.Println(r.Machine)
	return errors.Join(measure(b, r), r.save(out))
}

// save writes the record to the file out.
func (r *record) save(out string) error {
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(out, text, 0o644)
}

// inPairs measures two servers in turn. One pair to warm up is not counted.
func (r *record) inPairs(job string, pairs int, ours, theirs func() (result, error)) (a, b []result, err error) {
	for pair := -1; pair < pairs; pair++ {
		turns := []func() error{
			func() error { a, err = r.turn(a, job, pair, ours); return err },
			func() error { b, err = r.turn(b, job, pair, theirs); return err },
		}
		if pair%2 != 0 { // who comes second of a pair finds the machine warmer
			slices.Reverse(turns)
		}
		for _, turn := range turns {
			if err := turn(); err != nil {
				return nil, nil, fmt.Errorf("%s: %w", job, err)
			}
		}
	}
	return a, b, nil
}

// turn adds one run to those before it, if it counts.
func (r *record) turn(before []result, job string, pair int, measure func() (result, error)) ([]result, error) {
	one, err := measure()
	if err != nil || pair < 0 {
		return before, err
	}
	one.Job, one.Pair = job, pair
	r.Results = append(r.Results, one)
	return append(before, one), nil
}

// each is one value of every run.
func each[T any](runs []T, value func(T) float64) (v []float64) {
	for _, r := range runs {
		v = append(v, value(r))
	}
	return v
}

// ratios are of a to b, pair by pair.
func ratios(a, b []float64) (v []float64) {
	for i := range min(len(a), len(b)) {
		v = append(v, a[i]/b[i])
	}
	return v
}

// spread is the median, and the smallest and largest.
func spread(v []float64) string {
	return fmt.Sprintf("%.2f (%.2f–%.2f)", median(v), slices.Min(v), slices.Max(v))
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	if n := len(s); n%2 == 0 && n > 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// busy tells how much of the processors the client and the server used, by medians: of those
// that the client could use, and of all.
func busy(ours, theirs []result) string {
	of := func(r result) float64 { return 100 * r.Client.Busy }
	said := fmt.Sprintf("client busy %.0f / %.0f %% of %d", median(each(ours, of)), median(each(theirs, of)), ours[0].Client.Processors)
	server := func(r result) float64 {
		return 100 * r.ServerCPU / r.Client.Elapsed / float64(runtime.NumCPU())
	}
	if theirs[0].ServerCPU == 0 { // a server that is not ours to ask
		return said
	}
	return said + fmt.Sprintf(", server %.0f / %.0f %% of %d", median(each(ours, server)), median(each(theirs, server)), runtime.NumCPU())
}
