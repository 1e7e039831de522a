package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"text/tabwriter"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

// movingData is how much of the disk is allocated, spread over three files: a
// third of it moves.
const movingData = 768 << 20

// latencies are what a client waited, in microseconds, with its volume left
// alone and while a component is evacuated.
type latencies struct {
	Pair   int         `json:"pair"`
	Idle   percentiles `json:"idle"`
	Moving percentiles `json:"moving"`
	Rate   int64       `json:"moved_bytes_per_second"`
}

type percentiles struct {
	Read50  float64 `json:"read_p50_us"`
	Read99  float64 `json:"read_p99_us"`
	Write50 float64 `json:"write_p50_us"`
	Write99 float64 `json:"write_p99_us"`
}

// moving measures what a throttled move of chunks costs a client that reads and
// writes 4 KiB here and there, and prints medians over the pairs, of the
// ratios too. One pair to warm up is not counted.
func (b *bench) moving(r *record, pairs int, rate int64) error {
	var all []latencies
	for pair := -1; pair < pairs; pair++ {
		l, err := b.movePair(rate)
		if err != nil {
			return err
		}
		if l.Pair = pair; pair >= 0 {
			all, r.Results = append(all, l), append(r.Results, l)
		}
	}
	fmt.Printf("randrw 4k QD4 during evacuate --rate %d (%.0f MiB/s reached)\n", rate,
		median(each(all, func(l latencies) float64 { return float64(l.Rate) }))/(1<<20))
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tidle µs\tmoving µs\tratio\t")
	for _, row := range []struct {
		name string
		of   func(percentiles) float64
	}{
		{"read p50", func(p percentiles) float64 { return p.Read50 }},
		{"read p99", func(p percentiles) float64 { return p.Read99 }},
		{"write p50", func(p percentiles) float64 { return p.Write50 }},
		{"write p99", func(p percentiles) float64 { return p.Write99 }},
	} {
		idle := each(all, func(l latencies) float64 { return row.of(l.Idle) })
		moving := each(all, func(l latencies) float64 { return row.of(l.Moving) })
		fmt.Fprintf(w, "%s\t%.0f\t%.0f\t%s\t\n", row.name, median(idle), median(moving), spread(ratios(moving, idle)))
	}
	return w.Flush()
}

// movePair measures a fresh volume at rest and then being evacuated.
func (b *bench) movePair(rate int64) (l latencies, err error) {
	dir, err := os.MkdirTemp(b.dir, "moving")
	if err != nil {
		return l, err
	}
	defer os.RemoveAll(dir)
	files := []string{filepath.Join(dir, "0"), filepath.Join(dir, "1"), filepath.Join(dir, "2")}
	for _, f := range files {
		if err := sparse(f, movingData*3/4); err != nil {
			return l, err
		}
	}
	socket := filepath.Join(dir, "c")
	label := exec.Command(filepath.Join(b.bin, "gvirstor"), append([]string{"--control", socket, "label", "-s", "8g", "vol"}, files...)...)
	if said, err := label.CombinedOutput(); err != nil {
		return l, fmt.Errorf("label: %w: %s", err, said)
	}
	cmd := exec.Command(filepath.Join(b.bin, "ggated-virstor"), append([]string{"--nbd", "unix:" + filepath.Join(dir, "s"),
		"--control", socket, "--run-dir", dir, "--supervise=no", "--alloc", "spread"}, files...)...)
	if err := cmd.Start(); err != nil {
		return l, err
	}
	defer func() {
		err = errors.Join(err, cmd.Process.Signal(syscall.SIGTERM), cmd.Wait())
	}()
	uri := "nbd+unix:///vol?socket=" + filepath.Join(dir, "s")
	if err := prepare(uri, movingData); err != nil {
		return l, err
	}
	if l.Idle, err = b.wait(uri, movingData, "randrw", 4); err != nil {
		return l, err
	}
	client, err := control.Dial(socket)
	if err != nil {
		return l, err
	}
	defer client.Close()
	ctx := context.Background()
	args, err := json.Marshal(control.JobArgs{Providers: files[1:2], Rate: rate})
	if err != nil {
		return l, err
	}
	j, err := client.StartJob(ctx, "vol", control.JobRequest{Kind: "evacuate", Args: args})
	if err != nil {
		return l, err
	}
	if l.Moving, err = b.wait(uri, movingData, "randrw", 4); err != nil {
		return l, err
	}
	if j, err = client.Job(ctx, j.ID); err != nil {
		return l, err
	}
	if j.State != control.JobRunning {
		return l, fmt.Errorf("the evacuation %s before the measurement was over: take a lower rate", j.State)
	}
	l.Rate = j.Rate
	_, err = client.CancelJob(ctx, j.ID)
	return l, err
}

// wait runs a client of the first size bytes and tells how long it waited.
func (b *bench) wait(uri string, size int64, rw string, depth int) (percentiles, error) {
	text, err := runFio("--name=j", "--ioengine=nbd", "--uri="+uri, fmt.Sprintf("--size=%d", size), "--rw="+rw, "--bs=4k",
		fmt.Sprintf("--iodepth=%d", depth), "--time_based", fmt.Sprintf("--runtime=%d", b.seconds), "--output-format=json", "--randrepeat=1")
	if err != nil {
		return percentiles{}, err
	}
	type direction struct {
		Clat struct {
			Percentile map[string]float64 `json:"percentile"`
		} `json:"clat_ns"`
	}
	var parsed struct {
		Jobs []struct{ Read, Write direction }
	}
	if err := json.Unmarshal(text, &parsed); err != nil {
		return percentiles{}, fmt.Errorf("fio's JSON: %w", err)
	}
	if len(parsed.Jobs) != 1 {
		return percentiles{}, fmt.Errorf("fio reports %d jobs", len(parsed.Jobs))
	}
	us := func(d direction, which string) float64 { return d.Clat.Percentile[which] / 1000 }
	r, w := parsed.Jobs[0].Read, parsed.Jobs[0].Write
	const p50, p99 = "50.000000", "99.000000"
	return percentiles{us(r, p50), us(r, p99), us(w, p50), us(w, p99)}, nil
}
