package daemon

import (
	"cmp"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/state"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
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
	if d.opt.Memory == nil || a.Err != nil {
		return false
	}
	lock, err := d.opener.LockVolume(a.ID)
	if err != nil {
		return false // as serving it will say
	}
	defer lock.Close()
	_, known, err := d.opt.Memory.Recall(a.ID)
	return err == nil && known
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
