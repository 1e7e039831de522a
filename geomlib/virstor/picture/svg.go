package picture

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
)

// Sizes in the drawing, in pixels.
const (
	svgWidth  = 960
	svgMargin = 20
	svgCell   = 10
	svgBar    = 18
	svgLine   = 30
	svgName   = 26 // characters
)

// WriteSVG writes a drawing that stands for itself: no scripts, no fonts, no
// links.
func (p *Picture) WriteSVG(w io.Writer) error {
	const cols = (svgWidth - 2*svgMargin) / svgCell
	rows := (len(p.Cells) + cols - 1) / cols
	height := 2*svgMargin + svgLine + rows*svgCell + svgLine + len(p.Components)*svgLine
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="13">`+"\n",
		svgWidth, height, svgWidth, height)
	fmt.Fprintf(&b, "<title>%s</title>\n<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n", escape(p.Name))
	y := svgMargin + 14
	text(&b, svgMargin, y, fmt.Sprintf("%s: %d of %d chunks allocated", p.Name, p.Allocated, p.VirtualChunks))
	y += svgLine - 14
	for i, c := range p.Cells {
		fmt.Fprintf(&b, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"%s\"/>\n",
			svgMargin+i%cols*svgCell, y+i/cols*svgCell, svgCell-1, svgCell-1, color(c))
	}
	y += rows*svgCell + svgLine
	const left, room = 220, svgWidth - 220 - svgMargin - 160
	for _, c := range p.Components {
		text(&b, svgMargin, y, shorten(c.Name, svgName, "…"))
		fmt.Fprintf(&b, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"%s\"/>\n", left, y-14, room, svgBar, color(0))
		fmt.Fprintf(&b, "<rect x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%d\" fill=\"%s\"/>\n", left, y-14, c.Fill*room, svgBar, color(1))
		text(&b, left+room+10, y, fmt.Sprintf("%d of %d", c.Used, c.Chunks))
		y += svgLine
	}
	b.WriteString("</svg>\n")
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write picture: %w", err)
	}
	return nil
}

func text(b *strings.Builder, x, y int, s string) {
	fmt.Fprintf(b, "<text x=\"%d\" y=\"%d\">%s</text>\n", x, y, escape(s))
}

func escape(s string) string {
	var b strings.Builder
	if err := xml.EscapeText(&b, []byte(s)); err != nil {
		return "" // a strings.Builder does not fail
	}
	return b.String()
}

// color goes from a light gray for empty over light blue to dark blue.
func color(fill float64) string {
	if fill <= 0 {
		return "#ececec"
	}
	fill = min(fill, 1)
	from, to := [3]float64{0xbd, 0xd7, 0xee}, [3]float64{0x1f, 0x4e, 0x79}
	var c [3]int
	for i := range c {
		c[i] = int(from[i] + (to[i]-from[i])*fill)
	}
	return fmt.Sprintf("#%02x%02x%02x", c[0], c[1], c[2])
}
