package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ondisk"
)

// topOptions are those of top.
type topOptions struct {
	interval int64 // seconds
	count    int64 // of pictures; 0: until it is interrupted
}

func topCommand() *command {
	o := topOptions{interval: defaultInterval}
	return &command{
		name:     "top",
		brief:    "Shows what volumes are doing, in place",
		also:     "iostat gstat iotop",
		operands: "[--interval seconds] [--count n] [name ...]",
		options: func(f *options) {
			f.number(&o.interval, "", "interval")
			f.number(&o.count, "", "count")
		},
		run: func(ctx context.Context, c *call) error { return c.top(ctx, o) },
		about: `Shows for each volume and second how many reads, writes and flushes ended,
how much they moved and how long they took in the mean and for 99 of 100, writes
that wait for space, how much is free, and the running job: of the last
--interval seconds (1), until it is interrupted or --count pictures were shown.
On a terminal in place. Times are of one read or write in 16, a power of two for
99 of 100.`,
		example: "gvirstor top mydata",
	}
}

func (c *call) top(ctx context.Context, o topOptions) error {
	if o.interval < 1 || o.interval > 24*60*60 {
		return &usageError{"--interval takes 1 to 86400 seconds"}
	}
	client, err := c.connect()
	if err != nil {
		return err
	}
	defer client.Close()
	before, err := c.readStatus(ctx, client, &statusOptions{})
	if err != nil {
		return err
	}
	began := time.Now()
	tick := time.NewTicker(time.Duration(o.interval) * time.Second)
	defer tick.Stop()
	for shown := int64(0); o.count == 0 || shown < o.count; shown++ {
		select {
		case <-ctx.Done():
			return nil // interrupted, which is how it ends
		case <-tick.C:
		}
		now, err := c.readStatus(ctx, client, &statusOptions{})
		if errors.Is(err, context.Canceled) || ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		at := time.Now()
		var picture bytes.Buffer
		if err := printTop(&picture, before, now, at.Sub(began)); err != nil {
			return failf("Can't show the status: %w", err)
		}
		if err := c.showPicture(&picture, shown == 0); err != nil {
			return err
		}
		before, began = now, at
	}
	return nil
}

// printTop prints what happened between two statuses, which are so far apart.
func printTop(w io.Writer, before, now control.Status, apart time.Duration) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "Volume\tReads/s\tMoved/s\tMean\t99%\tWrites/s\tMoved/s\tMean\t99%\tFlushes/s\tMean\tHeld\tFree\tJob")
	for i := range now.Volumes {
		v := &now.Volumes[i]
		var was control.VolumeStatus
		for _, b := range before.Volumes {
			if b.ID == v.ID {
				was = b
			}
		}
		read, write, flush := rateOf(was, v, "read", apart), rateOf(was, v, "write", apart), rateOf(was, v, "flush", apart)
		job := "-"
		if v.Job != nil {
			job = v.Job.Progress()
		}
		fmt.Fprintf(t, "%s\t%.0f\t%s\t%s\t%s\t%.0f\t%s\t%s\t%s\t%.0f\t%s\t%d\t%d%%\t%s\n", ondisk.Printable(v.Name),
			read.requests, humanize(int64(read.bytes)), shortTime(read.mean), shortTime(read.most),
			write.requests, humanize(int64(write.bytes)), shortTime(write.mean), shortTime(write.most),
			flush.requests, shortTime(flush.mean), v.Held.Count, v.FreePercent(), ondisk.Printable(job))
	}
	return t.Flush()
}

// opRate is what requests of one kind did, a second.
type opRate struct {
	requests, bytes float64
	mean, most      time.Duration // 0: none was timed; most is what 99 of 100 took at most
}

func rateOf(was control.VolumeStatus, v *control.VolumeStatus, op string, apart time.Duration) opRate {
	before, now := was.Operations[op], v.Operations[op]
	if now.Requests < before.Requests { // it was opened again meanwhile
		before = control.OpStatus{}
	}
	r := opRate{requests: float64(now.Requests-before.Requests) / apart.Seconds(), bytes: float64(now.Bytes-before.Bytes) / apart.Seconds()}
	fresh, timed := make([]uint64, len(now.Buckets)), uint64(0)
	for i, n := range now.Buckets {
		if i < len(before.Buckets) {
			n -= before.Buckets[i]
		}
		fresh[i] = n
		timed += n
	}
	if timed == 0 {
		return r
	}
	r.mean = time.Duration((now.Nanoseconds - before.Nanoseconds) / timed)
	left := timed - timed/100
	for i, n := range fresh {
		if n >= left {
			r.most = time.Duration(uint64(1) << i)
			break
		}
		left -= n
	}
	return r
}

// shortTime is a time in few characters, - for none.
func shortTime(d time.Duration) string {
	switch {
	case d == 0:
		return "-"
	case d < time.Millisecond:
		return fmt.Sprintf("%dus", d.Microseconds())
	case d < 10*time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	}
	return fmt.Sprintf("%ds", int64(d.Seconds()))
}
