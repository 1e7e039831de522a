package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ondisk"
)

func snapshotCommand() *command {
	var w where
	var keep int64
	var force, all, dryRun bool
	return &command{
		name:     "snapshot",
		brief:    "Keeps what a volume holds now",
		also:     "snap",
		operands: "[-fnrv] [--keep n] " + whereUsage + " name@snap",
		verbose:  true,
		options: func(f *options) {
			f.flag(&force, "f", "force")
			f.flag(&dryRun, "n", "dry-run")
			f.flag(&all, "r", "recursive")
			f.number(&keep, "", "keep")
			w.declare(f)
		},
		run: func(ctx context.Context, c *call) error {
			return c.snapshot(ctx, &w, keep, control.SnapshotRequest{Force: force, Recursive: all, DryRun: dryRun})
		},
		about: `Keeps what a volume holds now under a name, and returns when that is on stable
storage. Writes go on; what they change takes a chunk of its own from then on.
The name has 1 to 63 letters, digits and . _ - :

-f          even when less space would be left than it takes
-n          only tell what it would take
-r          of all volumes of the pool, at one point
--keep n    the time follows the name, and of the snapshots that are called so
            but for the time, the oldest are deleted until n are left` + whereHelp,
		example: "gvirstor snapshot mydata@monday",
	}
}

func deleteCommand() *command {
	var w where
	var force, dryRun bool
	return &command{
		name:     "delete",
		brief:    "Deletes a snapshot, or a further volume of a pool",
		destroys: true,
		operands: "[-fnv] " + whereUsage + " name@snap | name/vol",
		verbose:  true,
		options: func(f *options) {
			f.flag(&force, "f", "force")
			f.flag(&dryRun, "n", "dry-run")
			w.declare(f)
		},
		run: func(ctx context.Context, c *call) error { return c.deleteSnapshot(ctx, &w, force, dryRun) },
		about: `Deletes a snapshot of a volume, or a further volume that has no snapshots. What
it alone held is lost, and its chunks are free soon after. A snapshot that has
clones stays, and so does what clients have.

-f          do it; without this how much is lost is said, and nothing deleted
-n          only tell how much that is` + whereHelp,
		example: "gvirstor delete -f mydata@monday",
	}
}

// snapshotOperand is the one operand, a volume and its snapshot.
func (c *call) snapshotOperand() (volume, snapshot string, err error) {
	if len(c.operands) != 1 {
		return "", "", c.wrongNumber()
	}
	return parseSnapshot(c.operands[0])
}

// volumeOrSnapshot is the one operand, a snapshot, or a further volume: no snapshot then.
func (c *call) volumeOrSnapshot() (volume, snapshot string, err error) {
	if len(c.operands) != 1 {
		return "", "", c.wrongNumber()
	}
	if strings.Contains(c.operands[0], "@") {
		return parseSnapshot(c.operands[0])
	}
	volume, err = parseFurther(c.operands[0])
	return volume, "", err
}

// snapshotTime is how --keep writes the time, in UTC: in this order names are in that of
// time.
const snapshotTime = "20060102T150405Z"

func (c *call) snapshot(ctx context.Context, w *where, keep int64, r control.SnapshotRequest) error {
	volume, name, err := c.snapshotOperand()
	if err != nil {
		return err
	}
	prefix := name
	if keep < 0 {
		return &usageError{"--keep takes the number of snapshots to be left"}
	}
	if keep > 0 && r.DryRun {
		return &usageError{"-n tells nothing of what --keep would delete"}
	}
	if keep > 0 {
		name += time.Now().UTC().Format(snapshotTime)
		if err := ondisk.CheckMapName(name); err != nil {
			return failf("Invalid name of a snapshot: %w", err)
		}
	}
	return c.withPool(ctx, volume, w, changing(r.DryRun), func(b *backend) error {
		r.Snapshot = name
		res, err := b.Snapshot(ctx, volume, r)
		if err != nil {
			return failf("Can't %w", err)
		}
		if r.DryRun {
			fmt.Fprintf(c.stdout, "%s@%s: would take %d chunks, %d bytes, at most, of %d that are free\n", volume, name, res.Chunks, res.Bytes, res.FreeChunks)
			return nil
		}
		if keep == 0 {
			c.warnScarce(ctx, b, volume, name)
			return nil
		}
		volumes := []string{volume}
		if r.Recursive {
			volumes = append(volumes, furtherNames(&b.volume)...)
		}
		defer c.warnScarce(ctx, b, volume, name)
		var failed error
		for _, volume := range volumes {
			if c.verbose {
				fmt.Fprintf(c.stdout, "%s@%s: taken\n", volume, name)
			}
			failed = errors.Join(failed, c.thin(ctx, b, volume, prefix, int(keep)))
		}
		return failed
	})
}

// warnScarce says so when a snapshot that was taken has left little space: it took more
// than is left, or a tenth is not.
func (c *call) warnScarce(ctx context.Context, b *backend, volume, name string) {
	v, err := b.Volume(ctx, volume)
	if err != nil {
		return // it is taken all the same
	}
	left := v.FreeChunks - v.ReservedChunks
	took := b.volume.FreeChunks - b.volume.ReservedChunks - left
	if left >= took && left*10 >= v.PhysicalChunks {
		return
	}
	c.warn(fmt.Sprintf("warning: %s@%s leaves %d free chunks, %d bytes: each first write to a chunk that it has takes one, and when there is none left writes wait or fail",
		volume, name, left, left*v.ChunkSize))
}

// furtherNames are those of the further volumes of a pool.
func furtherNames(pool *control.VolumeStatus) (names []string) {
	for _, f := range pool.Volumes {
		names = append(names, pool.Name+"/"+f.Name)
	}
	return names
}

// thin deletes the oldest of the snapshots that --keep named with the prefix until keep are
// left. One that cannot be deleted, since clients have it, keeps none of the others.
func (c *call) thin(ctx context.Context, b *backend, volume, prefix string, keep int) error {
	all, err := b.Snapshots(ctx, volume)
	if err != nil {
		return failf("Can't list the snapshots of %s: %w", volume, err)
	}
	var ours []string
	for _, s := range all.Snapshots {
		rest, ok := strings.CutPrefix(s.Name, prefix)
		if _, err := time.Parse(snapshotTime, rest); ok && err == nil {
			ours = append(ours, s.Name)
		}
	}
	slices.Sort(ours)
	var failed error
	for _, name := range ours[:max(0, len(ours)-keep)] {
		if _, err := b.Delete(ctx, volume, control.DeleteRequest{Snapshot: name}); err != nil {
			failed = errors.Join(failed, err)
		} else if c.verbose {
			fmt.Fprintf(c.stdout, "%s@%s: deleted\n", volume, name)
		}
	}
	if failed != nil {
		return failf("Can't %w", failed)
	}
	return nil
}

// deleteSnapshot deletes the snapshot only with force, and says what is lost without.
func (c *call) deleteSnapshot(ctx context.Context, w *where, force, dryRun bool) error {
	volume, name, err := c.volumeOrSnapshot()
	if err != nil {
		return err
	}
	only := dryRun || !force
	return c.withPool(ctx, volume, w, changing(only), func(b *backend) error {
		res, err := b.Delete(ctx, volume, control.DeleteRequest{Snapshot: name, DryRun: only})
		if err != nil {
			return failf("Can't %w", err)
		}
		if !dryRun && !force && name == "" {
			return failf("Can't delete %s: what it alone holds would be lost, %d chunks, %d bytes; with -f it is deleted", c.operands[0], res.Chunks, res.Bytes)
		}
		if !dryRun && !force {
			return failf("Can't delete %s: what it alone holds would be lost, %d chunks, %d bytes; keep that by `gvirstor send %s`, or delete it with -f", c.operands[0], res.Chunks, res.Bytes, c.operands[0])
		}
		if dryRun {
			fmt.Fprintf(c.stdout, "%s: %d chunks, %d bytes, would come free; what it alone holds would be lost\n", c.operands[0], res.Chunks, res.Bytes)
		} else if c.verbose {
			fmt.Fprintf(c.stdout, "%s: %d chunks, %d bytes, come free\n", c.operands[0], res.Chunks, res.Bytes)
		}
		return nil
	})
}

// snapshotList is what list -t snapshot prints in JSON.
type snapshotList struct {
	Snapshots []listedSnapshot `json:"snapshots"` // of each volume the oldest first
}

// listedSnapshot is a snapshot with its volume.
type listedSnapshot struct {
	Volume string `json:"volume"` // its name
	control.Snapshot
}

// listSnapshots lists those of the volumes that are given, or of all in service; with
// --offline of the stopped one.
func (c *call) listSnapshots(ctx context.Context, o *listOptions) error {
	all := []listedSnapshot{}
	list := func(v control.Verbs, s *control.VolumeStatus) error {
		for _, name := range append([]string{s.Name}, furtherNames(s)...) {
			snapshots, err := v.Snapshots(ctx, name)
			if control.KindOf(err) == control.NotFound && name != s.Name { // deleted meanwhile
				continue
			}
			if err != nil {
				return failf("Can't list the snapshots of %s: %w", name, err)
			}
			for _, s := range snapshots.Snapshots {
				all = append(all, listedSnapshot{name, s})
			}
		}
		return nil
	}
	var err error
	if o.where.offline == "" {
		err = c.eachServed(ctx, list)
	} else if len(c.operands) != 1 {
		err = c.wrongNumber()
	} else {
		name := control.VolumeName(c.operands[0])
		err = c.withBackend(ctx, name, &o.where, toRead, func(b *backend) error { return list(b, &b.volume) })
	}
	if err != nil {
		return err
	}
	if o.json {
		return printJSON(c.stdout, snapshotList{all})
	}
	return c.printSnapshots(all, o.exact)
}

// eachServed calls do for the volumes in service that the operands name, or all.
func (c *call) eachServed(ctx context.Context, do func(v control.Verbs, s *control.VolumeStatus) error) error {
	client, err := c.connect()
	if err != nil {
		return err
	}
	defer client.Close()
	st, err := client.Status(ctx)
	if err == nil {
		st, err = c.choose(st, false, func(name string) error {
			return failf("Class 'VIRSTOR' does not have an instance named '%s'.", name)
		})
	}
	if err != nil {
		return err
	}
	for i := range st.Volumes {
		if err := do(client, &st.Volumes[i]); err != nil {
			return err
		}
	}
	return nil
}

// printSnapshots prints snapshots as a table, or exactly for scripts.
func (c *call) printSnapshots(all []listedSnapshot, exact bool) error {
	if exact {
		for _, s := range all {
			fmt.Fprintf(c.stdout, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%s\n", s.Volume, s.Name, s.Created.Unix(), s.Size, s.Refers, s.Unique, s.Written, nodesText(&s.Snapshot))
		}
		return nil
	}
	t := tabwriter.NewWriter(c.stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "Name\tCreated\tSize\tRefers\tUnique\tWritten\tDevice\t")
	for _, s := range all {
		fmt.Fprintf(t, "%s@%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", s.Volume, s.Name, s.Created.Local().Format(time.DateTime),
			humanize(s.Size), humanize(s.Refers), humanize(s.Unique), humanize(s.Written), nodesText(&s.Snapshot), s.Problem)
	}
	return t.Flush()
}

// nodesText are the devices of a published snapshot, "-" of another one.
func nodesText(s *control.Snapshot) string {
	if nodes := s.Nodes(); len(nodes) > 0 {
		return strings.Join(nodes, ",")
	}
	return "-"
}
