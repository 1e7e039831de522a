package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ondisk"
)

// listOptions are those of list.
type listOptions struct {
	all, exact, json bool
	fields           string // of -o; empty: all, as geom(8) shows them
	kind             string // of what is listed; "": volumes
	where            where  // a stopped volume, of which snapshots are listed
}

// printList prints a block for each volume, as geom(8) does.
func printList(w io.Writer, st control.Status, o *listOptions) {
	for i := range st.Volumes {
		printVolume(w, &st.Volumes[i])
	}
	if !o.all {
		return
	}
	for _, p := range st.Problems {
		if p.Volume != "" {
			printUnserved(w, p)
		}
	}
}

func printVolume(w io.Writer, v *control.VolumeStatus) {
	var backing int64
	for _, c := range v.Components {
		backing += c.MediaSize
	}
	fmt.Fprintf(w, "Geom name: %s\n", v.Name)
	fmt.Fprintf(w, "VirtualSize: %d\n", v.VirtualSize)
	fmt.Fprintf(w, "PhysicalBackingSize: %d\n", backing)
	fmt.Fprintf(w, "PhysicalBacking: %d%%\n", control.Percent(v.PhysicalChunks, v.VirtualChunks))
	fmt.Fprintf(w, "ChunkVirtualCount: %d\n", v.VirtualChunks)
	fmt.Fprintf(w, "ChunkPhysicalCount: %d\n", v.PhysicalChunks)
	fmt.Fprintf(w, "PhysicalFree: %d%%\n", v.FreePercent())
	fmt.Fprintf(w, "ChunkSize: %d\n", v.ChunkSize)
	fmt.Fprintf(w, "State: %s\n", v.State)
	fmt.Fprintf(w, "Status: Components=%d, Online=%d\n", max(v.ExpectedComponents, len(v.Components)), len(v.Components))
	// What follows the kernel class's items is there only when it matters.
	if l := v.Lease; l != nil {
		term := "run out"
		if l.LeftSeconds > 0 {
			term = fmt.Sprintf("for %d s unless it is renewed", int(l.LeftSeconds))
		}
		fmt.Fprintf(w, "Lease: of %s since %s, %s%s\n", ondisk.Printable(l.Host), l.Since.Local().Format(time.DateTime), term, unfenced(l))
	}
	if h := v.Held; h.Count > 0 {
		fmt.Fprintf(w, "Held: %d writes, %d bytes, the oldest for %d s\n", h.Count, h.Bytes, h.OldestSeconds)
	}
	if v.ReservedChunks > 0 {
		fmt.Fprintf(w, "ChunksKeptFree: %d\n", v.ReservedChunks)
	}
	if v.SecondsToFull != nil {
		fmt.Fprintf(w, "PredictedFull: in %d s\n", *v.SecondsToFull)
	}
	for _, a := range v.Alerts {
		fmt.Fprintf(w, "Alert: %s since %s\n", a.Level, a.Since.Local().Format(time.DateTime))
	}
	for _, s := range v.Spares {
		fmt.Fprintf(w, "Spare: %s\n", spareText(s))
	}
	if v.SparesAdded > 0 {
		fmt.Fprintf(w, "SparesAdded: %d\n", v.SparesAdded)
	}
	if v.Job != nil {
		fmt.Fprintf(w, "Job: %s\n", jobText(v.Job))
	}
	for _, f := range v.Volumes {
		fmt.Fprintf(w, "Volume: %s\n", furtherText(v.Name, f))
	}
	printProviders(w, v)
	printConsumers(w, v)
	fmt.Fprintln(w)
}

// furtherText is a further volume of the pool in words.
func furtherText(pool string, f control.PoolVolume) string {
	text := fmt.Sprintf("%s/%s, %d bytes (%s), %d bytes allocated", pool, f.Name, f.Size, humanize(f.Size), f.Allocated)
	if f.Quota > 0 {
		text += fmt.Sprintf(" of a quota of %d", f.Quota)
	}
	if f.SecondsToFull != nil {
		text += fmt.Sprintf(", which it has in %d s", *f.SecondsToFull)
	}
	if f.Origin != "" {
		text += fmt.Sprintf(", a clone of %s", originText(pool, f.Origin))
	}
	if f.Held.Count > 0 {
		text += fmt.Sprintf(", %d writes held", f.Held.Count)
	}
	if f.Degraded {
		text += ", degraded"
	}
	if f.Problem != "" {
		text += ": " + f.Problem
	}
	return text
}

// originText is a snapshot of the pool by its whole name.
func originText(pool, origin string) string {
	if strings.HasPrefix(origin, "@") {
		return pool + origin
	}
	return pool + "/" + origin
}

// printProviders prints the volume's nodes, with which NBD exports the first one has, and
// those of further volumes of its pool.
func printProviders(w io.Writer, v *control.VolumeStatus) {
	fmt.Fprintln(w, "Providers:")
	for i, node := range v.Nodes() {
		mode := nodeMode(v, node)
		fmt.Fprintf(w, "%d. Name: %s\n", i+1, node)
		printMedia(w, v.VirtualSize, v.SectorSize, mode)
		if i > 0 {
			continue
		}
		for _, p := range v.Published {
			if p.Kind == control.NBD {
				fmt.Fprintf(w, "   URI: %s\n", p.URI)
				fmt.Fprintf(w, "   Connections: %d\n", p.Connections)
			}
		}
	}
	n := len(v.Nodes())
	for _, f := range v.Volumes {
		for _, p := range f.Published {
			if p.Kind == control.Gate {
				n++
				fmt.Fprintf(w, "%d. Name: %s\n", n, p.Name)
				printMedia(w, f.Size, v.SectorSize, p.Mode)
			}
		}
	}
}

// nodeMode is how a node is open; where there is none, how the exports are. An export
// that is at several addresses is one, with the same clients at each.
func nodeMode(v *control.VolumeStatus, node string) control.Mode {
	exports := make(map[string]control.Mode)
	for _, p := range v.Published {
		if p.Kind == control.Gate {
			if p.Name == node {
				return p.Mode
			}
			continue
		}
		exports[p.Name] = p.Mode
	}
	var all control.Mode
	for _, m := range exports {
		all.Read += m.Read
		all.Write += m.Write
		all.Exclusive += m.Exclusive
	}
	return all
}

func printConsumers(w io.Writer, v *control.VolumeStatus) {
	if len(v.Components) == 0 {
		return
	}
	fmt.Fprintln(w, "Consumers:")
	for i, c := range v.Components {
		fmt.Fprintf(w, "%d. Name: %s\n", i+1, ondisk.Printable(c.Name))
		printMedia(w, c.MediaSize, c.SectorSize, c.Mode)
		fmt.Fprintf(w, "   StorageFree: %d%%\n", c.StorageFreePercent)
		fmt.Fprintf(w, "   ChunksReserved: %d\n", c.ChunksReserved)
		fmt.Fprintf(w, "   ChunksUsed: %d\n", c.ChunksUsed)
		fmt.Fprintf(w, "   ChunkCount: %d\n", c.ChunkCount)
		fmt.Fprintf(w, "   ComponentIndex: %d\n", c.Index)
		if len(c.State) > 0 {
			fmt.Fprintf(w, "   State: %s\n", conditionsText(c.State, ", "))
		}
	}
}

func printMedia(w io.Writer, size int64, sectorSize int, mode control.Mode) {
	fmt.Fprintf(w, "   Mediasize: %d (%s)\n", size, humanize(size))
	fmt.Fprintf(w, "   Sectorsize: %d\n", sectorSize)
	fmt.Fprintf(w, "   Mode: %s\n", mode)
}

// printUnserved is the block of a volume that is a problem.
func printUnserved(w io.Writer, p control.Problem) {
	fmt.Fprintf(w, "Geom name: %s\n", p.Volume)
	fmt.Fprintf(w, "State: %s\n", notServed)
	p.Volume = ""
	fmt.Fprintf(w, "Status: %s\n", problemText(p))
	if len(p.Providers) > 0 {
		fmt.Fprintf(w, "Consumers:\n")
	}
	for i, name := range p.Providers {
		fmt.Fprintf(w, "%d. Name: %s\n", i+1, ondisk.Printable(name))
	}
	fmt.Fprintln(w)
}

// printExactList is list -p.
func printExactList(w io.Writer, volumes []control.VolumeStatus) {
	for _, v := range volumes {
		for _, c := range v.Components {
			fmt.Fprintf(w, "%s\t%d\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\n", v.Name, c.Index, ondisk.Printable(c.Name), c.MediaSize, c.SectorSize,
				c.ChunkCount, c.ChunksReserved, c.ChunksUsed, c.ChunksFree, c.StorageFreePercent)
		}
	}
}

// jobText is a job in a line: "evacuate 50% (512M of 1.0G, 10M/s)".
func jobText(j *control.JobStatus) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s", j.Kind)
	if j.Total > 0 {
		fmt.Fprintf(&b, " %d%%", control.Percent(j.Done, j.Total))
	}
	fmt.Fprintf(&b, " (%s", humanize(j.Done))
	if j.Total > 0 {
		fmt.Fprintf(&b, " of %s", humanize(j.Total))
	}
	fmt.Fprintf(&b, ", %s/s)", humanize(j.Rate))
	return b.String()
}
