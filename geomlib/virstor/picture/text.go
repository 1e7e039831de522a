package picture

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// TextOptions modify WriteText.
type TextOptions struct {
	Width int  // columns of the terminal; less than 20 counts as 20
	ASCII bool // no characters beyond ASCII
}

const minWidth = 20

// Columns is how many cells a line of the disk has in a terminal of width
// columns.
func Columns(width int) int { return max(width, minWidth) - 2 }

var (
	shades      = []rune(" ░▒▓█")
	shadesASCII = []rune(" .:+#")
)

// shade is how a cell looks: empty and full only when it is.
func shade(fill float64, of []rune) rune {
	last := len(of) - 1
	switch {
	case fill <= 0:
		return of[0]
	case fill >= 1:
		return of[last]
	}
	return of[1+min(int(fill*float64(last-1)), last-2)]
}

// WriteText draws the disk as lines of cells, the first of which begins at its
// start, and each component as a bar.
func (p *Picture) WriteText(w io.Writer, o TextOptions) error {
	of, bar, rest := shades, "█", "·"
	if o.ASCII {
		of, bar, rest = shadesASCII, "#", "-"
	}
	var b strings.Builder
	percent := 0.0
	if p.VirtualChunks > 0 {
		percent = 100 * float64(p.Allocated) / float64(p.VirtualChunks)
	}
	fmt.Fprintf(&b, "%s: %d of %d chunks allocated (%.1f%%)\n", p.Name, p.Allocated, p.VirtualChunks, percent)
	cols := Columns(o.Width)
	for i := 0; i < len(p.Cells); i += cols {
		line := make([]rune, 0, cols)
		for _, c := range p.Cells[i:min(i+cols, len(p.Cells))] {
			line = append(line, shade(c.Fill, of))
		}
		fmt.Fprintf(&b, "|%-*s|\n", min(cols, len(p.Cells)), string(line))
	}
	cut := "…"
	if o.ASCII {
		cut = "..."
	}
	p.writeBars(&b, cols+2, bar, rest, cut)
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write picture: %w", err)
	}
	return nil
}

// shorten is name in at most n characters, its end, with mark for what is cut off.
func shorten(name string, n int, mark string) string {
	r := []rune(name)
	if len(r) <= n {
		return name
	}
	return mark + string(r[len(r)-max(0, n-utf8.RuneCountInString(mark)):])
}

const (
	leastBar  = 5 // columns of a component's bar
	leastName = 4 // and of its name, which a path may be
)

// writeBars draws the components, names in one column. Names that leave no room
// for a bar are cut.
func (p *Picture) writeBars(b *strings.Builder, width int, bar, rest, cut string) {
	names, tails := 0, 0
	tail := func(c Component) string { return fmt.Sprintf("%d/%d %3.0f%%", c.Used, c.Chunks, 100*c.Fill) }
	for _, c := range p.Components {
		names, tails = max(names, utf8.RuneCountInString(c.Name)), max(tails, len(tail(c)))
	}
	names = min(names, max(leastName, width-4-tails-leastBar))
	for _, c := range p.Components {
		room := max(leastBar, width-names-4-tails)
		n := int(c.Fill*float64(room) + 0.5)
		if c.Used > 0 {
			n = max(n, 1)
		}
		if c.Used < c.Chunks {
			n = min(n, room-1)
		}
		fmt.Fprintf(b, "%-*s [%s%s] %*s\n", names, shorten(c.Name, names, cut), strings.Repeat(bar, n), strings.Repeat(rest, room-n), tails, tail(c))
	}
}
