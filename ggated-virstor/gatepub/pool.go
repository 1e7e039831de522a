package gatepub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/gate"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/gatepub/serve"
	"github.com/gvirstor/gvirstor/ggated-virstor/gatepub/units"
	"github.com/gvirstor/gvirstor/ggated-virstor/publish"
)

// pool is a volume, published, with the further volumes of its pool and with snapshots that
// were asked for. Each is a device of its own.
type pool struct {
	gate *Publisher
	vol  *virstor.Volume
	log  *slog.Logger

	// changing serialises what makes and ends devices, which may wait for GEOM.
	changing sync.Mutex
	leaving  map[string]int  // by title, what is being deleted or renamed, how many times; under changing
	wanted   map[uint64]bool // by id, the snapshots that were asked for; under changing
	ended    bool            // under changing

	first *device

	mu    sync.Mutex         // may be locked under changing
	shown map[string]*device // by title, all others; changed under changing, too
}

// item is a further volume or a snapshot that may be a device.
type item struct {
	title string
	id    uint64 // of its map
}

// snapshotSlots is how many requests to a snapshot's device may be under way: each has memory
// that is locked.
const snapshotSlots = 16

// begin publishes the volume, and what is to be published with it. After an error nothing is,
// but for devices that a former daemon left.
func (p *pool) begin() error {
	p.changing.Lock()
	defer p.changing.Unlock()
	left, err := p.gate.Units.UnitsOf(p.vol.ID())
	if err != nil {
		p.log.Error("devices of snapshots and further volumes that a former daemon left are not known", "error", err)
	}
	var mine []item
	for _, i := range p.itemsLocked() {
		if _, is := left[i.id]; is {
			mine = append(mine, i)
			p.wanted[i.id] = true
		}
	}
	var wg sync.WaitGroup
	for _, i := range mine {
		wg.Go(func() { p.logFailure(i, p.open(i)) })
	}
	p.first, err = p.gate.start(p.spec("", 0, p.vol.SectorSize(), p.vol.Size(), p.vol.ReadOnly()), p.vol, nil, p.config())
	wg.Wait()
	if err != nil {
		return errors.Join(err, p.undoLocked())
	}
	if p.vol.Deferred() {
		return nil // the rest when it is activated: GEOM may wait for more volumes than this one
	}
	if err := p.first.confirm(context.Background()); err != nil {
		return errors.Join(err, p.first.undo(), p.undoLocked())
	}
	p.tidyLocked(left)
	p.confirmShown()
	if err := p.showLocked(); err != nil { // which keeps nobody from the volume
		p.log.Error("a device is missing", "error", err)
	}
	return nil
}

// undoLocked ends what is shown, after a failure; p.changing is held.
func (p *pool) undoLocked() error {
	var err error
	for title, d := range p.all() {
		if title != "" {
			err = errors.Join(err, d.undo())
			p.forget(title)
		}
	}
	return err
}

// confirmShown checks the devices of all but the volume, and ends those that are not ours.
func (p *pool) confirmShown() {
	for title, d := range p.all() {
		if title == "" {
			continue
		}
		if err := d.confirm(context.Background()); err != nil {
			p.log.Error("a device could not be checked", "device", d.unit.Name, "error", err)
		}
	}
}

// tidyLocked destroys the units that a former daemon left of what is there no more: nobody
// serves them. Those of what is damaged stay: it may be read at another start. p.changing is
// held.
func (p *pool) tidyLocked(left map[uint64]units.Unit) {
	there, all := p.ids()
	if !all {
		return
	}
	for id, u := range left {
		if there[id] {
			continue
		}
		if err := p.gate.Units.Release(units.Key{ID: p.vol.ID(), Map: id}, u.Number, true); err != nil {
			p.log.Error("the device of what was deleted is left", "device", u.Name, "error", err)
			continue
		}
		p.log.Warn("device destroyed: what it was of is deleted", "device", u.Name)
	}
}

// ids are those of all that the pool has, and 0; all is false where some are not known, as
// of the snapshots of a damaged volume.
func (p *pool) ids() (there map[uint64]bool, all bool) {
	there, all = map[uint64]bool{0: true}, true
	volumes := []string{""}
	for _, i := range p.vol.Volumes() {
		there[i.ID] = true
		volumes = append(volumes, i.Name)
	}
	for _, volume := range volumes {
		h, err := p.vol.OpenVolume(volume)
		if err != nil {
			all = false
			continue
		}
		for _, s := range h.Snapshots() {
			there[s.ID] = true
		}
		h.Release()
	}
	return there, all
}

// itemsLocked are the further volumes and the snapshots of the pool that can be used, but for
// what is being deleted or renamed. p.changing is held.
func (p *pool) itemsLocked() (all []item) {
	volumes := []string{""}
	for _, i := range p.vol.Volumes() {
		if i.Err == nil && p.leaving[publish.Title(i.Name, "")] == 0 {
			all = append(all, item{publish.Title(i.Name, ""), i.ID})
			volumes = append(volumes, i.Name)
		}
	}
	for _, volume := range volumes {
		h, err := p.vol.OpenVolume(volume)
		if err != nil { // deleted meanwhile
			continue
		}
		for _, s := range h.Snapshots() {
			if t := publish.Title(volume, s.Name); s.Err == nil && p.leaving[t] == 0 {
				all = append(all, item{t, s.ID})
			}
		}
		h.Release()
	}
	return all
}

func (p *pool) logFailure(i item, err error) {
	if err != nil {
		p.log.Error("a device is missing", "of", p.fullName(i.title), "error", err)
	}
}

// fullName is that of what has a title.
func (p *pool) fullName(title string) string {
	if strings.HasPrefix(title, "/") {
		return p.vol.Name() + title
	}
	return p.vol.Name() + "@" + title
}

// config is how devices of the pool are served.
func (p *pool) config() serve.Config {
	cfg := p.gate.Serve
	cfg.ReadsOnly = p.vol.Deferred()
	cfg.Log = p.log
	return cfg
}

// spec asks for the unit of what has a title, of size bytes; id is its map's, 0 the volume
// itself's.
func (p *pool) spec(title string, id uint64, sector int, size int64, readOnly bool) units.Spec {
	s := units.Spec{
		Key: units.Key{ID: p.vol.ID(), Map: id}, Name: p.gate.nodeOf(p.vol.Name(), title), Unit: p.gate.Unit,
		MediaSize: size, SectorSize: sector, ReadOnly: readOnly, Providers: namesOf(p.vol.Providers()),
	}
	if id != 0 {
		s.Unit = gate.UnitAuto
	}
	return s
}

// open makes a further volume or a snapshot a device; it is not confirmed yet.
func (p *pool) open(i item) error {
	volume, snapshot := publish.SplitTitle(i.title)
	h, err := p.vol.OpenVolume(volume)
	if err != nil {
		return err
	}
	cfg := p.config()
	cfg.Log = cfg.Log.With("of", p.fullName(i.title))
	if snapshot == "" {
		return p.keep(i, h, h.Release, p.spec(i.title, i.id, h.SectorSize(), h.Size(), h.ReadOnly()), cfg)
	}
	defer h.Release()
	v, err := h.OpenSnapshot(snapshot)
	if err != nil {
		return err
	}
	if cfg.Slots == 0 || cfg.Slots > snapshotSlots {
		cfg.Slots = snapshotSlots
	}
	return p.keep(i, v, v.Close, p.spec(i.title, i.id, v.SectorSize(), v.Size(), true), cfg)
}

// keep starts the device of a disk, and keeps it as that of its title.
func (p *pool) keep(i item, d disk, letGo func(), spec units.Spec, cfg serve.Config) error {
	dev, err := p.gate.start(spec, d, letGo, cfg)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shown[i.title] = dev
	return nil
}

// device is that of what has a title, or nil.
func (p *pool) device(title string) *device {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.shown[title]
}

func (p *pool) forget(title string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.shown, title)
}

// all are the devices by their titles; "" is the volume's.
func (p *pool) all() map[string]*device {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := map[string]*device{}
	if p.first != nil {
		all[""] = p.first
	}
	for title, d := range p.shown {
		all[title] = d
	}
	return all
}

// ShowSnapshots implements publish.SnapshotKeeper: further volumes become devices, and of the
// snapshots those that were asked for.
func (p *pool) ShowSnapshots() error {
	p.changing.Lock()
	defer p.changing.Unlock()
	return p.showLocked()
}

// showLocked is ShowSnapshots. p.changing is held.
func (p *pool) showLocked() error {
	if p.ended || p.vol.Deferred() {
		return nil
	}
	var err error
	there := make(map[uint64]bool)
	for _, i := range p.itemsLocked() {
		there[i.id] = true
		_, snapshot := publish.SplitTitle(i.title)
		if snapshot == "" || p.wanted[i.id] {
			err = errors.Join(err, p.showOneLocked(i))
		}
	}
	for id := range p.wanted {
		if !there[id] && len(p.leaving) == 0 {
			delete(p.wanted, id)
		}
	}
	return err
}

// showOneLocked makes a device, if it is none yet, and checks it. p.changing is held.
func (p *pool) showOneLocked(i item) error {
	if p.device(i.title) != nil {
		return nil
	}
	err := p.open(i)
	if errors.Is(err, virstor.ErrNoVolume) || errors.Is(err, virstor.ErrNoSnapshot) { // deleted meanwhile
		return nil
	}
	if err == nil {
		d := p.device(i.title)
		if err = d.confirm(context.Background()); err != nil {
			p.forget(i.title)
			err = errors.Join(err, d.undo())
		}
	}
	if err != nil {
		err = fmt.Errorf("publish %s: %w", p.fullName(i.title), err)
	}
	return err
}

// ShowSnapshot implements publish.SnapshotPublisher.
func (p *pool) ShowSnapshot(title string) error {
	p.changing.Lock()
	defer p.changing.Unlock()
	for _, i := range p.itemsLocked() {
		if _, snapshot := publish.SplitTitle(title); snapshot != "" && i.title == title {
			err := p.showOneLocked(i)
			if err == nil {
				p.wanted[i.id] = true
			}
			return err
		}
	}
	return fmt.Errorf("publish %s: %w", p.fullName(title), virstor.ErrNoSnapshot)
}

// HideSnapshot implements publish.SnapshotPublisher.
func (p *pool) HideSnapshot(title string, force bool) error {
	p.changing.Lock()
	defer p.changing.Unlock()
	d := p.device(title)
	if _, snapshot := publish.SplitTitle(title); snapshot == "" || d == nil {
		return fmt.Errorf("%s is no device: %w", p.fullName(title), virstor.ErrNoSnapshot)
	}
	if force {
		d.disconnect()
	}
	if err := p.endLocked(title, d); err != nil {
		return err
	}
	delete(p.wanted, d.key.Map)
	return nil
}

// endLocked ends a device of a further volume or a snapshot. p.changing is held.
func (p *pool) endLocked(title string, d *device) error {
	ctx, cancel := context.WithTimeout(context.Background(), closeGrace)
	defer cancel()
	err := d.withdraw(ctx)
	if !errors.Is(err, publish.ErrInUse) {
		p.forget(title)
	}
	return err
}

// LetGo implements publish.SnapshotKeeper.
func (p *pool) LetGo(title string, force bool) (again func(), err error) {
	p.changing.Lock()
	defer p.changing.Unlock()
	for t, d := range p.all() {
		if t == "" || !publish.Belongs(t, title) {
			continue
		}
		if force {
			d.disconnect()
		}
		if err := p.endLocked(t, d); err != nil {
			return nil, errors.Join(err, p.showLocked())
		}
	}
	p.leaving[title]++
	return func() {
		p.changing.Lock()
		defer p.changing.Unlock()
		if p.leaving[title]--; p.leaving[title] == 0 {
			delete(p.leaving, title)
		}
		if err := p.showLocked(); err != nil {
			p.log.Error("a device is missing", "error", err)
		}
	}, nil
}

// Shown implements publish.SnapshotKeeper.
func (p *pool) Shown() map[string][]control.Publication {
	ctx, cancel := context.WithTimeout(context.Background(), glance)
	defer cancel()
	all := make(map[string][]control.Publication)
	for title, d := range p.all() {
		if title != "" {
			all[title] = []control.Publication{d.describe(ctx)}
		}
	}
	return all
}

// Activated implements publish.Activator.
func (p *pool) Activated() {
	p.changing.Lock()
	defer p.changing.Unlock()
	for _, d := range p.all() {
		d.pub.ServeAll()
	}
	for _, d := range p.all() {
		if err := d.confirm(context.Background()); err != nil {
			p.log.Error("the device that was taken over could not be checked", "device", d.unit.Name, "error", err)
		}
	}
	if left, err := p.gate.Units.UnitsOf(p.vol.ID()); err == nil {
		p.tidyLocked(left)
	}
	if err := p.showLocked(); err != nil {
		p.log.Error("a device is missing", "error", err)
	}
}

// Follow implements publish.Follower.
func (p *pool) Follow(e virstor.Event) error {
	switch e.Kind {
	case virstor.EventResized:
		var err error
		for title, d := range p.all() {
			if _, snapshot := publish.SplitTitle(title); snapshot == "" {
				err = errors.Join(err, d.resize())
			}
		}
		return err
	case virstor.EventComponents:
		return p.gate.Units.RecordProviders(p.vol.ID(), namesOf(p.vol.Providers()))
	case virstor.EventSnapshots:
		return p.ShowSnapshots()
	}
	return nil
}

// MayAdd implements publish.ComponentChecker.
func (p *pool) MayAdd(ctx context.Context, ps []geomlib.Provider) error {
	if err := refuseFiles(ps); err != nil {
		return control.Errorf(control.Invalid, "%v", err)
	}
	return p.gate.Units.CheckComponents(ctx, namesOf(ps))
}

// Names implements publish.Published.
func (p *pool) Names() []string { return []string{p.first.unit.Name} }

// Describe implements publish.Published.
func (p *pool) Describe() []control.Publication {
	ctx, cancel := context.WithTimeout(context.Background(), glance)
	defer cancel()
	return []control.Publication{p.first.describe(ctx)}
}

// Users implements publish.Published.
func (p *pool) Users() (int, string) {
	ctx, cancel := context.WithTimeout(context.Background(), settling)
	defer cancel()
	n, what := 0, []string{}
	for _, d := range p.all() {
		if k, w := d.users(ctx); k > 0 {
			n += k
			what = append(what, w)
		}
	}
	slices.Sort(what)
	return n, strings.Join(what, ", ")
}

// Disconnect implements publish.Published.
func (p *pool) Disconnect() {
	for _, d := range p.all() {
		d.disconnect()
	}
}

// Withdraw implements publish.Published.
func (p *pool) Withdraw(ctx context.Context) error {
	p.changing.Lock()
	defer p.changing.Unlock()
	p.ended = true
	all := p.all()
	delete(all, "")
	var failed error
	for title, d := range all {
		err := d.withdraw(ctx)
		if errors.Is(err, publish.ErrInUse) {
			return p.goOnLocked(err)
		}
		p.forget(title)
		failed = errors.Join(failed, err)
	}
	err := p.first.withdraw(ctx)
	if errors.Is(err, publish.ErrInUse) {
		return p.goOnLocked(err)
	}
	return errors.Join(failed, err)
}

// goOnLocked makes what has ended devices again, since of one it did not. p.changing is held.
func (p *pool) goOnLocked(err error) error {
	p.ended = false
	if again := p.showLocked(); again != nil {
		p.log.Error("a device is missing", "error", again)
	}
	return err
}

// Leave implements publish.Published: the units stay for the next daemon.
func (p *pool) Leave(ctx context.Context) error { return p.endAll(ctx, (*device).leave) }

// Abandon ends the service at once and answers nothing more, as the death of the
// process does: what is under way is left to whoever serves the units next
// (serve.Publication.Abandon). Tests of who comes next need it.
func (p *pool) Abandon(ctx context.Context) error { return p.endAll(ctx, (*device).abandon) }

// endAll ends the service of all devices, one beside the other.
func (p *pool) endAll(ctx context.Context, end func(*device, context.Context) error) error {
	p.changing.Lock()
	defer p.changing.Unlock()
	p.ended = true
	var wg sync.WaitGroup
	var mu sync.Mutex
	var err error
	for title, d := range p.all() {
		wg.Go(func() {
			e := end(d, ctx)
			mu.Lock()
			defer mu.Unlock()
			err = errors.Join(err, e)
		})
		if title != "" {
			p.forget(title)
		}
	}
	wg.Wait()
	return err
}
