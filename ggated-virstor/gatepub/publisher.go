// Package gatepub makes geom_gate(4) a publisher of the daemon: each volume is a
// unit, and a device below /dev.
//
//	daemon ──► Publisher ──► Units: units.Manager, in this process or in the supervisor
//	                    │           makes, finds and ends units; may wait for GEOM
//	                    │              └──► helper.Asker asks what cannot be called off
//	                    └──► serve.Publication takes and answers the requests of a unit
package gatepub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/gate"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/gatepub/serve"
	"github.com/gvirstor/gvirstor/ggated-virstor/gatepub/units"
	"github.com/gvirstor/gvirstor/ggated-virstor/publish"
)

// Units makes, finds and ends units: a units.Manager, or the supervisor that
// has one. Its methods may be called by many goroutines at once, for different
// volumes.
type Units interface {
	// Acquire returns the volume's unit: the one that a former daemon left, or a
	// new one. It must be served at once.
	Acquire(ctx context.Context, s units.Spec) (units.Unit, error)
	// Confirm checks that the unit, which is served, is the volume's
	// (units.ErrNotOurs).
	Confirm(ctx context.Context, id uint32, u units.Unit) error
	// Mode tells who has the unit's device open (gate.ErrGone; geomlib.ErrTreeBusy
	// when GEOM does not tell before ctx ends).
	Mode(ctx context.Context, unit int) (geomlib.Mode, error)
	// Resize changes the size of the unit's device, in bytes.
	Resize(unit int, size int64) error
	// RecordProviders notes the names of the volume's providers, for the next daemon.
	RecordProviders(id uint32, providers []string) error
	// Release destroys the volume's unit and forgets it. Without force it fails
	// with gate.ErrBusy while the device is open.
	Release(id uint32, unit int, force bool) error
	// Leftovers are the volumes whose units a former daemon left, and the names of
	// their providers. It does not wait for GEOM.
	Leftovers() (map[uint32][]string, error)
	// CheckComponents refuses providers that lie on a device that is served here.
	CheckComponents(ctx context.Context, providers []string) error
}

// Publisher publishes volumes as devices of geom_gate(4).
type Publisher struct {
	Gate  *gate.Gate
	Units Units
	// Name of the node below /dev; one that ends in a slash is followed by the
	// volume's; empty means ggateN.
	Name string
	Unit int // N, or gate.UnitAuto
	// Serve is how requests are taken. Its ReadsOnly is not looked at.
	Serve serve.Config
	Log   *slog.Logger
	// Serving, if not nil, is told how many devices are served whenever that
	// changes.
	Serving func(devices int)

	mu      sync.Mutex
	devices int // served
}

// count tells Serving of a device more or less.
func (g *Publisher) count(by int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.devices += by
	if g.Serving != nil {
		g.Serving(g.devices)
	}
}

// Leftovers implements publish.Durable.
func (g *Publisher) Leftovers() (map[uint32][]string, error) { return g.Units.Leftovers() }

// Publish implements publish.Publisher.
func (g *Publisher) Publish(v *virstor.Volume) (publish.Published, error) {
	ps := v.Providers()
	if err := refuseFiles(ps); err != nil {
		return nil, err
	}
	name := g.Name
	if strings.HasSuffix(name, "/") {
		name += v.Name()
	}
	ctx := context.Background()
	u, err := g.Units.Acquire(ctx, units.Spec{
		ID: v.ID(), Name: name, Unit: g.Unit, MediaSize: v.Size(), SectorSize: v.SectorSize(),
		ReadOnly: v.ReadOnly(), Providers: namesOf(ps),
	})
	if err != nil {
		return nil, err
	}
	cfg := g.Serve
	cfg.ReadsOnly = v.Deferred()
	cfg.Log = g.Log.With("volume", v.Name())
	d := &device{gate: g, units: g.Units, log: cfg.Log, vol: v, unit: u}
	d.pub, err = serve.Start(g.Gate, u.Number, v, cfg)
	if err == nil {
		g.count(1)
		if err = d.confirm(ctx); err == nil {
			d.watch = publish.StartTask(d.watchEnd)
			return d, nil
		}
	}
	return nil, errors.Join(err, d.undo())
}

func refuseFiles(ps []geomlib.Provider) error {
	for _, p := range ps {
		if geomlib.IsRegular(p) {
			return fmt.Errorf("%s is a regular file, on which a device could deadlock with the file system: "+
				"make a disk of it with `mdconfig -a -t vnode -f %s`, or publish it by NBD alone (--gate=false)", p.Name(), p.Name())
		}
	}
	return nil
}

func namesOf(ps []geomlib.Provider) []string {
	var names []string
	for _, p := range ps {
		names = append(names, p.Name())
	}
	return names
}

// device is a volume published as a unit.
type device struct {
	gate  *Publisher
	units Units
	log   *slog.Logger
	vol   *virstor.Volume
	unit  units.Unit
	pub   *serve.Publication
	watch *publish.Task
	ended atomic.Bool // by us
	left  sync.Once   // it was counted as served no more

	// mode is what was last known of who has the device open.
	mode atomic.Pointer[geomlib.Mode]
}

// confirm checks that what is served is ours, and gives a device that a former
// daemon left the size of its volume.
func (d *device) confirm(ctx context.Context) error {
	if d.vol.Deferred() {
		return nil // later: GEOM may wait for more volumes than this one
	}
	if err := d.units.Confirm(ctx, d.vol.ID(), d.unit); err != nil {
		return err
	}
	if d.unit.Taken {
		return d.units.Resize(d.unit.Number, d.vol.Size())
	}
	return nil
}

// closeGrace is how long what was taken may take to be answered.
const closeGrace = 30 * time.Second

// undo ends what could not be published. A unit that a former daemon made stays.
func (d *device) undo() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeGrace)
	defer cancel()
	var err error
	if !d.unit.Taken {
		err = d.units.Release(d.vol.ID(), d.unit.Number, true)
	}
	if d.pub != nil {
		err = errors.Join(err, d.pub.Abandon(ctx))
		d.uncount()
	}
	return err
}

// Activated implements publish.Activator.
func (d *device) Activated() {
	d.pub.ServeAll()
	if err := d.confirm(context.Background()); err != nil {
		d.log.Error("the device that was taken over could not be checked", "device", d.unit.Name, "error", err)
	}
}

// Follow implements publish.Follower.
func (d *device) Follow(e virstor.Event) error {
	switch e.Kind {
	case virstor.EventResized:
		return d.units.Resize(d.unit.Number, d.vol.Size())
	case virstor.EventComponents:
		return d.units.RecordProviders(d.vol.ID(), namesOf(d.vol.Providers()))
	}
	return nil
}

// MayAdd implements publish.ComponentChecker.
func (d *device) MayAdd(ctx context.Context, ps []geomlib.Provider) error {
	if err := refuseFiles(ps); err != nil {
		return control.Errorf(control.Invalid, "%v", err)
	}
	return d.units.CheckComponents(ctx, namesOf(ps))
}

// Abandon ends the service at once and answers nothing more, as the death of the
// process does: what is under way is left to whoever serves the unit next
// (serve.Publication.Abandon). Tests of who comes next need it.
func (d *device) Abandon(ctx context.Context) error {
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

func (d *device) Names() []string { return []string{d.unit.Name} }

func (d *device) Describe() []control.Publication {
	ctx, cancel := context.WithTimeout(context.Background(), glance)
	defer cancel()
	m, err := d.access(ctx)
	if err != nil {
		if known := d.mode.Load(); known != nil {
			m = *known
		}
	}
	return []control.Publication{{Kind: control.Gate, Name: d.unit.Name,
		Mode: control.Mode{Read: m.Read, Write: m.Write, Exclusive: m.Exclusive}}}
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

func (d *device) Users() (int, string) {
	ctx, cancel := context.WithTimeout(context.Background(), settling)
	defer cancel()
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

// Disconnect takes the device away from whoever has it open.
func (d *device) Disconnect() {
	d.ended.Store(true)
	if err := d.units.Release(d.vol.ID(), d.unit.Number, true); err != nil {
		d.log.Error("the device could not be destroyed", "device", d.unit.Name, "error", err)
	}
}

// Withdraw destroys the unit, which must be served until it is gone. Whoever
// just tastes the device is waited for.
func (d *device) Withdraw(ctx context.Context) error {
	d.ended.Store(true)
	for try := 0; ; try++ {
		err := d.units.Release(d.vol.ID(), d.unit.Number, false)
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

// Leave answers what was taken and leaves the unit to the next daemon.
func (d *device) Leave(ctx context.Context) error {
	d.ended.Store(true)
	return d.stop(ctx)
}

func (d *device) stop(ctx context.Context) error {
	err := d.pub.Stop(ctx)
	d.watch.Stop(ctx)
	d.uncount()
	return err
}

func (d *device) uncount() { d.left.Do(func() { d.gate.count(-1) }) }
