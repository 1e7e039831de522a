package main

import (
	"fmt"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/state"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ondisk"
)

// recall is what this host served of the volume of that id: generation 0 of none. What
// cannot be read is told.
func (c *call) recall(id uint32, stateDir string) state.Volume {
	if stateDir == "" {
		return state.Volume{}
	}
	v, _, err := state.Dir{Path: stateDir}.Recall(id)
	if err != nil {
		c.warn(fmt.Sprintf("warning: older copies would not be noticed: %v", err))
	}
	return v
}

// beginAnew notes that the generations of a volume begin anew, which was handed back.
func (c *call) beginAnew(id uint32, volume, stateDir string) {
	if stateDir == "" {
		return
	}
	if err := (state.Dir{Path: stateDir}).BeginAnew(id); err != nil {
		c.warn(fmt.Sprintf("warning: the next start needs --force-old %s: %v", volume, err))
	}
}

// raise notes how far a volume is that this host has served under the id was, and that
// was changed here: what is older than that is older from now on. Of a volume that this
// host never served nothing is noted.
func (c *call) raise(stateDir string, was uint32, v state.Volume) {
	if stateDir == "" {
		return
	}
	d := state.Dir{Path: stateDir}
	old, known, err := d.Recall(was)
	if err == nil && known {
		v.Served = old.Served
		err = d.Remember(v)
	}
	if err != nil {
		c.warn(fmt.Sprintf("warning: older copies of %s would not be noticed: %v", v.Name, err))
	}
}

// raiseFrom is raise of the volume on members as they say it is now; one without
// generations begins anew.
func (c *call) raiseFrom(stateDir string, was uint32, members []virstor.Member) error {
	if stateDir == "" || len(members) == 0 {
		return nil
	}
	m, err := geomlib.ReadMetadata(members[0].Provider)
	if err != nil {
		return failf("Can't read metadata from %s: %s", members[0].Provider.Name(), metadataText(err))
	}
	name := ondisk.Printable(m.Name)
	if m.Member.Settled == 0 {
		c.beginAnew(was, name, stateDir)
		return nil
	}
	v := state.Volume{ID: m.ID, Name: name, Generation: m.Member.Settled, Began: time.Unix(m.Member.Began, 0).UTC()}
	for _, m := range members {
		v.Providers = append(v.Providers, m.Provider.Name())
	}
	c.raise(stateDir, was, v)
	return nil
}

// componentsOf are the names of a volume's components by index.
func componentsOf(v *virstor.Volume) []string {
	var names []string
	for _, p := range v.Providers() {
		names = append(names, p.Name())
	}
	return names
}
