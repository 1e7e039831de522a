package main

import (
	"context"
	"fmt"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

func publishCommand() *command {
	var dryRun bool
	return &command{
		name:     "publish",
		brief:    "Makes a snapshot a device that can be read",
		operands: "[-nv] name@snap",
		verbose:  true,
		options:  func(f *options) { f.flag(&dryRun, "n", "dry-run") },
		run:      func(ctx context.Context, c *call) error { return c.publish(ctx, dryRun) },
		about: `Makes a snapshot of a volume in service a device below /dev that can be read,
such as virstor/mydata@monday, and prints its name. It stays until unpublish
takes it away, the snapshot is deleted, or the volume goes out of service; a
daemon that ends while the device is open leaves it to the next one. NBD clients
find all snapshots without that.

-n          only tell whether it could, or is one already`,
		example: "gvirstor publish mydata@monday",
	}
}

func unpublishCommand() *command {
	var force bool
	return &command{
		name:     "unpublish",
		brief:    "Takes the device of a snapshot away",
		operands: "[-fv] name@snap",
		verbose:  true,
		options:  func(f *options) { f.flag(&force, "f", "force") },
		run:      func(ctx context.Context, c *call) error { return c.unpublish(ctx, force) },
		about: `Takes the device away that publish has made of a snapshot. The snapshot stays.

-f          even while it is open`,
		example: "gvirstor unpublish mydata@monday",
	}
}

// publish prints the nodes of the device.
func (c *call) publish(ctx context.Context, dryRun bool) error {
	return c.onServedSnapshot(ctx, func(client *control.Client, volume, name string) error {
		res, err := client.PublishSnapshot(ctx, volume, control.PublishRequest{Snapshot: name, DryRun: dryRun})
		if err != nil {
			return failf("Can't publish %s: %w", c.operands[0], err)
		}
		already := false
		for _, p := range res.Published {
			if p.Kind == control.Gate {
				fmt.Fprintln(c.stdout, p.Name)
				already = true
			}
		}
		if dryRun && !already {
			fmt.Fprintf(c.stdout, "%s: could be published\n", c.operands[0])
		}
		return nil
	})
}

func (c *call) unpublish(ctx context.Context, force bool) error {
	return c.onServedSnapshot(ctx, func(client *control.Client, volume, name string) error {
		if err := client.UnpublishSnapshot(ctx, volume, control.UnpublishRequest{Snapshot: name, Force: force}); err != nil {
			return failf("Can't %w", err)
		}
		return nil
	})
}

// onServedSnapshot calls do for the one operand, a snapshot of a volume in service.
func (c *call) onServedSnapshot(ctx context.Context, do func(client *control.Client, volume, name string) error) error {
	volume, name, err := c.snapshotOperand()
	if err != nil {
		return err
	}
	pool, _ := control.SplitName(volume)
	client, _, err := c.volumeOf(ctx, pool)
	if err != nil {
		return err
	}
	defer client.Close()
	return do(client, volume, name)
}
