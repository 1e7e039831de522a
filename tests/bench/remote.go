package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdclient"
)

// remoteJobs are what a client does with an export of NBD, used directly and as a component.
var remoteJobs = []job{
	{Name: "randread 4k QD16", Args: []string{"--rw=randread", "--bs=4k", "--iodepth=16"}},
	{Name: "randwrite 4k QD16", Args: []string{"--rw=randwrite", "--bs=4k", "--iodepth=16"}},
	{Name: "randwrite 4k QD16, flush/64", Args: []string{"--rw=randwrite", "--bs=4k", "--iodepth=16", "--fsync=64"}},
}

// remoteMemory is nbdkit's memory plugin, in the place of a URI.
const remoteMemory = "memory"

// remote measures exports of NBD used directly, and a volume that lies on the same ones:
// URIs, separated by commas, or "memory". What they hold is lost. It prints medians, the
// ratios pair by pair, and what the way through the daemon costs of processor time.
func remote(pairs, seconds int, only, uris, bin, dir string) error {
	wanted, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	b, err := newBench(bin, dir, seconds)
	if err != nil {
		return err
	}
	defer b.close()
	exports := strings.Split(uris, ",")
	if uris == remoteMemory {
		socket := filepath.Join(b.dir, "memory")
		server := exec.Command("nbdkit", "-f", "-U", socket, "memory", fmt.Sprint(2*diskSize))
		if err := server.Start(); err != nil {
			return err
		}
		defer func() {
			_ = server.Process.Signal(syscall.SIGTERM)
			_ = server.Wait() // it was ended
		}()
		exports = []string{"nbd+unix:///?socket=" + socket}
	}
	size, err := remoteSize(exports)
	if err != nil {
		return err
	}
	fmt.Println(thisMachine())
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	for _, j := range remoteJobs {
		if !wanted.MatchString(j.Name) {
			continue
		}
		var ours, directly, cpu, ratios []float64
		for pair := -1; pair < pairs; pair++ { // one pair warms up
			var r, d result
			through := func() error { r, err = b.through(j, exports, size); return err }
			direct := func() error { d, err = b.directly(j, exports[0], size); return err }
			turns := []func() error{through, direct}
			if pair%2 != 0 {
				slices.Reverse(turns)
			}
			for _, turn := range turns {
				if err := turn(); err != nil {
					return fmt.Errorf("%s: %w", j.Name, err)
				}
			}
			if pair >= 0 {
				ours, directly, cpu, ratios = append(ours, r.Rate), append(directly, d.Rate), append(cpu, r.CPU), append(ratios, r.Rate/d.Rate)
			}
		}
		fmt.Fprintf(w, "%s\tthrough gvirstor %.0f\tdirectly %.0f op/s\tratio %.2f (%.2f–%.2f)\tthe extra hop %.2f (%.2f–%.2f) CPU s/GiB\n", j.Name,
			median(ours), median(directly), median(ratios), slices.Min(ratios), slices.Max(ratios), median(cpu), slices.Min(cpu), slices.Max(cpu))
		if err := w.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// remoteSize is how much of each export is used, bytes: all but what the volume needs for
// itself.
func remoteSize(exports []string) (size int64, err error) {
	size = diskSize
	for _, uri := range exports {
		if err := prepare(uri, 0); err != nil { // which waits for a server that begins
			return 0, err
		}
		c, err := dial(uri)
		if err != nil {
			return 0, err
		}
		size = min(size, int64(c.Info().Size)*3/4>>22<<22)
		c.Abort()
	}
	return size, nil
}

// directly measures an export that nothing else uses.
func (b *bench) directly(j job, uri string, size int64) (result, error) {
	if err := prepare(uri, size); err != nil {
		return result{}, err
	}
	r, _, err := b.fio(j, uri, size)
	return r, err
}

// through measures a fresh volume on exports.
func (b *bench) through(j job, exports []string, size int64) (r result, err error) {
	dir, err := os.MkdirTemp(b.dir, "remote")
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(dir)
	here := []string{"--run-dir", dir}
	label := exec.Command(filepath.Join(b.bin, "gvirstor"), slices.Concat([]string{"--control", filepath.Join(dir, "c"), "label", "-f", "-s", "8g"}, here, []string{"vol"}, exports)...)
	if said, err := label.CombinedOutput(); err != nil {
		return r, fmt.Errorf("label: %w: %s", err, said)
	}
	uri := "nbd+unix:///vol?socket=" + filepath.Join(dir, "s")
	daemon := exec.Command(filepath.Join(b.bin, "ggated-virstor"), slices.Concat([]string{"--nbd", "unix:" + filepath.Join(dir, "s"), "--control", filepath.Join(dir, "c"),
		"--backup-dir", "", "--state-dir", "", "--supervise=no"}, here, exports)...)
	if err := daemon.Start(); err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, daemon.Process.Signal(syscall.SIGTERM), daemon.Wait()) }()
	if err := prepare(uri, size); err != nil {
		return r, err
	}
	before, err := cpuSeconds(daemon.Process.Pid)
	if err != nil {
		return r, err
	}
	r, moved, err := b.fio(j, uri, size)
	if err != nil {
		return r, err
	}
	after, err := cpuSeconds(daemon.Process.Pid)
	r.CPU = (after - before) / (cmp.Or(moved, 1) / (1 << 30))
	return r, err
}

// dial connects to an export.
func dial(uri string) (*nbdclient.Conn, error) {
	return nbdclient.Dial(context.Background(), uri, nbdclient.Options{})
}
