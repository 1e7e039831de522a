package nbd

import (
	"slices"
	"strings"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/internal/proto"
)

// maxContexts bounds what one block status has to tell.
const maxContexts = 16

// metaContext is a metadata context that a client has selected.
type metaContext struct {
	id      uint32 // our name for it on the wire
	name    string
	changes virstor.Changes // what a dirty bitmap tells; nil: base:allocation
}

// contextsOf are the names of the contexts that a disk has at the moment: its allocation,
// and a dirty bitmap for each older snapshot.
func contextsOf(d Disk) []string {
	names := []string{proto.BaseAllocation}
	if h, ok := d.(historian); ok {
		for _, snapshot := range h.Older() {
			names = append(names, proto.DirtyBitmap+snapshot)
		}
	}
	return names
}

// openContext opens the context of that name. It holds its snapshot from then on, so that
// the name means that one for as long as the client is connected.
func openContext(d Disk, name string) (c metaContext, err error) {
	c.name = name
	if snapshot, ok := strings.CutPrefix(name, proto.DirtyBitmap); ok {
		c.changes, err = d.(historian).ChangesSince(snapshot)
	}
	return c, err
}

// dropContexts lets go of what was selected.
func (c *conn) dropContexts() {
	for _, m := range c.contexts {
		if m.changes != nil {
			m.changes.Close()
		}
	}
	c.contexts = nil
}

// named are those of names that the queries have in full, in their order.
func named(names, queries []string) []string {
	asked := make(map[string]bool, len(queries))
	for _, q := range queries {
		asked[q] = true
	}
	return slices.DeleteFunc(names, func(name string) bool { return !asked[name] })
}

// listed are those that queries mean in a list: no query at all means all, and a namespace
// what is in it.
func listed(names, queries []string) []string {
	if len(queries) == 0 {
		return names
	}
	all := slices.Clone(queries)
	for _, space := range []string{"base:", "qemu:", proto.DirtyBitmap} {
		if !slices.Contains(queries, space) {
			continue
		}
		for _, name := range names {
			if strings.HasPrefix(name, space) {
				all = append(all, name)
			}
		}
	}
	return named(names, all)
}
