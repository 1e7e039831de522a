package daemon

import (
	"errors"
	"fmt"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
)

// ahead are opens that have begun before their turn, of what is reached over a network. Such
// an open waits until nothing can land any more of what a dead writer sent, and all wait at
// once. Local providers are opened in their turn: the names before say whether two are one
// disk.
type ahead struct {
	d     *Daemon
	peek  bool                   // components are only looked at, which waits for nothing
	begun map[string]chan opened // by bare name
}

// opened is what came of an open.
type opened struct {
	p   geomlib.Provider
	err error
}

func (d *Daemon) openAhead(peek bool) *ahead {
	return &ahead{d: d, peek: peek, begun: make(map[string]chan opened)}
}

// begin begins to open a component.
func (a *ahead) begin(name string, sectorSize int) {
	bare := geomlib.Name(name).Bare()
	if a.peek || geomlib.Name(name).Scheme() == "" || a.begun[bare] != nil {
		return
	}
	done := make(chan opened, 1)
	a.begun[bare] = done
	go func() { // it ends before close does
		p, err := a.d.open(name, sectorSize)
		done <- opened{p, err}
	}()
}

// open opens a component, or waits for the open that has begun.
func (a *ahead) open(name string, sectorSize int) (geomlib.Provider, error) {
	if a.peek {
		return a.d.opener.Peek(name, sectorSize)
	}
	bare := geomlib.Name(name).Bare()
	done := a.begun[bare]
	if done == nil {
		return a.d.open(name, sectorSize)
	}
	delete(a.begun, bare)
	o := <-done
	return o.p, o.err
}

// member is open with what the component's label says.
func (a *ahead) member(name string, sectorSize int) (virstor.Member, error) {
	p, err := a.open(name, sectorSize)
	if err != nil {
		return virstor.Member{}, err
	}
	m, err := geomlib.ReadMetadata(p)
	if err != nil {
		if l, e := geomlib.ReadSpare(p); e == nil {
			err = &spareError{l}
		} else if errors.Is(err, geomlib.ErrNoMetadata) {
			err = fmt.Errorf("%w: it is no component, or has another size than when it was labelled; if it has grown, `gvirstor expand` makes it one again", err)
			if !a.peek && !a.d.opt.ReadOnly {
				err = errors.Join(err, virstor.SettleCleared(p))
			}
		}
		return virstor.Member{}, errors.Join(err, p.Close())
	}
	return virstor.Member{Provider: p, Metadata: m}, nil
}

// close waits for what has begun and was not asked for, and closes it.
func (a *ahead) close() {
	for _, done := range a.begun {
		if o := <-done; o.err == nil {
			if err := o.p.Close(); err != nil {
				a.d.log.Debug("opened in vain", "what", o.p.Name(), "error", err)
			}
		}
	}
}
