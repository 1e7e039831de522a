package daemon

import (
	"time"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/space"
)

// policies are the ones of the volume called name.
func (o *Options) policies(name string) virstor.Config {
	if c, ok := o.PerVolume[name]; ok {
		return c
	}
	return o.Volume
}

// SetPolicies replaces Options.Volume and Options.PerVolume. Volumes in service
// take on what they can: what happens when they are full, and the reserve when
// it is another than before.
func (d *Daemon) SetPolicies(all virstor.Config, each map[string]virstor.Config) {
	d.verbs.Lock()
	defer d.verbs.Unlock()
	before := d.opt
	d.opt.Volume, d.opt.PerVolume = all, each
	d.mu.Lock()
	defer d.mu.Unlock()
	for name, s := range d.volumes {
		old, c := before.policies(name), d.opt.policies(name)
		s.vol.SetFull(c.WhenFull, c.FullTimeout)
		if c.HeldLimit > 0 {
			s.vol.SetHeldLimit(c.HeldLimit)
		}
		if c.Reserve == old.Reserve {
			continue // gvirstor(8) may have changed it
		}
		if err := s.vol.SetReserve(c.Reserve); err != nil {
			d.log.Error("reserve not changed", "volume", name, "error", err)
		}
	}
}

// GiveLastRoom releases the reserve of all volumes, for the system's shutdown. It may be
// called by any goroutine.
func (d *Daemon) GiveLastRoom() {
	for _, s := range d.all() {
		if err := s.vol.SetReserve(0); err != nil {
			d.log.Error("reserve not changed", "volume", s.vol.Name(), "error", err)
			continue
		}
		d.log.Info("the reserve is released, for the system shuts down", "volume", s.vol.Name())
	}
}

// SetAlertLevels replaces Options.Alerts.Levels, also of volumes in service.
func (d *Daemon) SetAlertLevels(c space.Thresholds) {
	d.mu.Lock()
	d.opt.Alerts.Levels = c
	d.mu.Unlock()
	for _, s := range d.all() {
		s.watch.SetLevels(c)
	}
}

// SetAlertCommand replaces Options.Alerts.Command and Timeout, also of volumes
// in service. What the old command has begun may end before the new one begins.
func (d *Daemon) SetAlertCommand(run space.Runner, timeout time.Duration) {
	d.verbs.Lock() // volumes come and go under it, and their hooks with them
	defer d.verbs.Unlock()
	d.mu.Lock()
	d.opt.Alerts.Command, d.opt.Alerts.Timeout = run, timeout
	d.mu.Unlock()
	for _, s := range d.all() {
		s.watch.SetCommand(run, timeout)
	}
}

// SetSpares replaces Options.Spares, also of volumes in service.
func (d *Daemon) SetSpares(o space.SpareOptions) {
	d.mu.Lock()
	d.opt.Spares = o
	d.mu.Unlock()
	for _, s := range d.all() {
		s.watch.Look()
	}
}

func (d *Daemon) alertOptions() space.AlertOptions {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.opt.Alerts
}

func (d *Daemon) spareOptions() space.SpareOptions {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.opt.Spares
}
