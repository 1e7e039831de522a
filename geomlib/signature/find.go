// Package signature names what is on a provider by the marks that file systems,
// partition tables, swap, volume managers and GEOM classes leave, so that nobody writes
// over it without having been told. It reads the first and the last part of a provider
// and nothing else, and believes nothing that it reads: a mark is enough to ask.
//
// Where marks are comes from the headers of those who write them (FreeBSD's sys/geom,
// ufs/ffs/fs.h and sys/disk; Linux's uapi headers) and from what their tools write.
package signature

import (
	"fmt"
	"strings"

	"github.com/gvirstor/gvirstor/geomlib"
)

// How much of a provider is read, in bytes. The uberblocks of the second label of ZFS
// end at 512 KiB, and its third label begins less than 768 KiB before the end.
const (
	headSize = 512 << 10
	tailSize = 768 << 10
)

// Found is something that a provider holds.
type Found struct {
	Name string // with its article: "an ext4 file system"
	// Volume is the id of the volume that the provider is a component or a spare of; 0
	// for all else.
	Volume uint32
}

// Find tells what p holds, in the order of the places: at most one of a name. It fails
// when p cannot be read.
func Find(p geomlib.Provider) ([]Found, error) {
	d, err := read(p)
	if err != nil {
		return nil, fmt.Errorf("look what %s holds: %w", p.Name(), err)
	}
	return d.find(), nil
}

// find tells what the disk holds.
func (d *disk) find() (all []Found) {
	seen := make(map[string]bool)
	for _, look := range []func(*disk) []Found{tables, fixed, fileSystems, raids, lastSectors} {
		for _, f := range look(d) {
			if !seen[f.Name] {
				seen[f.Name] = true
				all = append(all, f)
			}
		}
	}
	return all
}

// Text is what was found in words: "an ext4 file system and a GPT partition table".
func Text(all []Found) string {
	var names []string
	for _, f := range all {
		names = append(names, f.Name)
	}
	if n := len(names); n > 1 {
		return strings.Join(names[:n-1], ", ") + " and " + names[n-1]
	}
	return strings.Join(names, "")
}

// disk is what was read of a provider.
type disk struct {
	head, tail []byte
	tailAt     int64 // where tail begins
	size       int64
	sector     int
}

// read reads the parts that marks may be in.
func read(p geomlib.Provider) (*disk, error) {
	d := &disk{size: p.MediaSize(), sector: p.SectorSize()}
	sector := int64(d.sector)
	d.head = make([]byte, min(d.size, headSize)/sector*sector)
	if _, err := p.ReadAt(d.head, 0); err != nil {
		return nil, err
	}
	d.tailAt = max(0, d.size-tailSize) / sector * sector
	d.tail = make([]byte, d.size-d.tailAt)
	if _, err := p.ReadAt(d.tail, d.tailAt); err != nil {
		return nil, err
	}
	return d, nil
}

// at are the n bytes from off, nil where they were not read.
func (d *disk) at(off int64, n int) []byte {
	end := off + int64(n)
	switch {
	case off < 0 || end > d.size:
		return nil
	case end <= int64(len(d.head)):
		return d.head[off:end]
	case off >= d.tailAt:
		return d.tail[off-d.tailAt : end-d.tailAt]
	}
	return nil
}

// has reports whether text is at off.
func (d *disk) has(off int64, text string) bool { return string(d.at(off, len(text))) == text }

// number is the integer of n bytes at off, 0 where it was not read.
func (d *disk) number(off int64, n int, big bool) uint64 {
	var v uint64
	for i, b := range d.at(off, n) {
		if big {
			v = v<<8 | uint64(b)
		} else {
			v |= uint64(b) << (8 * i)
		}
	}
	return v
}

// little is a little-endian integer, as number.
func (d *disk) little(off int64, n int) uint64 { return d.number(off, n, false) }

// found is one thing by its name.
func found(name string) []Found { return []Found{{Name: name}} }
