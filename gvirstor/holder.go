package main

import (
	"context"
	"fmt"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ondisk"
)

// servedIn is the volume that the daemon here serves with a provider of that name; empty
// where none answers, or it does not.
func (c *call) servedIn(ctx context.Context, name string) string {
	client, err := c.reach()
	if err != nil {
		return ""
	}
	defer client.Close()
	st, err := client.Status(ctx)
	if err != nil {
		return ""
	}
	if path, err := forDaemon(name); err == nil {
		name = path
	}
	for _, v := range st.Volumes {
		for _, p := range v.Components {
			if geomlib.Name(name).Same(p.Name) {
				return v.Name
			}
		}
	}
	return ""
}

// busyText tells who has a provider open that is locked, and what to do; or is otherwise,
// which has to say that, when it is not known.
func (c *call) busyText(ctx context.Context, name, otherwise string) string {
	v := ondisk.Printable(c.servedIn(ctx, name))
	if v == "" {
		return otherwise
	}
	return fmt.Sprintf("the daemon serves %s with it: `gvirstor stop %s` first", v, v)
}
