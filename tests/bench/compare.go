package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// before is ggated-virstor of another revision, as a peer.
const before = "before"

// machine is where the figures were taken.
type machine struct {
	Processor  string `json:"processor"`
	Processors int    `json:"processors"`
	System     string `json:"system"`
	Pinned     bool   `json:"pinned"` // whether a process is kept on one processor
}

func (m machine) String() string {
	return fmt.Sprintf("%d processors (%s), %s, nothing pinned to one", m.Processors, m.Processor, m.System)
}

// thisMachine tells what can be found out.
func thisMachine() machine {
	m := machine{Processor: runtime.GOARCH, Processors: runtime.NumCPU(), System: runtime.GOOS}
	if b, err := exec.Command("uname", "-sr").Output(); err == nil {
		m.System = strings.TrimSpace(string(b))
	}
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return m
	}
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			m.Processor = strings.TrimSpace(value)
			break
		}
	}
	return m
}

// labelsSmallChunks reports whether the gvirstor in folder knows what jobs with a snapshot
// need.
func labelsSmallChunks(folder string) bool {
	usage, _ := exec.Command(filepath.Join(folder, "gvirstor"), "help", "label").CombinedOutput() // whatever its status is
	return bytes.Contains(usage, []byte("--small-chunks"))
}

// engineTest is the compiled tests of the engine, beside the programs of each revision.
const engineTest = "engine.test"

// engineBenchmarks are those that are compared.
const engineBenchmarks = "^Benchmark(Mapped4K|Inline|Allocate|Flush|FirstWrite|Open)$"

// engineResult is one benchmark of one run.
type engineResult struct {
	Name string  `json:"name"`
	Old  bool    `json:"old"`
	Run  int     `json:"run"`
	NS   float64 `json:"ns_per_op"`
}

// compareEngines runs the engine's benchmarks of both revisions in turn, one time more than
// it counts, and prints what is wanted.
func compareEngines(w *os.File, runs int, wanted *regexp.Regexp, bin, old string) ([]engineResult, error) {
	var all []engineResult
	for _, folder := range []string{bin, old} {
		if _, err := os.Stat(filepath.Join(folder, engineTest)); errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
	}
	for run := -1; run < runs; run++ {
		for _, folder := range []string{old, bin} {
			rs, err := runEngine(folder)
			if err != nil {
				return nil, err
			}
			for _, r := range rs {
				if r.Old, r.Run = folder == old, run; run >= 0 && wanted.MatchString(r.Name) {
					all = append(all, r)
				}
			}
		}
	}
	reportEngines(w, all)
	return all, nil
}

// runEngine runs the benchmarks of the revision in folder.
func runEngine(folder string) ([]engineResult, error) {
	program, err := filepath.Abs(filepath.Join(folder, engineTest))
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(program, "-test.run", "^$", "-test.bench", engineBenchmarks, "-test.benchtime", "200ms")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", program, err)
	}
	return parseBenchmarks(out), nil
}

// parseBenchmarks takes the time of an operation from what `go test -bench` prints.
func parseBenchmarks(out []byte) (rs []engineResult) {
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		at := slices.Index(f, "ns/op")
		if len(f) == 0 || !strings.HasPrefix(f[0], "Benchmark") || at < 1 {
			continue
		}
		if ns, err := strconv.ParseFloat(f[at-1], 64); err == nil {
			rs = append(rs, engineResult{Name: strings.TrimPrefix(f[0], "Benchmark"), NS: ns})
		}
	}
	return rs
}

// reportEngines prints the medians of each benchmark, and the ratios run by run.
func reportEngines(w *os.File, all []engineResult) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer t.Flush()
	var names []string
	for _, r := range all {
		if !slices.Contains(names, r.Name) {
			names = append(names, r.Name)
		}
	}
	for _, name := range names {
		var now, then []float64
		for _, r := range all {
			switch {
			case r.Name != name:
			case r.Old:
				then = append(then, r.NS)
			default:
				now = append(now, r.NS)
			}
		}
		if len(now) == 0 || len(now) != len(then) {
			continue // one of the revisions has no such benchmark
		}
		fmt.Fprintf(t, "engine: %s\tours %.0f\tbefore %.0f ns\tratio %s\n",
			name, median(now), median(then), spread(ratios(now, then)))
	}
}
