package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

// connectOrKernel reaches the daemon. Where none runs but the kernel class has
// volumes, client is nil: these can be shown all the same, unless the user said
// which daemon to ask.
func (c *call) connectOrKernel(ctx context.Context) (client *control.Client, err error) {
	client, err = c.connect()
	if errors.Is(err, control.ErrNotRunning) && !c.socketNamed && len(c.kernelVolumes(ctx)) > 0 {
		c.warn("warning: ggated-virstor is not running; only volumes of the kernel class are shown")
		return nil, nil
	}
	return client, err
}

// overview is what the daemon tells, if there is one, and the volumes that only
// the kernel class runs.
func (c *call) overview(ctx context.Context, client *control.Client) (control.Status, error) {
	st := control.Status{Volumes: []control.VolumeStatus{}}
	if client != nil {
		var err error
		if st, err = client.Status(ctx); err != nil {
			return st, failf("Can't get the status: %w", err)
		}
	}
	st.Volumes = append(st.Volumes, c.kernelVolumes(ctx)...)
	return st, nil
}

// kernelVolumes are the volumes that the kernel class runs; none on systems
// without GEOM.
func (c *call) kernelVolumes(ctx context.Context) []control.VolumeStatus {
	tree, err := c.kernel.tree(ctx)
	if errors.Is(err, geomlib.ErrNotSupported) {
		return nil
	}
	if err != nil {
		c.warn(fmt.Sprintf("warning: volumes of the kernel class are not shown: %v", err))
		return nil
	}
	class := tree.Class("VIRSTOR")
	if class == nil {
		return nil
	}
	var all []control.VolumeStatus
	for _, g := range class.Geoms {
		if !g.Wither && g.Config["VirtualSize"] != "" {
			all = append(all, kernelVolume(g))
		}
	}
	slices.SortFunc(all, func(a, b control.VolumeStatus) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// kernelVolume reads what g_virstor_dumpconf (sys/geom/virstor/g_virstor.c) tells.
// Its percentages count reserved chunks twice; ours are made of its counts.
func kernelVolume(g *geomlib.Geom) control.VolumeStatus {
	v := control.VolumeStatus{
		Name: g.Name, VirtualSize: number(g.Config, "VirtualSize"), ChunkSize: number(g.Config, "ChunkSize"),
		VirtualChunks: number(g.Config, "ChunkVirtualCount"), PhysicalChunks: number(g.Config, "ChunkPhysicalCount"),
		Published: []control.Publication{}, Conditions: []control.Condition{control.KernelClass}, Components: []control.ComponentStatus{},
		WhenFull: "error", Alloc: "fill",
	}
	for _, p := range g.Providers {
		v.SectorSize = int(p.SectorSize)
		v.Published = append(v.Published, control.Publication{Kind: control.Kernel, Name: p.Name, Mode: control.Mode(p.Mode)})
	}
	var added []*geomlib.Consumer
	for _, c := range g.Consumers {
		switch {
		case c.Provider == nil:
		case c.Config["ChunkCount"] == "":
			added = append(added, c)
		default:
			v.Components = append(v.Components, kernelComponent(c))
		}
	}
	slices.SortFunc(v.Components, func(a, b control.ComponentStatus) int { return a.Index - b.Index })
	addedComponents(g, &v, added)
	for _, c := range v.Components {
		v.AllocatedChunks += int64(c.ChunksUsed) - int64(c.ChunksReserved)
		v.FreeChunks += int64(c.ChunksFree)
	}
	if count, _, ok := strings.Cut(strings.TrimPrefix(g.Config["Status"], "Components="), ","); ok && count != strconv.Itoa(len(v.Components)) {
		v.ExpectedComponents, _ = strconv.Atoi(count)
		v.Conditions = append(v.Conditions, control.Incomplete)
	} else if v.FreeChunks == 0 {
		v.Conditions = append(v.Conditions, control.Full)
	}
	v.State = v.StateText()
	return v
}

func kernelComponent(c *geomlib.Consumer) control.ComponentStatus {
	s := control.ComponentStatus{
		Name: c.Provider.Name, Index: int(number(c.Config, "ComponentIndex")),
		MediaSize: c.Provider.MediaSize, SectorSize: int(c.Provider.SectorSize),
		ChunkCount:     uint32(number(c.Config, "ChunkCount")),
		ChunksReserved: uint32(number(c.Config, "ChunksReserved")),
		Mode:           control.Mode(c.Mode),
	}
	// The next chunk to use: what is below is used, the reserved ones included.
	s.ChunksUsed = min(uint32(number(c.Config, "ChunksUsed")), s.ChunkCount)
	s.ChunksFree = s.ChunkCount - s.ChunksUsed
	s.StorageFreePercent = control.Percent(int64(s.ChunksFree), int64(s.ChunkCount))
	return s
}

// addedComponents appends the components that were added while the volume ran: of
// these the kernel tells nothing. What is used of them is what its total, in
// whole percent of all chunks, has beyond the others.
func addedComponents(g *geomlib.Geom, v *control.VolumeStatus, added []*geomlib.Consumer) {
	if len(added) == 0 || v.ChunkSize == 0 || v.PhysicalChunks == 0 {
		return
	}
	var known int64
	rest := v.PhysicalChunks
	for _, c := range v.Components {
		known += int64(c.ChunksUsed) + int64(c.ChunksReserved) // as the kernel counts
		rest -= int64(c.ChunkCount)
	}
	free, err := strconv.ParseInt(strings.TrimSuffix(g.Config["PhysicalFree"], "%"), 10, 64)
	used := int64(0)
	if err == nil && known*100/v.PhysicalChunks < 100-free {
		used = ((100-free)*v.PhysicalChunks+99)/100 - known
	}
	for _, c := range slices.Backward(added) { // the last one comes first
		s := kernelComponent(c)
		s.Index = len(v.Components)
		// It counts a chunk that ends with the metadata, too.
		s.ChunkCount = uint32(max(0, min(rest, s.MediaSize/v.ChunkSize)))
		rest -= int64(s.ChunkCount)
		s.ChunksUsed = uint32(min(used, int64(s.ChunkCount)))
		used -= int64(s.ChunksUsed)
		s.ChunksFree = s.ChunkCount - s.ChunksUsed
		s.StorageFreePercent = control.Percent(int64(s.ChunksFree), int64(s.ChunkCount))
		v.Components = append(v.Components, s)
	}
}

// number is an item of a configuration, 0 where the kernel prints none.
func number(c geomlib.Config, name string) int64 {
	n, err := strconv.ParseInt(c[name], 10, 64)
	if err != nil {
		return 0
	}
	return n
}
