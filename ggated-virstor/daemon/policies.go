package daemon

import (
	"github.com/gvirstor/gvirstor/geomlib/virstor"
)

// policies are the ones of the volume called name.
func (o *Options) policies(name string) virstor.Config {
	if c, ok := o.PerVolume[name]; ok {
		return c
	}
	return o.Volume
}

// SetPolicies replaces Options.Volume and Options.PerVolume. Volumes in service
// take on what they can: what happens when they are full.
func (d *Daemon) SetPolicies(all virstor.Config, each map[string]virstor.Config) {
	d.verbs.Lock()
	defer d.verbs.Unlock()
	d.opt.Volume, d.opt.PerVolume = all, each
	d.mu.Lock()
	defer d.mu.Unlock()
	for name, s := range d.volumes {
		c := d.opt.policies(name)
		s.vol.SetFull(c.WhenFull, c.FullTimeout)
	}
}
