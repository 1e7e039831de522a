package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

// size is how large a daemon is.
type size struct {
	name        string
	components  int
	virtual     string // as label takes it
	connections int
	volumes     int // of one component each, but for the first
}

var sizes = []size{
	{"1 component, 1 TiB, 1 connection, 1 volume", 1, "1t", 1, 1},
	{"400 components", 400, "1t", 1, 1},
	{"1 PiB", 1, "1p", 1, 1},
	{"64 connections", 1, "1t", 64, 1},
	{"32 volumes", 1, "1t", 1, 32},
	{"all of it", 400, "1p", 64, 32},
}

// scaleData is how much of the first volume is allocated, and read.
const scaleData = 256 << 20

// figures are what a daemon of some size costs.
type figures struct {
	Size     string  `json:"size"`
	Round    int     `json:"round"`
	Open     float64 `json:"open_ms"`      // from its start until a client is served
	Resident float64 `json:"resident_mib"` // at the end
	QD1      float64 `json:"qd1_us"`       // that the median read of 4 KiB took
	QD32     float64 `json:"qd32_us"`
}

// scale measures the sizes of a daemon in turn, and prints medians, and of the ratios to the
// first size the smallest and largest too. One round to warm up is not counted, and each
// begins with another size.
func (b *bench) scale(r *record, rounds int) error {
	all := make([][]figures, len(sizes))
	for round := -1; round < rounds; round++ {
		for _, i := range rotation(len(sizes), round) {
			f, err := b.sized(sizes[i])
			if err != nil {
				return fmt.Errorf("%s: %w", sizes[i].name, err)
			}
			if f.Size, f.Round = sizes[i].name, round; round >= 0 {
				all[i], r.Results = append(all[i], f), append(r.Results, f)
			}
		}
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\topen ms\tMiB\tQD1 µs\tratio\tQD32 µs\tratio\t")
	open, resident := func(f figures) float64 { return f.Open }, func(f figures) float64 { return f.Resident }
	qd1, qd32 := func(f figures) float64 { return f.QD1 }, func(f figures) float64 { return f.QD32 }
	for i, s := range sizes {
		of := func(value func(figures) float64) float64 { return median(each(all[i], value)) }
		ratio := func(value func(figures) float64) string {
			return spread(ratios(each(all[i], value), each(all[0], value)))
		}
		fmt.Fprintf(w, "%s\t%.0f\t%.0f\t%.0f\t%s\t%.0f\t%s\t\n", s.name, of(open), of(resident), of(qd1), ratio(qd1), of(qd32), ratio(qd32))
	}
	return w.Flush()
}

// rotation is the order of n things in a round, of which the first is -1: each is first, and
// each is last, in every nth.
func rotation(n, round int) (order []int) {
	for i := range n {
		order = append(order, (i+round+1)%n)
	}
	return order
}

// sized measures a daemon on fresh files.
func (b *bench) sized(s size) (f figures, err error) {
	dir, err := os.MkdirTemp(b.dir, "scale")
	if err != nil {
		return f, err
	}
	defer os.RemoveAll(dir)
	var files []string
	for v := range s.volumes {
		components, virtual := 1, "1t"
		if v == 0 {
			components, virtual = s.components, s.virtual
		}
		var own []string
		for c := range components {
			file, size := filepath.Join(dir, fmt.Sprintf("%d.%d", v, c)), int64(4<<30) // as large as any map
			if c == 0 {
				size *= 2 // which has it
			}
			if err := sparse(file, size); err != nil {
				return f, err
			}
			own = append(own, file)
		}
		args := append([]string{"--control", filepath.Join(dir, "c"), "label", "-s", virtual, fmt.Sprint("vol", v)}, own...)
		if said, err := exec.Command(filepath.Join(b.bin, "gvirstor"), args...).CombinedOutput(); err != nil {
			return f, fmt.Errorf("label: %w: %s", err, said)
		}
		files = append(files, own...)
	}
	uri := "nbd+unix:///vol0?socket=" + filepath.Join(dir, "s")
	start := func() (*exec.Cmd, error) {
		cmd := exec.Command(filepath.Join(b.bin, "ggated-virstor"), append([]string{"--nbd", "unix:" + filepath.Join(dir, "s"),
			"--control", filepath.Join(dir, "c"), "--run-dir", dir, "--backup-dir", "", "--state-dir", "", "--supervise=no"}, files...)...)
		return cmd, cmd.Start()
	}
	end := func(cmd *exec.Cmd) error { return errors.Join(cmd.Process.Signal(syscall.SIGTERM), cmd.Wait()) }
	cmd, err := start()
	if err != nil {
		return f, err
	}
	if err := errors.Join(prepare(uri, scaleData), end(cmd)); err != nil {
		return f, err
	}
	begun := time.Now()
	if cmd, err = start(); err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, end(cmd)) }()
	if err := prepare(uri, 0); err != nil {
		return f, err
	}
	f.Open = float64(time.Since(begun).Microseconds()) / 1000
	for range s.connections - 1 {
		c, err := dial(uri)
		if err != nil {
			return f, err
		}
		defer c.Abort()
		if _, err := c.ReadAt(make([]byte, 4096), 0); err != nil {
			return f, err
		}
	}
	one, err := b.wait(uri, scaleData, "randread", 1)
	if err != nil {
		return f, err
	}
	many, err := b.wait(uri, scaleData, "randread", 32)
	if err != nil {
		return f, err
	}
	f.QD1, f.QD32 = one.Read50, many.Read50
	f.Resident, err = residentMiB(cmd.Process.Pid)
	return f, err
}

// residentMiB is what a process has in memory, without the pages of its program and of
// files.
func residentMiB(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			kb, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kb / 1024, err
		}
	}
	return 0, errors.New("the system does not tell what a process has in memory")
}
