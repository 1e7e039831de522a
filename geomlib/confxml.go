package geomlib

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"strings"
)

// The elements of kern.geom.confxml.
type (
	xmlMesh struct {
		XMLName xml.Name   `xml:"mesh"`
		Classes []xmlClass `xml:"class"`
	}
	xmlClass struct {
		ID    string    `xml:"id,attr"`
		Name  string    `xml:"name"`
		Geoms []xmlGeom `xml:"geom"`
	}
	xmlGeom struct {
		ID        string        `xml:"id,attr"`
		Name      string        `xml:"name"`
		Rank      int           `xml:"rank"`
		Wither    *struct{}     `xml:"wither"`
		Config    Config        `xml:"config"`
		Consumers []xmlConsumer `xml:"consumer"`
		Providers []xmlProvider `xml:"provider"`
	}
	xmlConsumer struct {
		ID       string  `xml:"id,attr"`
		Provider *xmlRef `xml:"provider"`
		Mode     string  `xml:"mode"`
		Config   Config  `xml:"config"`
	}
	xmlProvider struct {
		ID           string    `xml:"id,attr"`
		Mode         string    `xml:"mode"`
		Name         string    `xml:"name"`
		Aliases      []string  `xml:"alias"`
		MediaSize    int64     `xml:"mediasize"`
		SectorSize   int64     `xml:"sectorsize"`
		StripeSize   int64     `xml:"stripesize"`
		StripeOffset int64     `xml:"stripeoffset"`
		Wither       *struct{} `xml:"wither"`
		Config       Config    `xml:"config"`
	}
	xmlRef struct {
		Ref string `xml:"ref,attr"`
	}
)

// ParseTree reads what kern.geom.confxml holds. ErrTree means that it is
// something else, or that a reference leads nowhere: GEOM_GATE gives up the
// topology lock while it prints itself, so a tree may be torn.
func ParseTree(r io.Reader) (*Tree, error) {
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("read the GEOM configuration: %w", err)
	}
	var mesh xmlMesh
	if err := xml.Unmarshal(wellFormed(b), &mesh); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTree, err)
	}
	return buildTree(&mesh)
}

// wellFormed mends what classes print without escaping it, such as the info
// of GEOM_GATE: it does to it what g_conf_cat_escaped would have done. The
// NUL behind the string goes too.
func wellFormed(b []byte) []byte {
	b = bytes.TrimRight(b, "\x00")
	out := make([]byte, 0, len(b))
	for i, c := range b {
		switch {
		case c == '&' && !isReference(b[i:]):
			out = append(out, "&amp;"...)
		case c > 0x7e:
			out = fmt.Appendf(out, "&#x%X;", c)
		case c < 0x20 && c != '\t' && c != '\n' && c != '\r':
			out = append(out, '?')
		default:
			out = append(out, c)
		}
	}
	return out
}

func isReference(b []byte) bool {
	for _, ref := range []string{"&#x", "&amp;", "&lt;", "&gt;", "&quot;", "&apos;"} {
		if bytes.HasPrefix(b, []byte(ref)) {
			return true
		}
	}
	return false
}

// text turns a string back into the bytes that the kernel has: it escapes
// each byte of UTF-8 as a character of its own.
func text(s string) string {
	b := make([]byte, 0, len(s))
	for _, r := range s {
		if r > 0xff {
			return s
		}
		b = append(b, byte(r))
	}
	return string(b)
}

func buildTree(mesh *xmlMesh) (*Tree, error) {
	t := &Tree{}
	providers := map[string]*TreeProvider{}
	for _, xc := range mesh.Classes {
		c := &Class{ID: xc.ID, Name: text(xc.Name)}
		t.Classes = append(t.Classes, c)
		for i := range xc.Geoms {
			g, err := buildGeom(c, &xc.Geoms[i], providers)
			if err != nil {
				return nil, err
			}
			c.Geoms = append(c.Geoms, g)
		}
	}
	return t, attachConsumers(t, mesh, providers)
}

func buildGeom(c *Class, x *xmlGeom, providers map[string]*TreeProvider) (*Geom, error) {
	g := &Geom{ID: x.ID, Name: text(x.Name), Rank: x.Rank, Wither: x.Wither != nil, Config: x.Config, Class: c}
	for _, xp := range x.Providers {
		p := &TreeProvider{ID: xp.ID, Name: text(xp.Name), MediaSize: xp.MediaSize, SectorSize: xp.SectorSize,
			StripeSize: xp.StripeSize, StripeOffset: xp.StripeOffset, Wither: xp.Wither != nil, Config: xp.Config, Geom: g}
		for _, a := range xp.Aliases {
			p.Aliases = append(p.Aliases, text(a))
		}
		var err error
		if p.Mode, err = parseMode(xp.Mode); err != nil {
			return nil, fmt.Errorf("%w: provider %s: %w", ErrTree, p.Name, err)
		}
		if p.ID == "" || providers[p.ID] != nil {
			return nil, fmt.Errorf("%w: provider %s: id %q is not one of its own", ErrTree, p.Name, p.ID)
		}
		providers[p.ID] = p
		g.Providers = append(g.Providers, p)
	}
	return g, nil
}

// attachConsumers adds the consumers, once all providers are known.
func attachConsumers(t *Tree, mesh *xmlMesh, providers map[string]*TreeProvider) error {
	for i, c := range t.Classes {
		for j, g := range c.Geoms {
			for _, xc := range mesh.Classes[i].Geoms[j].Consumers {
				cp := &Consumer{ID: xc.ID, Config: xc.Config, Geom: g}
				var err error
				if cp.Mode, err = parseMode(xc.Mode); err != nil {
					return fmt.Errorf("%w: consumer of %s %s: %w", ErrTree, c.Name, g.Name, err)
				}
				if xc.Provider != nil {
					cp.Provider = providers[xc.Provider.Ref]
					if cp.Provider == nil {
						return fmt.Errorf("%w: consumer of %s %s: there is no provider %q",
							ErrTree, c.Name, g.Name, xc.Provider.Ref)
					}
				}
				g.Consumers = append(g.Consumers, cp)
			}
		}
	}
	return nil
}

// parseMode reads r1w1e0.
func parseMode(s string) (Mode, error) {
	var m Mode
	n, err := fmt.Sscanf(s+"\n", "r%dw%de%d\n", &m.Read, &m.Write, &m.Exclusive)
	if n != 3 || err != nil {
		return Mode{}, fmt.Errorf("mode %q is not like r1w1e0", s)
	}
	return m, nil
}

// String returns the mode as GEOM prints it.
func (m Mode) String() string { return fmt.Sprintf("r%dw%de%d", m.Read, m.Write, m.Exclusive) }

// UnmarshalXML implements xml.Unmarshaler.
func (c *Config) UnmarshalXML(d *xml.Decoder, _ xml.StartElement) error {
	if *c == nil {
		*c = Config{}
	}
	var path []string
	var said strings.Builder
	for {
		tok, err := d.Token()
		if err != nil {
			return err
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			if len(path) == maxConfigDepth {
				return fmt.Errorf("configuration nested deeper than %d elements", maxConfigDepth)
			}
			path = append(path, tok.Name.Local)
			said.Reset()
		case xml.CharData:
			said.Write(tok)
		case xml.EndElement:
			if len(path) == 0 {
				return nil
			}
			name := strings.Join(path, "/")
			value := text(strings.TrimSpace(said.String()))
			if _, known := (*c)[name]; !known {
				(*c)[name] = value
			}
			path = path[:len(path)-1]
			said.Reset()
		}
	}
}

// maxConfigDepth is far beyond what any class prints.
const maxConfigDepth = 16
