package picture

import (
	_ "embed"
	"encoding/xml"
	"fmt"
	"io"
	"strings"

	"github.com/gvirstor/gvirstor/ondisk"
)

// Style is what colours the drawings, in CSS: of the classes gv-empty, gv-text, gv-back
// and those of Class, for light and for dark screens.
//
//go:embed style.css
var Style string

// colors is how many components have a colour of their own; then they begin again.
const colors = 8

// Class is the class of Style that colours a component.
func Class(component int) string { return fmt.Sprintf("gv-%d", component%colors) }

// MapColumns is how many cells a row of the drawn map has.
const MapColumns = 48

// Sizes in the drawing, in pixels.
const (
	svgWidth  = mapWidth + 2*svgMargin
	svgMargin = 20
	svgLine   = 30
	svgBar    = 18
	svgName   = 24 // characters

	mapLeft  = 96 // where the first cell begins, behind the offsets
	mapCell  = 10
	mapWidth = mapLeft + MapColumns*mapCell
	mapRow   = 24 // from one row to the next
	mapBar   = 21 // of which the cells have so much
)

// Beginning is that of a drawing.
const Beginning = `<svg xmlns="http://www.w3.org/2000/svg" `

// WriteSVG writes a drawing that stands for itself: no scripts, no fonts, no
// links.
func (p *Picture) WriteSVG(w io.Writer) error {
	height := 2*svgMargin + 2*svgLine + p.rows()*mapRow + len(p.Components)*svgLine
	var b strings.Builder
	fmt.Fprintf(&b, Beginning+`width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="13">`+"\n",
		svgWidth, height, svgWidth, height)
	fmt.Fprintf(&b, "<title>%s</title>\n<style>%s</style>\n<rect class=\"gv-back\" width=\"100%%\" height=\"100%%\"/>\n", escape(p.Name), Style)
	y := svgMargin + 14
	text(&b, svgMargin, y, fmt.Sprintf("%s: %d of %d chunks allocated", ondisk.Printable(p.Name), p.Allocated, p.VirtualChunks))
	y += svgLine - 14
	p.drawMap(&b, svgMargin, y)
	y += p.rows()*mapRow + svgLine
	const left, room = 200, svgWidth - 200 - svgMargin - 110
	for _, c := range p.Components {
		text(&b, svgMargin, y, shorten(ondisk.Printable(c.Name), svgName, "…"))
		fmt.Fprintf(&b, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" class=\"gv-empty\"/>\n", left, y-14, room, svgBar)
		fmt.Fprintf(&b, "<rect x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%d\" class=\"%s\"/>\n", left, y-14, c.Fill*room, svgBar, Class(c.Index))
		text(&b, left+room+10, y, fmt.Sprintf("%d of %d", c.Used, c.Chunks))
		y += svgLine
	}
	b.WriteString("</svg>\n")
	return writeAll(w, b.String())
}

// WriteMap writes the map alone, for a page of HTML that has Style: no bars, which the
// page has in its own form. It is an element, not a document.
func (p *Picture) WriteMap(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="gv-map" viewBox="0 0 %d %d" role="img"><title>%s</title>`+"\n", mapWidth, p.rows()*mapRow,
		escape(fmt.Sprintf("Allocation map of %s: %d of %d chunks allocated", ondisk.Printable(p.Name), p.Allocated, p.VirtualChunks)))
	p.drawMap(&b, 0, 0)
	b.WriteString("</svg>")
	return writeAll(w, b.String())
}

func writeAll(w io.Writer, drawing string) error {
	if _, err := io.WriteString(w, drawing); err != nil {
		return fmt.Errorf("write picture: %w", err)
	}
	return nil
}

// rows is how many rows the map has.
func (p *Picture) rows() int { return (len(p.Cells) + MapColumns - 1) / MapColumns }

// drawMap draws the map from x and y on, each row with the offset at which it begins. Cells
// that follow each other and are empty, or full by one component, are one.
func (p *Picture) drawMap(b *strings.Builder, x, y int) {
	for row := range p.rows() {
		first := row * MapColumns
		cells := p.Cells[first:min(first+MapColumns, len(p.Cells))]
		fmt.Fprintf(b, "<text class=\"gv-text\" x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>\n", x+mapLeft-6, y+row*mapRow+16, Bytes(cells[0].Offset))
		for i := 0; i < len(cells); {
			n := alike(cells[i:])
			p.drawCells(b, cells[i:i+n], x+mapLeft+i*mapCell, y+row*mapRow)
			i += n
		}
	}
}

// alike is how many of the first cells look the same.
func alike(cells []Cell) int {
	n := 1
	for n < len(cells) && sameLook(&cells[0], &cells[n]) {
		n++
	}
	return n
}

func sameLook(a, b *Cell) bool {
	if len(a.Shares) == 0 || len(b.Shares) == 0 {
		return len(a.Shares) == len(b.Shares)
	}
	whole := a.Fill == 1 && b.Fill == 1 && len(a.Shares) == 1 && len(b.Shares) == 1
	return whole && a.Shares[0].Component == b.Shares[0].Component
}

// drawCells draws cells that look the same: what is allocated stands on the ground, one
// component upon the other.
func (p *Picture) drawCells(b *strings.Builder, cells []Cell, x, y int) {
	width := len(cells)*mapCell - 1
	fmt.Fprintf(b, "<g><title>%s</title><rect class=\"gv-empty\" x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\"/>", escape(p.cellText(cells)), x, y, width, mapBar)
	ground := float64(y + mapBar)
	for _, s := range cells[0].Shares {
		height := mapBar * float64(s.Chunks) / float64(cells[0].Length/p.ChunkSize)
		if len(cells[0].Shares) == 1 {
			height = max(height, 2) // or one chunk of many would not show
		}
		ground -= height
		fmt.Fprintf(b, "<rect class=\"%s\" x=\"%d\" y=\"%.1f\" width=\"%d\" height=\"%.1f\"/>", Class(s.Component), x, ground, width, height)
	}
	b.WriteString("</g>\n")
}

// cellText is what there is of cells to say.
func (p *Picture) cellText(cells []Cell) string {
	last := cells[len(cells)-1]
	where := fmt.Sprintf("%s to %s: ", Bytes(cells[0].Offset), Bytes(last.Offset+last.Length))
	if len(cells[0].Shares) == 0 {
		return where + "nothing allocated"
	}
	chunks := make(map[int]uint64)
	sum := uint64(0)
	for _, c := range cells {
		for _, s := range c.Shares {
			chunks[s.Component] += s.Chunks
			sum += s.Chunks
		}
	}
	said := fmt.Sprintf("%d of %d chunks allocated", sum, (last.Offset+last.Length-cells[0].Offset)/p.ChunkSize)
	for _, s := range cells[0].Shares {
		said += fmt.Sprintf(", %d on %s", chunks[s.Component], ondisk.Printable(p.Components[s.Component].Name))
	}
	return where + said
}

// Bytes is a size as people read it: "1.5 GiB", and in whole numbers from 10 on.
func Bytes(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	size, unit := float64(n), 0
	for size >= 1024 && unit < len(units)-1 {
		size, unit = size/1024, unit+1
	}
	if unit == 0 || size >= 9.95 || size == float64(int64(size)) {
		return fmt.Sprintf("%.0f %s", size, units[unit])
	}
	return fmt.Sprintf("%.1f %s", size, units[unit])
}

func text(b *strings.Builder, x, y int, s string) {
	fmt.Fprintf(b, "<text class=\"gv-text\" x=\"%d\" y=\"%d\">%s</text>\n", x, y, escape(s))
}

func escape(s string) string {
	var b strings.Builder
	if err := xml.EscapeText(&b, []byte(s)); err != nil {
		return "" // a strings.Builder does not fail
	}
	return b.String()
}
