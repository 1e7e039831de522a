package geomlib

import (
	"errors"
)

// Tree is the GEOM configuration at one moment, as the kernel prints it in
// kern.geom.confxml (sys/geom/geom_dump.c). It is not changed once made.
type Tree struct {
	Classes []*Class
}

// Class is a GEOM class, such as DISK or GATE.
type Class struct {
	ID    string
	Name  string
	Geoms []*Geom
}

// Geom is an instance of a class.
type Geom struct {
	ID        string
	Name      string
	Rank      int
	Wither    bool // it is on its way out
	Config    Config
	Class     *Class
	Consumers []*Consumer
	Providers []*TreeProvider
}

// Consumer is what a geom uses a provider by.
type Consumer struct {
	ID       string
	Mode     Mode
	Config   Config
	Geom     *Geom
	Provider *TreeProvider // nil: not attached
}

// TreeProvider is what a geom offers: a node in /dev.
type TreeProvider struct {
	ID           string
	Name         string // without /dev/
	Aliases      []string
	Mode         Mode
	MediaSize    int64 // bytes
	SectorSize   int64 // bytes
	StripeSize   int64 // bytes
	StripeOffset int64 // bytes
	Wither       bool
	Config       Config
	Geom         *Geom
}

// Mode counts who has a provider open, for reading, writing and exclusively.
type Mode struct{ Read, Write, Exclusive int }

// Config is what a class says of one of its objects. Of a name that appears
// more than once the first counts; a nested element is named "outer/inner".
type Config map[string]string

var (
	// ErrTree means that the XML is not a GEOM tree.
	ErrTree = errors.New("not a GEOM configuration")
	// ErrTreeBusy means that the kernel did not print the tree in time: its
	// event thread waits, perhaps for the caller.
	ErrTreeBusy = errors.New("GEOM is busy and does not show its configuration")
)

// Class returns the class of that name, or nil.
func (t *Tree) Class(name string) *Class {
	for _, c := range t.Classes {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// Geom returns the geom of that name in that class, or nil.
func (t *Tree) Geom(class, name string) *Geom {
	c := t.Class(class)
	if c == nil {
		return nil
	}
	for _, g := range c.Geoms {
		if g.Name == name {
			return g
		}
	}
	return nil
}

// Provider returns the provider of that name or alias, with or without /dev/,
// or nil. One that is on its way out is returned only if no other has the name.
func (t *Tree) Provider(name string) *TreeProvider {
	name = Name(name).Bare()
	var found *TreeProvider
	for _, c := range t.Classes {
		for _, g := range c.Geoms {
			for _, p := range g.Providers {
				if p.is(name) && (found == nil || found.Wither && !p.Wither) {
					found = p
				}
			}
		}
	}
	return found
}

func (p *TreeProvider) is(name string) bool {
	if p.Name == name {
		return true
	}
	for _, a := range p.Aliases {
		if a == name {
			return true
		}
	}
	return false
}

// OnTopOf reports whether I/O to the provider called name may end in the one
// called target: it is target, or is made of it through any number of geoms.
// A name that the tree does not have is on top of nothing.
func (t *Tree) OnTopOf(name, target string) bool {
	from, to := t.Provider(name), t.Provider(target)
	if from == nil || to == nil {
		return false
	}
	seen := map[*TreeProvider]bool{}
	todo := []*TreeProvider{from}
	for len(todo) > 0 {
		p := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if p == to {
			return true
		}
		if seen[p] {
			continue
		}
		seen[p] = true
		for _, c := range p.Geom.Consumers {
			if c.Provider != nil {
				todo = append(todo, c.Provider)
			}
		}
	}
	return false
}
