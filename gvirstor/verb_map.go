package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/ownfile"
	"github.com/gvirstor/gvirstor/geomlib/virstor/picture"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ondisk"
)

func mapCommand() *command {
	var o mapOptions
	return &command{
		name:     "map",
		brief:    "Draws how full disk and components are",
		also:     "draw",
		operands: "[-f] [--ascii] [--json] [--snapshot snap] [--svg file] [--volume vol] name[/vol][@snap] | prov ...",
		options: func(f *options) {
			f.flag(&o.ascii, "", "ascii")
			f.flag(&o.force, "f", "force")
			f.flag(&o.json, "", "json")
			f.text(&o.snapshot, "snapshot")
			f.text(&o.svg, "svg")
			f.text(&o.volume, "volume")
		},
		run: func(ctx context.Context, c *call) error { return c.drawMap(ctx, o) },
		about: `Draws where the virtual disk is filled and how full each component is: a volume
in service by its name, or any by all its components; NAME/VOL or --volume draws
a further volume of the pool, and @SNAP or --snapshot the disk as that snapshot
has it. Each cell is an equal part of the disk, the first at its start; the
darker, the fuller. Components are filled with what other volumes and snapshots
have, too.

--ascii     without characters beyond ASCII
--json      numbers, in 1000 cells
--svg file  a drawing in that file, which must not be there: each component in a
            colour of its own, and each row with the offset that it begins at
-f          replace it if it is, and is a drawing`,
		example: "gvirstor map mydata",
	}
}

// mapOptions are those of map.
type mapOptions struct {
	ascii, json, force bool
	snapshot, svg      string
	volume             string // what follows the slash
}

const (
	mapLines    = 8    // of the virtual disk in a terminal
	mapWidth    = 80   // where there is no terminal
	mapAllCells = 1000 // in numbers
	mapDrawn    = 16   // rows of a drawing in a file
)

func (c *call) drawMap(ctx context.Context, o mapOptions) error {
	if len(c.operands) == 0 {
		return c.tooFew()
	}
	if o.svg == "" && o.force {
		return failf("-f is for --svg")
	}
	if o.svg != "" { // told before the work
		if err := mayReplace(o.svg, "draw to", "drawing", isDrawing, o.force); err != nil {
			return err
		}
	}
	if o.json && o.svg != "" {
		return failf("--json and --svg exclude each other")
	}
	if len(c.operands) == 1 {
		c.chooseMap(ctx, &o)
	}
	names, err := c.componentNames(ctx, c.operands)
	if err != nil {
		return err
	}
	providers, _, err := c.openToLook(names)
	defer closeProviders(providers)
	if err != nil {
		return err
	}
	width := mapWidth
	if w, _, ok := c.terminal(); ok && w > 0 {
		width = w
	}
	cells := mapLines * picture.Columns(width)
	switch {
	case o.json:
		cells = mapAllCells
	case o.svg != "":
		cells = mapDrawn * picture.MapColumns
	}
	a, err := assembleOne(providers)
	if err != nil {
		return failf("Can't draw: %w", err)
	}
	var p *picture.Picture
	err = c.work("map", a.Name, false, func(progress func(done, total int64)) (err error) {
		p, err = picture.FromAssembly(ctx, a, picture.Options{Cells: cells, Volume: o.volume, Snapshot: o.snapshot, Progress: progress})
		return err
	})
	if err != nil {
		return failf("Can't %w", err)
	}
	if len(p.Damaged) > 0 {
		c.warn(fmt.Sprintf("warning: damaged snapshots or volumes, what only they have looks free: %s", strings.Join(p.Damaged, " ")))
	}
	switch {
	case o.json:
		return printJSON(c.stdout, p)
	case o.svg != "":
		return saveSVG(p, o.svg, o.force)
	}
	return p.WriteText(c.stdout, picture.TextOptions{Width: width, ASCII: o.ascii || !c.speaksUTF8()})
}

// chooseMap takes from the only operand which map of the pool it names, where no option says.
func (c *call) chooseMap(ctx context.Context, o *mapOptions) {
	operand := &c.operands[0]
	if o.snapshot == "" {
		*operand, o.snapshot = cutSnapshot(*operand)
	}
	if o.volume == "" {
		*operand, o.volume = c.cutVolume(ctx, *operand)
	}
}

// cutVolume splits NAME/VOL. What is a file, or would be one in a folder that is there, is no
// such name, unless the daemon serves a volume of that NAME.
func (c *call) cutVolume(ctx context.Context, operand string) (pool, own string) {
	pool, own = control.SplitName(operand)
	if pool == "" || geomlib.Name(operand).Scheme() != "" || ondisk.CheckMapName(own) != nil {
		return operand, ""
	}
	switch {
	case exists(operand), exists(pool) && !c.isServed(ctx, pool, &where{}):
		return operand, ""
	case c.isServed(ctx, operand, &where{}): // the kernel class may have made that
		return operand, ""
	}
	return pool, own
}

// cutSnapshot splits NAME@SNAP. What is a file is no such name, nor is one without a snapshot.
func cutSnapshot(operand string) (volume, snapshot string) {
	volume, snapshot, found := strings.Cut(operand, "@")
	if _, err := os.Lstat(operand); !found || volume == "" || err == nil || ondisk.CheckMapName(snapshot) != nil {
		return operand, ""
	}
	return volume, snapshot
}

// isDrawing reports whether a file begins as a drawing does.
func isDrawing(path string) bool {
	f, err := ownfile.OpenRegular(path)
	if err != nil {
		return false
	}
	defer f.Close()
	begins := make([]byte, len(picture.Beginning))
	_, err = io.ReadFull(f, begins)
	return err == nil && string(begins) == picture.Beginning
}

// saveSVG writes over nothing that is there, unless force is set and it is a regular
// file.
func saveSVG(p *picture.Picture, path string, force bool) error {
	flags := os.O_WRONLY | os.O_CREATE | os.O_EXCL
	if fi, err := os.Lstat(path); force && err == nil && fi.Mode().IsRegular() {
		flags = os.O_WRONLY | os.O_TRUNC
	}
	f, err := os.OpenFile(path, flags, 0o666)
	if err != nil {
		return failf("Can't draw: %w", err)
	}
	if err := errors.Join(p.WriteSVG(f), f.Close()); err != nil {
		return failf("Can't draw to %s: %w", path, err)
	}
	return nil
}

// speaksUTF8 goes by locale(1)'s variables, in their order.
func (c *call) speaksUTF8() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := strings.ToUpper(c.getenv(name)); v != "" {
			return strings.Contains(v, "UTF-8") || strings.Contains(v, "UTF8")
		}
	}
	return false
}
