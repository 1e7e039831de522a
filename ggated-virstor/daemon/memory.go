package daemon

import (
	"cmp"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/state"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ondisk"
)

// Memory keeps what this host knows of volumes that it served, of those only whose lock
// is held. A supervisor may stand behind it.
type Memory interface {
	// Recall is what is known of the volume of that id.
	Recall(id uint32) (v state.Volume, known bool, err error)
	// Remember notes v. A generation may not fall below what is known.
	Remember(v state.Volume) error
	// BeginAnew notes that the generations of the volume begin anew.
	BeginAnew(id uint32) error
}

// recall has cfg refuse a set of components that is older than what was served here.
// What is known and cannot be read is told, and keeps nobody from the volume.
func (d *Daemon) recall(a *virstor.Assembly, cfg *virstor.Config) {
	if d.opt.Memory == nil {
		return
	}
	v, known, err := d.opt.Memory.Recall(a.ID)
	if err != nil {
		d.log.Warn("what this host has served of the volume is not known: older copies would not be noticed", "volume", a.Name, "error", err)
	}
	if err != nil || !known {
		return
	}
	cfg.MinGeneration, cfg.MinBegan = v.Generation, v.Began
	if cfg.ForceOld = slices.Contains(d.opt.ForceOld, a.Name); cfg.ForceOld && a.Settled < v.Generation {
		d.log.Warn("an older state of the volume is served, as --force-old says: what was written since is given up",
			"volume", a.Name, "generation", a.Settled, "of", a.Began, "served before", v.Generation, "since", v.Began)
	}
}

// servedBefore reports whether this host is known to have served the volume, which
// nobody serves now.
func (d *Daemon) servedBefore(a *virstor.Assembly) bool {
	if a.Err != nil {
		return false
	}
	_, known := d.lastServed(a)
	return known
}

// lastServed is what is known of a volume that nobody serves now. What cannot be known is
// told when it is served.
func (d *Daemon) lastServed(a *virstor.Assembly) (v state.Volume, known bool) {
	if d.opt.Memory == nil {
		return v, false
	}
	lock, err := d.opener.LockVolume(a.ID)
	if err != nil {
		return v, false
	}
	defer lock.Close()
	v, known, err = d.opt.Memory.Recall(a.ID)
	return v, err == nil && known
}

// problemOf is why a volume is not served, with where this host last saw what is missing
// of it.
func (d *Daemon) problemOf(a *virstor.Assembly, err error) control.Problem {
	p := control.Problem{Volume: a.Name, ID: ondisk.VolumeID(a.ID), Reason: err.Error()}
	if a.Missing == nil {
		return p
	}
	v, _ := d.lastServed(a)
	seen := v.LastSeen(a.Missing)
	p.Reason += seen
	var lacking *virstor.IncompleteError
	if errors.As(err, &lacking) {
		p.Lacks = lacking.Lacks + seen
	}
	for _, i := range a.Missing {
		m := control.MissingComponent{Index: i}
		if i < len(v.Providers) {
			m.LastName = v.Providers[i]
		}
		p.Missing = append(p.Missing, m)
	}
	return p
}

// openRemembered opens what incomplete volumes lack where this host last served it: what
// add, a spare or growth brought is nowhere else named. What is not there any more, or is
// something else by now, stays missing, and problemOf says where it was. d.verbs is held.
func (d *Daemon) openRemembered(opens *ahead) {
	// Component 0 says what else there is, so it may take two rounds.
	for before := -1; before < len(d.loose); {
		before = len(d.loose)
		for _, a := range virstor.Assemble(slices.Collect(maps.Values(d.loose))) {
			if a.Missing == nil {
				continue
			}
			names := d.lastSeen(a)
			for _, name := range names {
				opens.begin(name, 0)
			}
			for _, name := range names {
				d.openMissing(a, name, opens)
			}
		}
	}
}

// lastSeen are the providers that a lacks, where this host last served it, of which none is
// open. d.verbs is held.
func (d *Daemon) lastSeen(a *virstor.Assembly) (names []string) {
	v, _ := d.lastServed(a)
	for _, i := range a.Missing {
		if i < len(v.Providers) && v.Providers[i] != "" && !d.knows(v.Providers[i]) {
			names = append(names, v.Providers[i])
		}
	}
	return names
}

// openMissing opens a provider if it is a component of a that is not open. d.verbs is held.
func (d *Daemon) openMissing(a *virstor.Assembly, name string, opens *ahead) {
	if d.knows(name) || d.twin(name) != nil {
		return
	}
	m, err := opens.member(name, 0)
	if err != nil {
		d.log.Debug("a component is not where this host last served it", "volume", a.Name, "component", name, "error", err)
		return
	}
	if m.Metadata.ID != a.ID {
		_ = m.Provider.Close() // it was only read
		return
	}
	d.log.Info("a component that nobody named is where this host last served it", "volume", a.Name, "component", name)
	d.loose[m.Provider.Name()] = m
}

// byService orders volumes of one name: the one that this host served before is first.
func (d *Daemon) byService(a, b *virstor.Assembly) int {
	if a.Name != b.Name {
		return 0
	}
	return cmp.Compare(rank(d.servedBefore(a)), rank(d.servedBefore(b)))
}

// rank is 0 for what comes first.
func rank(first bool) int {
	if first {
		return 0
	}
	return 1
}

// notes are what is remembered of one volume in service.
type notes struct {
	memory Memory // or nil
	vol    *virstor.Volume
	log    *slog.Logger

	making sync.Mutex // of one note
}

// take notes the volume as it is now. A failure is logged and keeps nothing from going
// on.
func (n *notes) take() { n.note(componentNames(n.vol)) }

// note is take with the names of the components.
func (n *notes) note(components []string) {
	if n.memory == nil || n.vol.ReadOnly() || n.vol.Deferred() {
		return
	}
	n.making.Lock()
	defer n.making.Unlock()
	generation, began := n.vol.Generation()
	if generation == 0 {
		return // handed back: its generations begin anew
	}
	err := n.memory.Remember(state.Volume{ID: n.vol.ID(), Name: n.vol.Name(), Generation: generation, Began: began.UTC(),
		Providers: components, Served: time.Now().UTC()})
	n.tell(err)
}

// beginAnew notes that the volume is about to be handed back.
func (n *notes) beginAnew() {
	if n.memory == nil || n.vol.ReadOnly() || n.vol.Deferred() {
		return
	}
	n.making.Lock()
	defer n.making.Unlock()
	n.tell(n.memory.BeginAnew(n.vol.ID()))
}

func (n *notes) tell(err error) {
	if err != nil {
		n.log.Warn("the state of the volume was not noted: older copies of its components may not be noticed", "volume", n.vol.Name(), "error", err)
	}
}

// componentNames are the volume's providers by index.
func componentNames(v *virstor.Volume) []string {
	var names []string
	for _, p := range v.Providers() {
		names = append(names, p.Name())
	}
	return names
}
