package main

import (
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
func (b *bench) remote(r *record, pairs int, only *regexp.Regexp, uris string) error {
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
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	for _, j := range remoteJobs {
		if !only.MatchString(j.Name) {
			continue
		}
		ours, directly, err := r.inPairs(j.Name, pairs,
			func() (result, error) { return b.through(j, exports, size) },
			func() (result, error) { return b.directly(j, exports[0], size) })
		if err != nil {
			return err
		}
		rate, cpu := func(r result) float64 { return r.Rate }, func(r result) float64 { return r.CPU }
		through, direct := each(ours, rate), each(directly, rate)
		fmt.Fprintf(w, "%s\tthrough gvirstor %.0f\tdirectly %.0f op/s\tratio %s\tthe extra hop %s CPU s/GiB\t%s\n", j.Name,
			median(through), median(direct), spread(ratios(through, direct)), spread(each(ours, cpu)), busy(ours, directly))
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
	r, err := b.fio(j, uri, size, 0)
	r.Server = "directly"
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
	r, err = b.fio(j, uri, size, daemon.Process.Pid)
	r.Server = "through gvirstor"
	return r, err
}

// dial connects to an export.
func dial(uri string) (*nbdclient.Conn, error) {
	return nbdclient.Dial(context.Background(), uri, nbdclient.Options{})
}
