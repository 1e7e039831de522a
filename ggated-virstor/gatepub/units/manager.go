package units

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/gate"
)

// ErrNotOurs: the node in /dev, or the unit, belongs to something else.
var ErrNotOurs = errors.New("belongs to something else")

// Key says what a unit is of: a volume, or what else its pool has.
type Key struct {
	ID uint32 `json:"id"` // of the volume that label made
	// Map is the id of a snapshot or of a further volume of its pool; 0: of none.
	Map uint64 `json:"map,omitempty"`
}

// String is k as records and info strings have it.
func (k Key) String() string {
	if k.Map == 0 {
		return fmt.Sprintf("%08x", k.ID)
	}
	return fmt.Sprintf("%08x-%d", k.ID, k.Map)
}

// parseKey is the Key of which text is the String.
func parseKey(text string) (k Key, ok bool) {
	volume, own, of := strings.Cut(text, "-")
	id, err := strconv.ParseUint(volume, 16, 32)
	k.ID = uint32(id)
	if of && err == nil {
		k.Map, err = strconv.ParseUint(own, 10, 64)
	}
	return k, err == nil && k.String() == text
}

// Spec is the unit wanted for a volume or a snapshot.
type Spec struct {
	Key
	Name       string `json:"name,omitempty"` // of the node below /dev; empty: ggateN
	Unit       int    `json:"unit"`           // N, or gate.UnitAuto; not looked at with a Name
	MediaSize  int64  `json:"media_size"`     // bytes
	SectorSize int    `json:"sector_size"`    // bytes
	ReadOnly   bool   `json:"read_only,omitempty"`
	// Providers are the volume's, so that a daemon that finds the unit finds
	// them too.
	Providers []string `json:"providers,omitempty"`
}

// Unit is a unit that is ours.
type Unit struct {
	Number int    `json:"number"`
	Name   string `json:"name"` // of the node, without /dev/
	// Taken: a former daemon made it.
	Taken bool `json:"taken,omitempty"`
}

// Info is the info string of a unit.
func Info(k Key) string { return infoPrefix + k.String() }

// Waits are how long to wait for kern.geom.confxml. Tests shorten them.
type Waits struct {
	Trust   time.Duration // before the record of a made unit is trusted
	Guess   time.Duration // before that of one which may not have been made is, or none
	Confirm time.Duration // for a unit that is served
}

// DefaultWaits are those of a daemon: two seconds for a record that may be trusted,
// and times in which GEOM gets anything done that does not wait for us.
func DefaultWaits() Waits {
	return Waits{Trust: 2 * time.Second, Guess: 30 * time.Second, Confirm: time.Minute}
}

// Manager makes, finds and ends units. Its methods may be called by many
// goroutines at once, for different volumes.
type Manager struct {
	gate    *gate.Gate
	tree    *geomlib.TreeReader
	records records
	waits   Waits
	log     *slog.Logger
	resize  func(unit int, size int64) error

	// creating: the kernel's look through names must not run beside a CREATE.
	creating sync.Mutex

	mu sync.Mutex
	// releasing are the units that are being destroyed, which may wait for whoever is within
	// a request. Another destruction of one would wait beside the first, and the kernel free
	// the unit twice (g_gate_destroy in sys/geom/gate/g_gate.c).
	releasing map[int]*release
}

// release is the destruction of a unit; err is valid when done is closed.
type release struct {
	done chan struct{}
	err  error
}

// New makes a Manager that records units in dir. The gate stays the caller's.
func New(g *gate.Gate, tree *geomlib.TreeReader, dir string, w Waits, log *slog.Logger) *Manager {
	return &Manager{gate: g, tree: tree, records: records{dir}, waits: w, log: log, resize: g.Resize, releasing: make(map[int]*release)}
}

// ResizeWith has resize change the size of units, in place of the gate, which
// keeps its caller until GEOM's event queue is empty. It is called before the
// Manager is used.
func (m *Manager) ResizeWith(resize func(unit int, size int64) error) { m.resize = resize }

// Acquire returns the volume's unit: the one that a former daemon left, or a new
// one. Somebody must serve it at once, for GEOM tastes it. The caller holds the
// volume's lock.
func (m *Manager) Acquire(ctx context.Context, s Spec) (Unit, error) {
	u, ok, err := m.findUnit(ctx, s.Key)
	if err != nil {
		return Unit{}, fmt.Errorf("find the unit of volume %v: %w", s.Key, err)
	}
	if ok {
		err := m.records.write(s.Key, record{Unit: u.Number, Name: u.Name, Made: true, Providers: s.Providers})
		if s.Name != "" && s.Name != u.Name {
			m.log.Warn("the unit of a former daemon keeps its name", "name", u.Name, "wanted", s.Name)
		}
		return u, err
	}
	if err := m.CheckComponents(ctx, s.Providers); err != nil {
		return Unit{}, err
	}
	return m.create(s)
}

// findUnit looks for the unit that a former daemon left.
func (m *Manager) findUnit(ctx context.Context, k Key) (Unit, bool, error) {
	rec, recorded, err := m.records.read(k)
	if err != nil {
		return Unit{}, false, err
	}
	u := Unit{Number: rec.Unit, Name: rec.Name, Taken: true}
	if recorded {
		if u.Number, recorded, err = m.exists(rec); err != nil {
			return Unit{}, false, err
		}
	}
	wait := m.waits.Guess
	if recorded && rec.Made {
		wait = m.waits.Trust
	}
	tree, err := m.read(ctx, wait)
	switch {
	case errors.Is(err, geomlib.ErrTreeBusy) && recorded:
		m.log.Warn("GEOM waits, probably for this unit: its record is trusted", "unit", u.Number, "name", u.Name)
		return u, true, nil
	case err != nil:
		return Unit{}, false, err
	}
	var found []gateGeom
	for _, g := range gateGeoms(tree) {
		if g.info == Info(k) {
			found = append(found, g)
		}
	}
	switch {
	case len(found) == 0:
		return Unit{}, false, nil
	case len(found) == 1:
		return Unit{Number: found[0].unit, Name: found[0].name, Taken: true}, true, nil
	}
	for _, g := range found {
		if recorded && g.unit == u.Number {
			return Unit{Number: g.unit, Name: g.name, Taken: true}, true, nil
		}
	}
	return Unit{}, false, fmt.Errorf("%d units have the info %q: destroy those that nothing uses (`ggatel destroy -u N`): %w",
		len(found), Info(k), ErrNotOurs)
}

// exists reports whether there is a unit as recorded, and its number. It
// does not wait for GEOM.
func (m *Manager) exists(rec record) (int, bool, error) {
	var err error
	unit := rec.Unit
	if unit >= 0 {
		// No request has the highest number.
		err = m.gate.Cancel(unit, math.MaxUint64)
	} else {
		m.creating.Lock()
		unit, err = m.gate.UnitByName(rec.Name)
		m.creating.Unlock()
	}
	if errors.Is(err, gate.ErrGone) {
		return -1, false, nil
	}
	return unit, err == nil, err
}

// create makes a unit. The record precedes it.
func (m *Manager) create(s Spec) (Unit, error) {
	o := gate.CreateOptions{Name: s.Name, Unit: s.Unit, MediaSize: s.MediaSize, SectorSize: s.SectorSize, Info: Info(s.Key)}
	if s.ReadOnly {
		o.Flags = gate.ReadOnly
	}
	fixed := s.Name != "" || s.Unit >= 0
	if !fixed {
		o.Unit = 0
	}
	for ; ; o.Unit++ {
		u, err := m.createOne(s, o)
		if err == nil {
			return u, nil
		}
		if fixed || !errors.Is(err, gate.ErrExists) {
			return Unit{}, errors.Join(err, m.records.remove(s.Key))
		}
	}
}

func (m *Manager) createOne(s Spec, o gate.CreateOptions) (Unit, error) {
	rec := record{Unit: o.Unit, Name: "ggate" + strconv.Itoa(o.Unit), Providers: s.Providers}
	if o.Name != "" {
		rec.Unit, rec.Name = -1, o.Name
	}
	// A unit that exists must never be recorded as ours.
	if _, there, err := m.exists(rec); err != nil || there {
		if there {
			err = &gate.OpError{Cmd: gate.CmdCreate, Unit: rec.Unit, Name: rec.Name, Err: gate.ErrExists}
		}
		return Unit{}, err
	}
	if err := m.records.write(s.Key, rec); err != nil {
		return Unit{}, err
	}
	m.creating.Lock()
	unit, err := m.gate.Create(o)
	m.creating.Unlock()
	if err != nil {
		return Unit{}, err
	}
	rec.Unit, rec.Made = unit, true
	if err := m.records.write(s.Key, rec); err != nil {
		return Unit{}, errors.Join(err, m.Release(s.Key, unit, true))
	}
	return Unit{Number: unit, Name: rec.Name}, nil
}

// Confirm checks that the unit is k's, and its node in /dev the unit's:
// GEOM lets two providers have one name. The unit is served meanwhile.
func (m *Manager) Confirm(ctx context.Context, k Key, u Unit) error {
	tree, err := m.read(ctx, m.waits.Confirm)
	if err != nil {
		return fmt.Errorf("check /dev/%s: %w", u.Name, err)
	}
	ours := false
	for _, g := range gateGeoms(tree) {
		if g.unit == u.Number {
			ours = g.info == Info(k) && g.name == u.Name
		}
	}
	if !ours {
		return fmt.Errorf("unit %d is not that of volume %v: %w", u.Number, k, ErrNotOurs)
	}
	for _, c := range tree.Classes {
		for _, g := range c.Geoms {
			for _, p := range g.Providers {
				if p.Name == u.Name && c.Name != gateClass && !p.Wither {
					return fmt.Errorf("/dev/%s is a device of class %s: stop that, or choose another --gate-name: %w", u.Name, c.Name, ErrNotOurs)
				}
			}
		}
	}
	return nil
}

// Mode tells who has the unit's device open. geomlib.ErrTreeBusy: GEOM does not
// tell before ctx ends.
func (m *Manager) Mode(ctx context.Context, unit int) (geomlib.Mode, error) {
	tree, err := m.tree.Read(ctx)
	if err != nil {
		return geomlib.Mode{}, err
	}
	for _, g := range gateGeoms(tree) {
		if g.unit == unit {
			return g.mode, nil
		}
	}
	return geomlib.Mode{}, &gate.OpError{Cmd: gate.CmdModify, Unit: unit, Err: gate.ErrGone}
}

// Resize changes the size of the unit's device.
func (m *Manager) Resize(unit int, size int64) error { return m.resize(unit, size) }

// RecordProviders records the providers of the volume with all units of its pool.
func (m *Manager) RecordProviders(id uint32, providers []string) error {
	keys, err := m.records.keys()
	for _, k := range keys {
		if k.ID != id {
			continue
		}
		rec, ok, e := m.records.read(k)
		if e == nil && ok {
			rec.Providers = providers
			e = m.records.write(k, rec)
		}
		err = errors.Join(err, e)
	}
	return err
}

// Release destroys k's unit and forgets it. Without force it fails with gate.ErrBusy while
// the device is open. It returns when nobody is within a request for the unit, which may be
// never; what another call has begun to destroy it waits for.
func (m *Manager) Release(k Key, unit int, force bool) error {
	for {
		m.mu.Lock()
		other := m.releasing[unit]
		if other == nil {
			r := &release{done: make(chan struct{})}
			m.releasing[unit] = r
			m.mu.Unlock()
			r.err = m.destroy(k, unit, force)
			m.mu.Lock()
			delete(m.releasing, unit)
			m.mu.Unlock()
			close(r.done)
			return r.err
		}
		m.mu.Unlock()
		<-other.done
		if other.err == nil {
			return nil // its number may be another's by now
		}
	}
}

// destroy is Release, of a unit that nobody else is destroying.
func (m *Manager) destroy(k Key, unit int, force bool) error {
	if err := m.gate.Destroy(unit, force); err != nil && !errors.Is(err, gate.ErrGone) {
		return err
	}
	return m.records.remove(k)
}

// Recorded reports whether a unit is recorded as k's.
func (m *Manager) Recorded(k Key, unit int) (bool, error) {
	rec, ok, err := m.records.read(k)
	if err != nil || !ok {
		return false, err
	}
	number, there, err := m.exists(rec)
	if err != nil || !there {
		number = rec.Unit // gone: what is left of it is its record
	}
	return number == unit, err
}

// Leftovers are the volumes that units are recorded of, or of what their pools have, which
// exist, with their providers. It does not wait for GEOM.
func (m *Manager) Leftovers() (map[uint32][]string, error) {
	left := make(map[uint32][]string)
	err := m.each(func(k Key, _ int, rec record) { left[k.ID] = rec.Providers })
	return left, err
}

// Units are the units that are recorded and exist. It does not wait for GEOM.
func (m *Manager) Units() (map[Key]Unit, error) {
	us := make(map[Key]Unit)
	err := m.each(func(k Key, unit int, rec record) { us[k] = Unit{Number: unit, Name: rec.Name, Taken: true} })
	return us, err
}

// UnitsOf are those of the pool of a volume, by what they are of: 0 is the volume itself.
func (m *Manager) UnitsOf(id uint32) (map[uint64]Unit, error) {
	all, err := m.Units()
	us := make(map[uint64]Unit)
	for k, u := range all {
		if k.ID == id {
			us[k.Map] = u
		}
	}
	return us, err
}

func (m *Manager) each(do func(k Key, unit int, rec record)) error {
	keys, err := m.records.keys()
	if err != nil {
		return err
	}
	for _, k := range keys {
		rec, ok, err := m.records.read(k)
		if err != nil {
			m.log.Error("a volume's unit is not known", "error", err) // Acquire refuses this one
		}
		if !ok {
			continue
		}
		unit, there, err := m.exists(rec)
		if err != nil {
			return err
		}
		if there {
			do(k, unit, rec)
		}
	}
	return nil
}

// Tree is the GEOM tree, or geomlib.ErrTreeBusy.
func (m *Manager) Tree(ctx context.Context) (*geomlib.Tree, error) { return m.read(ctx, m.waits.Trust) }

func (m *Manager) read(ctx context.Context, wait time.Duration) (*geomlib.Tree, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	return m.tree.Read(ctx)
}

const gateClass = "GATE"

// gateGeom is a unit as the tree shows it.
type gateGeom struct {
	unit int
	name string
	info string
	mode geomlib.Mode
}

func gateGeoms(t *geomlib.Tree) []gateGeom {
	c := t.Class(gateClass)
	if c == nil {
		return nil
	}
	var gs []gateGeom
	for _, g := range c.Geoms {
		unit, err := strconv.Atoi(g.Config["unit"])
		if err != nil || len(g.Providers) == 0 || g.Wither {
			continue
		}
		gs = append(gs, gateGeom{unit: unit, name: g.Providers[0].Name, info: g.Config["info"], mode: g.Providers[0].Mode})
	}
	return gs
}
