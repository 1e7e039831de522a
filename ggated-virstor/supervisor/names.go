package supervisor

import (
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

// errNotNamed: a worker asks for what nobody named. It is no fs.ErrNotExist:
// whether there is such a file is not the worker's to know.
var errNotNamed = fmt.Errorf("neither the configuration nor a request of an administrator names it: %w", fs.ErrPermission)

// grantLinger is how long what a request names may still be opened when it has
// been answered: spares of a volume that it made complete are opened after that.
const grantLinger = 30 * time.Second

// names are what may be opened for a worker. The worker's own words add
// nothing to them.
type names struct {
	mu         sync.Mutex
	configured map[string]string        // by bare name: what the configuration names
	made       map[string]string        // what volumes grew by
	kept       map[string]string        // spares that requests named
	before     map[string]string        // what this host has served as components
	requests   map[*grant]bool          // under way, or answered a moment ago
	aliases    map[string]string        // a provider's own bare name → the bare name it was opened by
	remembered func() ([]string, error) // what records of devices name, or nil
}

// grant is what one request names.
type grant struct{ open map[string]string }

// bare is the key of a provider's name, which may have /dev/ before it or not.
func bare(name string) string { return geomlib.Name(name).Bare() }

func byBareName(all []string) map[string]string {
	m := make(map[string]string, len(all))
	for _, name := range all {
		m[bare(name)] = name
	}
	return m
}

// configure replaces what the configuration names.
func (n *names) configure(all []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.configured = byBareName(all)
}

// grew adds what was made for a volume.
func (n *names) grew(all ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.made == nil {
		n.made = make(map[string]string)
	}
	maps.Copy(n.made, byBareName(all))
}

// ungrew takes away what was made and removed again.
func (n *names) ungrew(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.made, bare(name))
}

// keep names spares for as long as no request drops them.
func (n *names) keep(all []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.kept == nil {
		n.kept = make(map[string]string)
	}
	maps.Copy(n.kept, byBareName(all))
}

// served adds the components of a volume as this host last served it, by its own notes;
// an empty name is none.
func (n *names) served(all []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.before == nil {
		n.before = make(map[string]string)
	}
	maps.Copy(n.before, byBareName(slices.DeleteFunc(slices.Clone(all), func(name string) bool { return name == "" })))
}

// keptNames are those of keep.
func (n *names) keptNames() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Sorted(maps.Values(n.kept))
}

// grant lets what a request names be opened until the returned function has been
// called, and a little longer.
func (n *names) grant(a control.Access) (end func()) {
	g := &grant{open: byBareName(a.Open)}
	n.keep(a.Keep)
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, name := range a.Drop {
		n.dropLocked(bare(name))
	}
	if len(g.open) == 0 {
		return func() {}
	}
	if n.requests == nil {
		n.requests = make(map[*grant]bool)
	}
	n.requests[g] = true
	return func() { time.AfterFunc(grantLinger, func() { n.forget(g) }) }
}

// dropLocked ends what requests allowed of a provider; n.mu is held.
func (n *names) dropLocked(key string) {
	for _, k := range []string{key, n.aliases[key]} {
		delete(n.kept, k)
		delete(n.before, k)
		for g := range n.requests {
			delete(g.open, k)
		}
	}
}

func (n *names) forget(g *grant) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.requests, g)
}

// mayOpen is the name by which what the worker calls name may be opened.
func (n *names) mayOpen(name string) (string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	keys := []string{bare(name)}
	if other, ok := n.aliases[keys[0]]; ok {
		keys = append(keys, other)
	}
	for _, key := range keys {
		if found, ok := n.lookLocked(key); ok {
			return found, nil
		}
	}
	if n.remembered == nil {
		return "", fmt.Errorf("%.200q: %w", name, errNotNamed)
	}
	all, err := n.remembered()
	if err != nil {
		return "", err
	}
	for _, found := range all {
		if slices.Contains(keys, bare(found)) {
			return found, nil
		}
	}
	return "", fmt.Errorf("%.200q: %w", name, errNotNamed)
}

// lookLocked looks for a bare name; n.mu is held.
func (n *names) lookLocked(key string) (string, bool) {
	for _, m := range []map[string]string{n.configured, n.made, n.kept, n.before} {
		if found, ok := m[key]; ok {
			return found, true
		}
	}
	for g := range n.requests {
		if found, ok := g.open[key]; ok {
			return found, true
		}
	}
	return "", false
}

// opened notes that a provider which was opened by a name calls itself own: the
// worker will know it by that.
func (n *names) opened(name, own string) {
	from, to := bare(own), bare(name)
	if from == to {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.aliases == nil {
		n.aliases = make(map[string]string)
	}
	n.aliases[from] = to
}
