// Package gatepub makes geom_gate(4) a publisher of the daemon: each volume is a
// unit, and a device below /dev, further ones of a pool too, and a snapshot when that is
// asked for.
//
//	daemon ──► Publisher ──► Units: units.Manager, in this process or in the supervisor
//	                    │           makes, finds and ends units; may wait for GEOM
//	                    │              └──► helper.Asker asks what cannot be called off
//	                    └──► pool: what of a pool is published
//	                           └──► device: one unit
//	                                  └──► serve.Publication takes and answers its requests
package gatepub

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/gate"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
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
	// Confirm checks that the unit, which is served, is k's (units.ErrNotOurs).
	Confirm(ctx context.Context, k units.Key, u units.Unit) error
	// Mode tells who has the unit's device open (gate.ErrGone; geomlib.ErrTreeBusy
	// when GEOM does not tell before ctx ends).
	Mode(ctx context.Context, unit int) (geomlib.Mode, error)
	// Resize changes the size of the unit's device, in bytes.
	Resize(unit int, size int64) error
	// RecordProviders notes the names of the volume's providers, for the next daemon, with
	// all units of its pool.
	RecordProviders(id uint32, providers []string) error
	// Release destroys k's unit and forgets it. Without force it fails with
	// gate.ErrBusy while the device is open.
	Release(k units.Key, unit int, force bool) error
	// UnitsOf are the units that are recorded of a volume and of what its pool has, by
	// the id of the map, and exist. It does not wait for GEOM.
	UnitsOf(id uint32) (map[uint64]units.Unit, error)
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
	// volume's; empty means ggateN. Behind it stand "+WEB" of a further volume and
	// "@SNAP" of a snapshot: with a slash there devfs(5) would have a node and a folder
	// of one name.
	Name string
	Unit int // N, of the volume itself; or gate.UnitAuto
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

// Publish implements publish.Publisher. What a former daemon left is served first, all of it:
// GEOM may wait for any of these devices, and then for none but them.
func (g *Publisher) Publish(v *virstor.Volume) (publish.Published, error) {
	ps := v.Providers()
	if err := refuseFiles(ps); err != nil {
		return nil, err
	}
	p := &pool{
		gate: g, vol: v, log: g.Log.With("volume", v.Name()),
		shown: make(map[string]*device), leaving: make(map[string]int), wanted: make(map[uint64]bool),
	}
	if err := p.begin(); err != nil {
		return nil, err
	}
	return p, nil
}

// nodeOf is the name of the node of a volume or snapshot below /dev; empty means ggateN.
func (g *Publisher) nodeOf(pool, title string) string {
	name := g.Name
	if name == "" {
		return ""
	}
	if strings.HasSuffix(name, "/") {
		name += pool
	}
	volume, snapshot := publish.SplitTitle(title)
	if volume != "" {
		name += "+" + volume
	}
	if snapshot != "" {
		name += "@" + snapshot
	}
	return name
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
