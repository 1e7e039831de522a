// Command bench measures ggated-virstor and its peers side by side: fio over
// NBD on Unix sockets, files in the page cache, the servers in turn
// (A B B A …), medians, and the ratios pair by pair.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"text/tabwriter"
	"time"
)

// job is one fio workload.
type job struct {
	Name  string
	Args  []string
	Fresh bool // on space that was never written
	// Snapshot: of chunks of 64 KiB, after a snapshot of all that was written.
	Snapshot bool
	// View: the snapshot is read, and not the volume.
	View  bool
	Bytes bool // throughput in bytes rather than operations
	// Device: on loop devices, past the page cache, for root.
	Device bool
	Peers  []string
}

var jobs = []job{
	{Name: "randread 4k QD1", Args: []string{"--rw=randread", "--bs=4k", "--iodepth=1"}, Peers: rawPeers},
	{Name: "randread 4k QD32", Args: []string{"--rw=randread", "--bs=4k", "--iodepth=32"}, Peers: rawPeers},
	{Name: "randwrite 4k QD32", Args: []string{"--rw=randwrite", "--bs=4k", "--iodepth=32"}, Peers: rawPeers},
	{Name: "read 1m QD8", Args: []string{"--rw=read", "--bs=1m", "--iodepth=8"}, Bytes: true, Peers: rawPeers},
	{Name: "write 1m QD8", Args: []string{"--rw=write", "--bs=1m", "--iodepth=8"}, Bytes: true, Peers: rawPeers},
	{Name: "mixed 70/30 4k 4xQD16", Args: []string{"--rw=randrw", "--rwmixread=70", "--bs=4k", "--iodepth=16", "--numjobs=4"}, Peers: rawPeers},
	{Name: "first write 4k QD32, flush/64", Args: []string{"--rw=randwrite", "--bs=4k", "--iodepth=32", "--fsync=64"}, Fresh: true, Peers: []string{"qcow2"}},
	{Name: "write behind a snapshot 4k QD32", Args: []string{"--rw=randwrite", "--bs=4k", "--iodepth=32"}, Snapshot: true, Peers: []string{"overlay"}},
	{Name: "write behind a snapshot 4k QD32, flush/64", Args: []string{"--rw=randwrite", "--bs=4k", "--iodepth=32", "--fsync=64"}, Snapshot: true, Peers: []string{"overlay"}},
	{Name: "read of a snapshot 4k QD32", Args: []string{"--rw=randread", "--bs=4k", "--iodepth=32"}, Snapshot: true, View: true, Peers: []string{"volume"}},
	{Name: "randwrite 4k QD1 fsync", Args: []string{"--rw=randwrite", "--bs=4k", "--iodepth=1", "--fsync=1"}, Peers: rawPeers},
	{Name: "direct randread 4k QD1", Args: []string{"--rw=randread", "--bs=4k", "--iodepth=1"}, Device: true, Peers: directPeers},
	{Name: "direct randread 4k QD32", Args: []string{"--rw=randread", "--bs=4k", "--iodepth=32"}, Device: true, Peers: directPeers},
	{Name: "direct randwrite 4k QD32", Args: []string{"--rw=randwrite", "--bs=4k", "--iodepth=32"}, Device: true, Peers: directPeers},
	{Name: "direct read 1m QD8", Args: []string{"--rw=read", "--bs=1m", "--iodepth=8"}, Bytes: true, Device: true, Peers: directPeers},
	{Name: "direct write 1m QD8", Args: []string{"--rw=write", "--bs=1m", "--iodepth=8"}, Bytes: true, Device: true, Peers: directPeers},
}

// directPeers are qemu-nbd with cache=none, and this aio.
var directPeers = []string{"native", "io_uring"}

var rawPeers = []string{"nbdkit", "qemu-nbd"}

// result is one measured run.
type result struct {
	Job    string  `json:"job"`
	Server string  `json:"server"`
	Pair   int     `json:"pair"`
	Rate   float64 `json:"rate"`        // operations or bytes a second
	CPU    float64 `json:"cpu_per_gib"` // server's CPU seconds per GiB moved
}

func main() {
	pairs := flag.Int("pairs", 5, "measured `pairs` of each job and peer")
	seconds := flag.Int("seconds", 3, "`seconds` of each run")
	only := flag.String("only", "", "only the jobs whose name matches `REGEXP`")
	peers := flag.String("peers", "", "only the peers whose name matches `REGEXP`")
	bin := flag.String("bin", "bin", "`folder` of the programs")
	out := flag.String("json", "tests/bench/out/bench.json", "`file` for the results")
	dir := flag.String("dir", "", "`folder` for the files (default: a temporary one)")
	old := flag.String("old", "", "instead of peers, the programs of another revision in `FOLDER`, and its engine's benchmarks if engine.test is there")
	rate := flag.Int64("moving", 0, "instead, what a client waits while chunks move at so many `BYTES` a second")
	large := flag.Bool("scale", false, "instead, what many components, connections and volumes, and a large one, cost beside one of each")
	exports := flag.String("remote", "", "instead, a volume on the exports with these `URIs`, separated by commas, beside the first of them used directly (what they hold is lost); or memory: on nbdkit's memory plugin")
	flag.Parse()
	measure := func() error { return run(*pairs, *seconds, *only, *peers, *bin, *old, *out, *dir) }
	if *rate > 0 {
		measure = func() error { return moving(*pairs, *seconds, *rate, *bin, *dir) }
	}
	if *large {
		measure = func() error { return scale(*pairs, *seconds, *bin, *dir) }
	}
	if *exports != "" {
		measure = func() error { return remote(*pairs, *seconds, *only, *exports, *bin, *dir) }
	}
	if err := measure(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(pairs, seconds int, only, peers, bin, old, out, dir string) (err error) {
	wanted, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	against, err := regexp.Compile(peers)
	if err != nil {
		return err
	}
	b, err := newBench(bin, dir, seconds)
	if err != nil {
		return err
	}
	defer b.close()
	b.old = old
	m := thisMachine()
	fmt.Println(m)
	var all []result
	var engines []engineResult
	defer func() { // what was measured is kept if a later job fails
		err = errors.Join(err, save(out, map[string]any{"when": time.Now().UTC(), "machine": m, "results": all, "engine": engines}))
	}()
	for _, j := range jobs {
		if !wanted.MatchString(j.Name) {
			continue
		}
		if j.Device && (old != "" || os.Geteuid() != 0) {
			fmt.Printf("%-32s\tnot measured: needs root, and the options of this tree\n", j.Name)
			continue
		}
		if old != "" && j.Snapshot && !labelsSmallChunks(old) {
			fmt.Printf("%-32s\tnot measured: that revision knows no snapshots\n", j.Name)
			continue
		}
		if old != "" {
			j.Peers = []string{before}
		}
		for _, peer := range j.Peers {
			if !against.MatchString(peer) {
				continue
			}
			// One pair to warm up is not counted.
			for pair := -1; pair < pairs; pair++ {
				// Who comes second of a pair finds the machine warmer.
				servers := []string{"gvirstor", peer}
				if pair%2 != 0 {
					slices.Reverse(servers)
				}
				for _, server := range servers {
					r, err := b.measure(j, server)
					if err != nil {
						return fmt.Errorf("%s on %s: %w", j.Name, server, err)
					}
					if pair >= 0 {
						r.Pair = pair
						r.Job = j.Name + " vs " + peer
						all = append(all, r)
					}
				}
			}
			report(os.Stdout, j, peer, all)
		}
	}
	if old != "" {
		engines, err = compareEngines(os.Stdout, pairs, wanted, bin, old)
	}
	return err
}

// save writes what was measured to the file out.
func save(out string, measured map[string]any) error {
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	text, err := json.MarshalIndent(measured, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(out, text, 0o644)
}

// report prints the medians of one job against one peer.
func report(w *os.File, j job, peer string, all []result) {
	name := j.Name + " vs " + peer
	var ours, theirs, ourCPU, theirCPU []float64
	for _, r := range all {
		if r.Job != name {
			continue
		}
		if r.Server == "gvirstor" {
			ours, ourCPU = append(ours, r.Rate), append(ourCPU, r.CPU)
		} else {
			theirs, theirCPU = append(theirs, r.Rate), append(theirCPU, r.CPU)
		}
	}
	var ratios []float64
	for i := range min(len(ours), len(theirs)) {
		ratios = append(ratios, ours[i]/theirs[i])
	}
	unit, div := "op/s", 1.0
	if j.Bytes {
		unit, div = "MiB/s", 1<<20
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "%-32s\t%-9s\tours %.0f\ttheirs %.0f %s\tratio %.2f (%.2f–%.2f)\tCPU s/GiB %.2f / %.2f\n",
		j.Name, peer, median(ours)/div, median(theirs)/div, unit,
		median(ratios), slices.Min(ratios), slices.Max(ratios), median(ourCPU), median(theirCPU))
	t.Flush()
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	if n := len(s); n%2 == 0 && n > 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}
