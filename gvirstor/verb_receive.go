package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/gvirstor/gvirstor/geomlib/virstor/stream"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ondisk"
)

func receiveCommand() *command {
	var w where
	var o receiveOptions
	return &command{
		name:     "receive",
		brief:    "Makes a snapshot of a stream",
		also:     "recv",
		operands: "[-fnv] " + whereUsage + " name | name/vol",
		verbose:  true,
		options: func(f *options) {
			f.flag(&o.force, "f", "force")
			f.flag(&o.dryRun, "n", "dry-run")
			w.declare(f)
		},
		run: func(ctx context.Context, c *call) error { return c.receive(ctx, &w, o) },
		about: `Reads what send writes from the standard input into a volume, and takes the
snapshot under the same name when all of it is there. A full stream needs an
empty volume without snapshots; a further volume that is not there is made. One
that builds on an older snapshot needs that as the newest one, received or sent
before, and nothing written since. Nobody else can write to the volume
meanwhile. When the stream is cut off, or damaged, what was received stays as a
snapshot whose name send --resume takes.

-f          a full stream into a volume that is not empty: what it holds is lost
-n          only tell whether the stream fits, and what would be lost` + whereHelp,
		example: "gvirstor receive copy",
	}
}

// receiveOptions are those of receive.
type receiveOptions struct{ force, dryRun bool }

func (c *call) receive(ctx context.Context, w *where, o receiveOptions) error {
	if len(c.operands) != 1 {
		return c.wrongNumber()
	}
	if c.typed() {
		return failf("Can't receive from a terminal: a stream is to be the standard input")
	}
	volume := c.operands[0]
	if _, own := control.SplitName(volume); own != "" {
		if err := checkOwnName(own); err != nil {
			return err
		}
	}
	in, err := stream.NewReader(endsWith(ctx, c.stdin))
	if err != nil {
		return failf("Can't receive into %s: %w", ondisk.Printable(volume), err)
	}
	return c.withPool(ctx, volume, w, changing(o.dryRun), func(b *backend) error {
		r := &receiver{call: c, v: b, volume: volume, in: in, at: in.Start().From}
		r.fresh = r.isFresh(&b.volume)
		if err := r.begin(ctx, o); err != nil {
			return failf("Can't receive into %s: %w", volume, err)
		}
		if o.dryRun {
			r.tellPlan()
			return nil
		}
		err := c.onStderr().work("receive", volume, false, func(progress func(done, total int64)) error {
			return r.run(ctx, progress)
		})
		if err != nil {
			return failf("Can't receive into %s: %w", volume, r.keep(err))
		}
		if c.verbose {
			fmt.Fprintf(c.stdout, "%s@%s: received\n", volume, in.Start().Snapshot)
		}
		return nil
	})
}

// errInterrupted ends what reads a stream.
var errInterrupted = errors.New("interrupted")

// endsWith is r, which fails once ctx ends. Who reads r then, and cannot be woken, ends with
// the program.
func endsWith(ctx context.Context, r io.Reader) io.Reader {
	out, in := io.Pipe()
	context.AfterFunc(ctx, func() { _ = in.CloseWithError(errInterrupted) })
	go func() {
		_, err := io.Copy(in, r)
		_ = in.CloseWithError(err) // nil is the end
	}()
	return out
}

// receiver receives a stream.
type receiver struct {
	*call
	v      control.Verbs
	volume string
	in     *stream.Reader
	begun  control.ReceiveResult
	mark   string // the snapshot from which it goes on, or empty
	at     int64  // all before was received, bytes
	fresh  bool   // the volume is made for it
}

// isFresh reports whether the volume is a further one of pool that is not there, and the
// stream has all of it.
func (r *receiver) isFresh(pool *control.VolumeStatus) bool {
	_, own := control.SplitName(r.volume)
	s := r.in.Start()
	return own != "" && s.Base == 0 && s.From == 0 &&
		!slices.ContainsFunc(pool.Volumes, func(v control.PoolVolume) bool { return v.Name == own })
}

// begin has the volume taken for the stream, if that fits.
func (r *receiver) begin(ctx context.Context, o receiveOptions) (err error) {
	s := r.in.Start()
	if r.fresh {
		if _, err := r.v.Create(ctx, r.volume, control.CreateRequest{Size: s.Size, DryRun: o.dryRun}); err != nil || o.dryRun {
			return err
		}
	}
	q := control.ReceiveRequest{Snapshot: s.Snapshot, GUID: s.GUID, Base: s.Base, Size: s.Size, Force: o.force, DryRun: o.dryRun}
	if s.From > 0 {
		r.mark = markOf(s.GUID, s.From)
		q.Mark = r.mark
	}
	if r.begun, err = r.v.Receive(ctx, r.volume, q); err != nil {
		return errors.Join(err, r.unmake())
	}
	return nil
}

// unmake deletes the volume that was made for a stream of which nothing came.
func (r *receiver) unmake() error {
	if !r.fresh {
		return nil
	}
	_, err := r.v.Delete(context.Background(), r.volume, control.DeleteRequest{})
	return err
}

// tellPlan tells what would be done.
func (r *receiver) tellPlan() {
	s := r.in.Start()
	from := "a full stream"
	if s.Base != 0 {
		from = "what has changed since @" + s.Older
	}
	fmt.Fprintf(r.stdout, "%s@%s would be received: %s of %s@%s, %d bytes large; %d bytes of chunks would be lost\n",
		r.volume, s.Snapshot, from, s.Volume, s.Snapshot, s.Size, r.begun.Lost)
}

// inFlight is how many records are written at a time.
const inFlight = 8

// run writes what comes, and takes the snapshot when that was all.
func (r *receiver) run(ctx context.Context, progress func(done, total int64)) error {
	s := r.in.Start()
	for ended := false; !ended; progress(r.at, s.Size) {
		batch, err := r.next()
		ended = errors.Is(err, io.EOF)
		if written := r.write(ctx, batch); written != nil {
			return written
		}
		if err != nil && !ended {
			return err
		}
	}
	if err := r.v.Write(ctx, r.volume, control.WriteRequest{Claim: r.begun.Claim, Offset: s.Size, Length: r.begun.Size - s.Size}); err != nil {
		return err
	}
	_, err := r.v.Snapshot(ctx, r.volume, control.SnapshotRequest{Snapshot: s.Snapshot, GUID: s.GUID, Claim: r.begun.Claim})
	if err != nil {
		return err
	}
	r.dropMark(ctx)
	return nil
}

// next reads some records, those before an error, too.
func (r *receiver) next() (batch []control.WriteRequest, err error) {
	for len(batch) < inFlight {
		rec, err := r.in.Next()
		if err != nil {
			return batch, err
		}
		w := control.WriteRequest{Claim: r.begun.Claim, Offset: rec.Offset, Length: rec.Length}
		if rec.Data != nil {
			w.Data = append([]byte(nil), rec.Data...)
		}
		batch = append(batch, w)
	}
	return batch, nil
}

// write writes records at once, and notes how far all was received.
func (r *receiver) write(ctx context.Context, batch []control.WriteRequest) error {
	failed := make(chan error, len(batch))
	for _, w := range batch {
		go func() { failed <- r.v.Write(ctx, r.volume, w) }()
	}
	var err error
	for range batch {
		err = errors.Join(err, <-failed)
	}
	if err == nil && len(batch) > 0 {
		last := batch[len(batch)-1]
		r.at = last.Offset + last.Length
	}
	return err
}

// keep leaves how far a stream was received that failed with err, as a snapshot, and says
// how to go on. It is done even when whoever asked goes away.
func (r *receiver) keep(err error) error {
	ctx := context.Background()
	s := r.in.Start()
	if r.at == s.From { // nothing has come of what there was not before
		_ = r.v.Write(ctx, r.volume, control.WriteRequest{Claim: r.begun.Claim, Last: true}) // else it lapses
		if r.mark == "" {
			return errors.Join(fmt.Errorf("%w; nothing was received", err), r.unmake())
		}
		return fmt.Errorf("%w; go on with `%s`", err, r.resume(r.mark))
	}
	mark := markOf(s.GUID, r.at)
	if _, failed := r.v.Snapshot(ctx, r.volume, control.SnapshotRequest{Snapshot: mark, Claim: r.begun.Claim}); failed != nil {
		return fmt.Errorf("%w; and how far it was received cannot be kept (%w): begin anew", err, failed)
	}
	r.dropMark(ctx)
	return fmt.Errorf("%w; go on with `%s`", err, r.resume(mark))
}

// resume is the command that sends what is missing.
func (r *receiver) resume(mark string) string {
	s := r.in.Start()
	base := ""
	if s.Base != 0 {
		base = "-i @" + s.Older + " "
	}
	return fmt.Sprintf("gvirstor send %s--resume %s %s@%s", base, mark, ondisk.Printable(s.Volume), s.Snapshot)
}

// dropMark deletes the mark from which it went on, which nobody needs any more.
func (r *receiver) dropMark(ctx context.Context) {
	if r.mark == "" {
		return
	}
	if _, err := r.v.Delete(ctx, r.volume, control.DeleteRequest{Snapshot: r.mark}); err != nil {
		r.warn(fmt.Sprintf("%s@%s, which is of no use any more, stays: %v", r.volume, r.mark, err))
	}
}
