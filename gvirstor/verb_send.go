package main

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/gvirstor/gvirstor/geomlib/virstor/stream"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ondisk"
)

func sendCommand() *command {
	var w where
	var o sendOptions
	return &command{
		name:     "send",
		brief:    "Writes a snapshot as a stream",
		operands: "[-n [--json]] [-i @snap] [--resume mark] " + whereUsage + " name@snap",
		options: func(f *options) {
			f.flag(&o.dryRun, "n", "dry-run")
			f.flag(&o.json, "", "json")
			f.letterText(&o.base, "i", "incremental")
			f.text(&o.mark, "resume")
			w.declare(f)
		},
		run: func(ctx context.Context, c *call) error { return c.send(ctx, &w, o) },
		about: `Writes what a snapshot holds to the standard output, as a stream that receive
makes a snapshot of the same name of, here or on another host, whatever its
chunks and components are. What is not allocated takes no room in it.

-i @snap    only what has changed since that older snapshot of the same volume,
            which whoever receives it must have
--resume mark
            go on where receive says that it was cut off
-n          only tell how much it would be at most
--json      tell that as an object` + whereHelp,
		example: "gvirstor send -i @monday mydata@tuesday | ssh host gvirstor receive copy",
	}
}

// sendOptions are those of send.
type sendOptions struct {
	dryRun, json bool
	base         string // "@" and a name, or empty: all
	mark         string // where to go on, or empty
}

// sendPlan is what send -n prints in JSON.
type sendPlan struct {
	Volume   string      `json:"volume"`
	Snapshot string      `json:"snapshot"`
	GUID     ondisk.GUID `json:"guid"`
	Base     ondisk.GUID `json:"base,omitempty"` // of the snapshot that it builds on; absent: it is all
	Size     int64       `json:"size"`           // of the volume, bytes
	From     int64       `json:"from"`           // where it goes on, bytes
	Bytes    int64       `json:"bytes"`          // of data at most: zeros are left out
}

// markOf is the snapshot that keeps how far a stream of a snapshot was received: all before
// the offset.
func markOf(guid ondisk.GUID, offset int64) string { return fmt.Sprintf("receive-%v-%x", guid, offset) }

// parseMark takes apart what markOf makes.
func parseMark(mark string) (guid ondisk.GUID, offset int64, err error) {
	rest, ok := strings.CutPrefix(mark, "receive-")
	id, at, two := strings.Cut(rest, "-")
	if guid, err = ondisk.ParseGUID(id); err == nil {
		offset, err = strconv.ParseInt(at, 16, 64)
	}
	if !ok || !two || err != nil || offset < 0 || markOf(guid, offset) != mark {
		return 0, 0, failf("Invalid mark: %s is none of those that receive leaves", ondisk.Printable(mark))
	}
	return guid, offset, nil
}

func (c *call) send(ctx context.Context, w *where, o sendOptions) error {
	volume, name, err := c.snapshotOperand()
	if err != nil {
		return err
	}
	base, ok := strings.CutPrefix(o.base, "@")
	if o.base != "" && (!ok || ondisk.CheckMapName(base) != nil) {
		return failf("Invalid name of a snapshot: -i takes @ and the name of an older snapshot of %s", ondisk.Printable(volume))
	}
	if o.json && !o.dryRun {
		return &usageError{"--json is for -n"}
	}
	if _, _, terminal := c.terminal(); terminal && !o.dryRun {
		return failf("Can't send to a terminal: redirect the standard output")
	}
	return c.withPool(ctx, volume, w, toRead, func(b *backend) error {
		s := &sender{call: c, v: b, volume: volume, request: control.DiffRequest{From: base, To: name}}
		if err := s.find(ctx, name, base, o.mark); err != nil {
			return failf("Can't send %s: %w", c.operands[0], err)
		}
		if o.json {
			return printJSON(c.stdout, sendPlan{volume, name, s.start.GUID, s.start.Base, s.start.Size, s.start.From, s.total})
		}
		if o.dryRun {
			fmt.Fprintf(c.stdout, "%s: %d bytes at most\n", c.operands[0], s.total)
			return nil
		}
		err := c.onStderr().work("send", c.operands[0], false, func(progress func(done, total int64)) error {
			return s.run(ctx, progress)
		})
		if err != nil {
			return failf("Can't send %s: %w", c.operands[0], err)
		}
		return nil
	})
}

// sender sends a snapshot.
type sender struct {
	*call
	v       control.Verbs
	volume  string
	request control.DiffRequest // of what is sent
	id      uint64              // of the snapshot
	start   stream.Start

	total, done int64 // bytes to be read, and read
}

// find looks for the snapshots, and how much there is to send.
func (s *sender) find(ctx context.Context, name, base, mark string) error {
	all, err := s.v.Snapshots(ctx, s.volume)
	if err != nil {
		return err
	}
	snap, err := s.snapshot(all, name)
	if err != nil {
		return err
	}
	s.id = snap.ID
	s.start = stream.Start{GUID: snap.GUID, Size: snap.Size, Time: snap.Created.Unix(), Volume: s.volume, Snapshot: name, Older: base}
	if base != "" {
		older, err := s.snapshot(all, base)
		if err != nil {
			return err
		}
		s.start.Base = older.GUID
	}
	if mark != "" {
		guid, offset, err := parseMark(mark)
		if err == nil && (guid != snap.GUID || offset > snap.Size) {
			err = fmt.Errorf("%s is the mark of another stream", mark)
		}
		if err != nil {
			return err
		}
		s.start.From, s.request.Offset = offset, offset
	}
	_, err = allDifferences(ctx, s.v, s.volume, s.request, func(r control.DiffRange) error {
		if !r.Hole {
			s.total += r.Length
		}
		return nil
	})
	return err
}

// snapshot is the one of that name, if it can be sent.
func (s *sender) snapshot(all control.Snapshots, name string) (control.Snapshot, error) {
	for _, snap := range all.Snapshots {
		switch {
		case snap.Name != name:
		case snap.Problem != "":
			return snap, fmt.Errorf("%s@%s: %s", s.volume, name, snap.Problem)
		case snap.GUID == 0:
			return snap, fmt.Errorf("%s@%s was taken before snapshots had a GUID: take another one", s.volume, name)
		default:
			return snap, nil
		}
	}
	return control.Snapshot{}, fmt.Errorf("%s@%s: no such snapshot", s.volume, name)
}

// run writes the stream.
func (s *sender) run(ctx context.Context, progress func(done, total int64)) error {
	w, err := stream.NewWriter(s.screen(), s.start)
	if err != nil {
		return err
	}
	_, err = allDifferences(ctx, s.v, s.volume, s.request, func(r control.DiffRange) error {
		if r.Hole {
			return w.Write(stream.Record{Offset: r.Offset, Length: r.Length})
		}
		for off, end := r.Offset, r.Offset+r.Length; off < end; {
			n := min(end-off, control.MaxPiece-off%control.MaxPiece)
			data, err := s.v.Read(ctx, s.volume, control.ReadRequest{Snapshot: s.request.To, ID: s.id, Offset: off, Length: int(n)})
			if err == nil {
				err = s.write(w, off, data.Data)
			}
			if err != nil {
				return err
			}
			off += n
			s.done += n
			progress(s.done, s.total)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return w.Close()
}

// zeroBlock is how much must be zeros to be left out, bytes.
const zeroBlock = 4096

// write writes data to the stream, without what is zeros: nothing of a full one, and a
// record of zeros of one that builds on an older snapshot.
func (s *sender) write(w *stream.Writer, off int64, data []byte) error {
	var zeros [zeroBlock]byte
	isZero := func(b []byte) bool { return bytes.Equal(b, zeros[:len(b)]) }
	for len(data) > 0 {
		n := min(zeroBlock, len(data))
		hole := isZero(data[:n])
		for n < len(data) && isZero(data[n:min(n+zeroBlock, len(data))]) == hole {
			n = min(n+zeroBlock, len(data))
		}
		r := stream.Record{Offset: off, Length: int64(n)}
		if !hole {
			r.Data = data[:n]
		}
		if !hole || s.start.Base != 0 {
			if err := w.Write(r); err != nil {
				return err
			}
		}
		off, data = off+int64(n), data[n:]
	}
	return nil
}
