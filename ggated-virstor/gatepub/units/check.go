package units

import (
	"context"
	"fmt"
	"strings"

	"github.com/gvirstor/gvirstor/geomlib"
)

const infoPrefix = "ggated-virstor "

// CheckComponents refuses providers that lie on a device that ggated-virstor
// itself serves: its writes would wait for itself.
func (m *Manager) CheckComponents(ctx context.Context, providers []string) error {
	tree, err := m.read(ctx, m.waits.Guess)
	if err != nil {
		return fmt.Errorf("see what the components lie on: %w", err)
	}
	for _, g := range gateGeoms(tree) {
		if !strings.HasPrefix(g.info, infoPrefix) {
			continue
		}
		for _, p := range providers {
			if tree.OnTopOf(p, g.name) {
				return fmt.Errorf("component %s lies on /dev/%s, which ggated-virstor itself serves: use another disk: %w", p, g.name, ErrNotOurs)
			}
		}
	}
	return nil
}

// Holder says which geom of the kernel holds a provider exclusively, such as
// "the kernel's geom_virstor runs virstor/mydata on it"; empty when none does.
func Holder(t *geomlib.Tree, provider string) string {
	p := t.Provider(provider)
	if p == nil {
		return ""
	}
	for _, c := range t.Classes {
		for _, g := range c.Geoms {
			for _, cons := range g.Consumers {
				if cons.Provider != p || cons.Mode.Exclusive == 0 {
					continue
				}
				if c.Name == "VIRSTOR" {
					return fmt.Sprintf("the kernel's geom_virstor runs the volume %s on it: unmount it and `geom virstor stop %s` first", g.Name, g.Name)
				}
				return fmt.Sprintf("it is held by %s of class %s", g.Name, c.Name)
			}
		}
	}
	return ""
}
