package daemon

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/geomlib/virstor/picture"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/web"
)

// Overview implements web.Overseer.
func (d *Daemon) Overview(ctx context.Context) (web.Overview, error) {
	o := web.Overview{Time: time.Now(), Maps: make(map[string]*picture.Picture), Snapshots: make(map[string][]control.Snapshot), Events: d.hub.Last()}
	var err error
	if o.Status, err = d.Status(ctx); err != nil {
		return o, err
	}
	clients, err := d.Clients(ctx)
	if err != nil {
		return o, err
	}
	o.Clients = clients.Clients
	for _, s := range d.all() {
		if o.Maps[s.vol.Name()], err = s.drawing.of(s.vol); err != nil {
			return o, fmt.Errorf("draw %s: %w", s.vol.Name(), err)
		}
		if err := d.newestSnapshots(ctx, s, s.vol.Name(), o.Snapshots); err != nil {
			return o, err
		}
		for _, f := range s.vol.Volumes() {
			if err := d.newestSnapshots(ctx, s, s.vol.Name()+"/"+f.Name, o.Snapshots); err != nil {
				return o, err
			}
		}
	}
	return o, nil
}

// newestSnapshots adds those of a volume, or of a further one of its pool, to what all have.
func (d *Daemon) newestSnapshots(ctx context.Context, s *served, name string, to map[string][]control.Snapshot) error {
	snapshots, err := d.verbsOf(s).Snapshots(ctx, name)
	if k := control.KindOf(err); err != nil && name != s.vol.Name() && (k == control.NotFound || k == control.Internal) {
		return nil // deleted meanwhile, or damaged, which the volume's status tells
	}
	if err != nil {
		return fmt.Errorf("snapshots of %s: %w", name, err)
	}
	if all := snapshots.Snapshots; len(all) > 0 {
		newest := slices.Clone(all[max(0, len(all)-web.MaxSnapshots):])
		slices.Reverse(newest)
		to[name] = newest
	}
	return nil
}

// mapRows is how many rows the map has that is shown of a volume.
const mapRows = 8

// drawing is the map of a volume as it was drawn last. To look at every entry of a large
// one takes its time: a drawing is good for a second, and for twenty times as long as it
// took.
type drawing struct {
	mu   sync.Mutex
	last *picture.Picture
	good time.Time // until then
}

// of is v's.
func (d *drawing) of(v *virstor.Volume) (*picture.Picture, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	begin := time.Now()
	if begin.Before(d.good) {
		return d.last, nil
	}
	p, err := picture.FromVolume(v, mapRows*picture.MapColumns)
	if err != nil {
		return nil, err
	}
	d.last, d.good = p, time.Now().Add(max(time.Second, 20*time.Since(begin)))
	return p, nil
}
