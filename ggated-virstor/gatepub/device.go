package gatepub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/gate"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/gatepub/serve"
	"github.com/gvirstor/gvirstor/ggated-virstor/gatepub/units"
	"github.com/gvirstor/gvirstor/ggated-virstor/publish"
)

// disk is what a device serves: a volume, or a snapshot's view.
type disk interface {
	serve.Disk
	Size() int64
}

// device is a volume or a snapshot published as a unit.
type device struct {
	gate  *Publisher
	units Units
	log   *slog.Logger
	key   units.Key
	disk  disk
	letGo func() // of the disk; nil: it is the pool's
	unit  units.Unit
	pub   *serve.Publication
	watch *publish.Task
	ended atomic.Bool // by us
	left  sync.Once   // it was counted as served no more

	// mode is what was last known of who has the device open.
	mode atomic.Pointer[geomlib.Mode]
}

// start begins to serve the unit that spec asks for: it is not confirmed yet. letGo, which
// may be nil, lets d go when the device has ended, also when start fails.
func (g *Publisher) start(spec units.Spec, d disk, letGo func(), cfg serve.Config) (*device, error) {
	dev := &device{gate: g, units: g.Units, log: cfg.Log, key: spec.Key, disk: d, letGo: letGo}
	var err error
	if dev.unit, err = g.Units.Acquire(context.Background(), spec); err != nil {
		dev.release()
		return nil, err
	}
	if dev.pub, err = serve.Start(g.Gate, dev.unit.Number, d, cfg); err != nil {
		return nil, errors.Join(err, dev.undo())
	}
	g.count(1)
	dev.watch = publish.StartTask(dev.watchEnd)
	return dev, nil
}

// release lets the disk go.
func (d *device) release() {
	if d.letGo != nil {
		d.letGo()
		d.letGo = nil
	}
}

// confirm checks that what is served is ours, and gives a device that a former
// daemon left the size of its volume.
func (d *device) confirm(ctx context.Context) error {
	if err := d.units.Confirm(ctx, d.key, d.unit); err != nil {
		return err
	}
	if d.unit.Taken {
		return d.resize()
	}
	return nil
}

// resize gives the device the size that its volume has.
func (d *device) resize() error { return d.units.Resize(d.unit.Number, d.disk.Size()) }

// closeGrace is how long what was taken may take to be answered.
const closeGrace = 30 * time.Second

// undo ends what could not be published. A unit that a former daemon made stays.
func (d *device) undo() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeGrace)
	defer cancel()
	var err error
	if !d.unit.Taken {
		err = d.units.Release(d.key, d.unit.Number, true)
	}
	if d.pub != nil {
		d.ended.Store(true)
		err = errors.Join(err, d.pub.Abandon(ctx))
		d.watch.Stop(ctx)
		d.uncount()
	}
	d.release()
	return err
}

// abandon is pool.Abandon of one device.
func (d *device) abandon(ctx context.Context) error {
	d.ended.Store(true)
	return d.pub.Abandon(ctx)
}

// watchEnd tells when somebody else destroys the unit.
func (d *device) watchEnd(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-d.pub.Done():
		if err := d.pub.Err(); err != nil && !d.ended.Load() {
			d.log.Error("the device is gone; the volume stays open until it is stopped", "device", d.unit.Name, "error", err)
		}
	}
}

// describe is what status tells of the device; ctx is how long GEOM may take.
func (d *device) describe(ctx context.Context) control.Publication {
	m, err := d.access(ctx)
	if err != nil {
		if known := d.mode.Load(); known != nil {
			m = *known
		}
	}
	return control.Publication{Kind: control.Gate, Name: d.unit.Name,
		Mode: control.Mode{Read: m.Read, Write: m.Write, Exclusive: m.Exclusive}}
}

// access asks GEOM who has the device open, which waits until tasting is over.
func (d *device) access(ctx context.Context) (geomlib.Mode, error) {
	m, err := d.units.Mode(ctx, d.unit.Number)
	if err == nil {
		d.mode.Store(&m)
	}
	return m, err
}

const (
	// glance is how long a description waits for GEOM before it tells what was so last.
	glance = 2 * time.Second
	// settling is how long GEOM may take over what does not wait for us, on a machine
	// that has much else to do.
	settling = 30 * time.Second
)

// users is how many have the device open, and what is told of them; ctx is how long GEOM may
// take.
func (d *device) users(ctx context.Context) (int, string) {
	m, err := d.access(ctx)
	switch {
	case errors.Is(err, gate.ErrGone):
		return 0, ""
	case err != nil:
		return 1, fmt.Sprintf("who has /dev/%s open is not known: %v", d.unit.Name, err)
	case m == geomlib.Mode{}:
		return 0, ""
	}
	return max(m.Read, m.Write, m.Exclusive), fmt.Sprintf("/dev/%s is open (%v)", d.unit.Name, m)
}

// disconnect takes the device away from whoever has it open.
func (d *device) disconnect() {
	d.ended.Store(true)
	if err := d.units.Release(d.key, d.unit.Number, true); err != nil {
		d.log.Error("the device could not be destroyed", "device", d.unit.Name, "error", err)
	}
}

// withdraw destroys the unit, which must be served until it is gone. Whoever
// just tastes the device is waited for.
func (d *device) withdraw(ctx context.Context) error {
	d.ended.Store(true)
	for try := 0; ; try++ {
		err := d.units.Release(d.key, d.unit.Number, false)
		if err == nil {
			break
		}
		if !errors.Is(err, gate.ErrBusy) {
			return err
		}
		m, e := d.access(ctx)
		if e != nil || m != (geomlib.Mode{}) || try == tasteTries {
			d.ended.Store(false)
			return fmt.Errorf("%w: /dev/%s is open (%s)", publish.ErrInUse, d.unit.Name, modeText(m, e))
		}
	}
	return d.stop(ctx)
}

const tasteTries = 3

// modeText is who has a device open, or why that is not known.
func modeText(m geomlib.Mode, err error) string {
	if err != nil {
		return err.Error()
	}
	return m.String()
}

// leave answers what was taken and leaves the unit to the next daemon.
func (d *device) leave(ctx context.Context) error {
	d.ended.Store(true)
	return d.stop(ctx)
}

func (d *device) stop(ctx context.Context) error {
	err := d.pub.Stop(ctx)
	d.watch.Stop(ctx)
	d.uncount()
	d.release()
	return err
}

func (d *device) uncount() { d.left.Do(func() { d.gate.count(-1) }) }
