package gatetest

import (
	"bytes"
	"encoding/xml"
	"fmt"

	"github.com/gvirstor/gvirstor/geomlib/gate"
)

// AddProvider makes a provider of another class, which keeps name from being a
// unit's alone: GEOM does not refuse two providers of one name, and /dev shows
// the first.
func (k *Kernel) AddProvider(class, name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.others = append(k.others, foreign{class, name})
}

// foreign is a provider that is no unit's.
type foreign struct{ class, name string }

// Confxml is kern.geom.confxml: it waits for the event thread.
func (k *Kernel) Confxml() ([]byte, error) {
	k.events.waitIdle()
	var b bytes.Buffer
	b.WriteString("<mesh>\n<class id=\"gate\"><name>GATE</name>\n")
	for n := range k.units {
		s, ok := k.Peek(n)
		if !ok {
			continue
		}
		access := "read-write"
		if s.Flags&gate.ReadOnly != 0 {
			access = "read-only"
		}
		fmt.Fprintf(&b, "<geom id=\"g%d\"><class ref=\"gate\"/><name>%s</name><rank>1</rank><config><access>%s</access>"+
			"<timeout>0</timeout><info>%s</info><unit>%d</unit></config>"+
			"<provider id=\"p%d\"><geom ref=\"g%d\"/><mode>r%dw%de0</mode><name>%s</name>"+
			"<mediasize>%d</mediasize><sectorsize>%d</sectorsize></provider></geom>\n",
			n, escape(s.Name), access, escape(s.Info), n, n, n, s.Readers, s.Writers, escape(s.Name), s.MediaSize, s.SectorSize)
	}
	b.WriteString("</class>\n")
	k.mu.Lock()
	defer k.mu.Unlock()
	for i, o := range k.others {
		fmt.Fprintf(&b, "<class id=\"c%d\"><name>%s</name><geom id=\"o%d\"><class ref=\"c%d\"/><name>%s</name><rank>1</rank>"+
			"<provider id=\"q%d\"><geom ref=\"o%d\"/><mode>r0w0e0</mode><name>%s</name></provider></geom></class>\n",
			i, escape(o.class), i, i, escape(o.name), i, i, escape(o.name))
	}
	b.WriteString("</mesh>\n")
	return b.Bytes(), nil
}

func escape(s string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(s)) // a Buffer takes everything
	return b.String()
}
