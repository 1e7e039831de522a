// Command bench measures ggated-virstor and its peers side by side: fio over
// NBD on Unix sockets, files in the page cache, the servers in turn
// (A B B A …), medians, and the ratios pair by pair.
package main

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"text/tabwriter"
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
	// Connections: as many clients of one thread and one connection each, 0 is one.
	Connections int
	Peers       []string
}

var jobs = []job{
	{Name: "randread 4k QD1", Args: []string{"--rw=randread", "--bs=4k", "--iodepth=1"}, Peers: rawPeers},
	{Name: "randread 4k QD32", Args: []string{"--rw=randread", "--bs=4k", "--iodepth=32"}, Peers: rawPeers},
	{Name: "randread 4k 4xQD8", Args: []string{"--rw=randread", "--bs=4k", "--iodepth=8"}, Connections: 4, Peers: rawPeers},
	{Name: "randwrite 4k QD32", Args: []string{"--rw=randwrite", "--bs=4k", "--iodepth=32"}, Peers: rawPeers},
	{Name: "read 1m QD8", Args: []string{"--rw=read", "--bs=1m", "--iodepth=8"}, Bytes: true, Peers: rawPeers},
	{Name: "write 1m QD8", Args: []string{"--rw=write", "--bs=1m", "--iodepth=8"}, Bytes: true, Peers: rawPeers},
	{Name: "mixed 70/30 4k 4xQD16", Args: []string{"--rw=randrw", "--rwmixread=70", "--bs=4k", "--iodepth=16"}, Connections: 4, Peers: rawPeers},
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

func main() {
	pairs := flag.Int("pairs", 5, "measured `pairs` of each job and peer")
	seconds := flag.Int("seconds", 3, "`seconds` of each run")
	var only, peers regexp.Regexp
	flag.TextVar(&only, "only", regexp.MustCompile(""), "only the jobs whose name matches `REGEXP`")
	flag.TextVar(&peers, "peers", regexp.MustCompile(""), "only the peers whose name matches `REGEXP`")
	bin := flag.String("bin", "bin", "`folder` of the programs")
	out := flag.String("json", "", "`file` for each run (default tests/bench/out/bench.json; or moving.json, scale.json, remote.json)")
	dir := flag.String("dir", "", "`folder` for the files (default: a temporary one)")
	old := flag.String("old", "", "instead of peers, the programs of another revision in `FOLDER`, and its engine's benchmarks if engine.test is there")
	rate := flag.Int64("moving", 0, "instead, what a client waits while chunks move at so many `BYTES` a second")
	large := flag.Bool("scale", false, "instead, what many components, connections and volumes, and a large one, cost beside one of each")
	exports := flag.String("remote", "", "instead, a volume on the exports with these `URIs`, separated by commas, beside the first of them used directly (what they hold is lost); or memory: on nbdkit's memory plugin")
	flag.Parse()
	if *pairs < 1 || *seconds < 1 {
		fmt.Fprintln(os.Stderr, "bench: -pairs and -seconds are at least 1")
		os.Exit(2)
	}
	name, measure := "bench", func(b *bench, r *record) error { return b.compare(r, *pairs, &only, &peers, *old) }
	switch {
	case *exports != "":
		name, measure = "remote", func(b *bench, r *record) error { return b.remote(r, *pairs, &only, *exports) }
	case *large:
		name, measure = "scale", func(b *bench, r *record) error { return b.scale(r, *pairs) }
	case *rate > 0:
		name, measure = "moving", func(b *bench, r *record) error { return b.moving(r, *pairs, *rate) }
	}
	if err := sitting(*bin, *dir, cmp.Or(*out, filepath.Join("tests/bench/out", name+".json")), *seconds, measure); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// compare measures the jobs that are wanted beside the peers that are wanted, or beside the
// programs of another revision in the folder old.
func (b *bench) compare(r *record, pairs int, only, peers *regexp.Regexp, old string) (err error) {
	b.old = old
	for _, j := range jobs {
		if !only.MatchString(j.Name) {
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
			if !peers.MatchString(peer) {
				continue
			}
			on := func(server string) func() (result, error) {
				return func() (result, error) { return b.measure(j, server) }
			}
			ours, theirs, err := r.inPairs(j.Name+" vs "+peer, pairs, on("gvirstor"), on(peer))
			if err != nil {
				return err
			}
			report(os.Stdout, j, peer, ours, theirs)
		}
	}
	if old != "" {
		r.Engine, err = compareEngines(os.Stdout, pairs, only, b.bin, old)
	}
	return err
}

// report prints the medians of one job against one peer.
func report(w *os.File, j job, peer string, ours, theirs []result) {
	unit, div := "op/s", 1.0
	if j.Bytes {
		unit, div = "MiB/s", 1<<20
	}
	rate, cpu := func(r result) float64 { return r.Rate / div }, func(r result) float64 { return r.CPU }
	our, their := each(ours, rate), each(theirs, rate)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "%-32s\t%-9s\tours %.0f\ttheirs %.0f %s\tratio %s\tCPU s/GiB %.2f / %.2f\t%s\n", j.Name, peer, median(our), median(their), unit,
		spread(ratios(our, their)), median(each(ours, cpu)), median(each(theirs, cpu)), busy(ours, theirs))
	t.Flush()
}
