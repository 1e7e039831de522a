package check

import (
	"errors"
	"fmt"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/extblock"
	"github.com/gvirstor/gvirstor/ondisk"
)

// A fenced component 0 with a member block always has a record: it is written before the
// fence, and before a new place of it counts. Where none is found the number of reserved
// chunks is wrong, which says where it lies, or it is lost; and with it what names the
// snapshots.

// mustHaveRecord reports whether m, taken for component 0, has a record unless it was lost.
func mustHaveRecord(m *member) bool {
	if m.found.Version != ondisk.VersionFenced || !m.found.Member.Exists() && !m.damaged {
		return false
	}
	_, room := ondisk.ExtensionOffset(m.want)
	return room
}

// provedReserved is the number of chunks that component 0 reserves by where its record
// lies; ok is false where no record says so. Metadata that its checksum vouches for is
// believed.
func (v *volumeCheck) provedReserved(m *member) (n uint32, ok bool) {
	if m.found.Version != ondisk.VersionFenced || !m.damaged {
		return 0, false
	}
	var best uint64
	last := min(ondisk.MaxReserved, m.usable(m.want.ChunkSize))
	for r := max(1, m.want.MapChunks()); r <= last && v.in.ctx.Err() == nil; r++ {
		w := m.want
		w.ChunkReserved = uint16(r)
		slots, room, err := extblock.Slots(m.p, w)
		if !room || err != nil {
			continue
		}
		rec, found, err := ondisk.PickExtension(slots, w)
		if err != nil || !found || rec.Validate(w, m.p.SectorSize()) != nil || rec.Sequence < best {
			continue
		}
		n, best, ok = r, rec.Sequence, true
	}
	// Where data lies it is the record in an image of the volume.
	return n, ok && !v.mapNamesBelow(0, n)
}

// checkLost looks for the directory of a volume whose record is lost. Repair writes a record
// that names it, or one without.
func (v *volumeCheck) checkLost(usable bool) error {
	if !v.recordLost {
		return nil
	}
	f := Finding{Severity: Error, Code: ExtensionDamaged, Provider: v.zero.name(), Mend: MendRepair, Prevents: true,
		Text: "neither slot of the extension block holds a record: whether an operation was interrupted cannot be told"}
	p := v.newPoolCheck()
	if !usable || p == nil {
		f.Mend = MendByHand
		f.Text += ", nor whether there are snapshots"
		f.Remedy = "Put right what else is wrong first, and check again: what can be found of snapshots is looked for then."
		v.find(f)
		return nil
	}
	first, dir, err := p.searchDirectory()
	if err != nil {
		return err
	}
	v.newRecord = v.blankRecord()
	v.newRecord.Directory = first
	f.Remedy = "`gvirstor repair` writes a new one."
	if dir != nil {
		v.ext, v.pool, v.extOK = *v.newRecord, true, true
		newest := dir.Maps[0]
		for _, m := range dir.Maps[1:] {
			if m.Time >= newest.Time {
				newest = m
			}
		}
		f.Text += fmt.Sprintf("; a directory of %s and volumes is still there, the newest of which is %s, of %s",
			plural(len(dir.Maps)-1, "snapshot"), nameIn(dir, newest), time.Unix(newest.Time, 0).UTC().Format(time.DateTime))
		f.Remedy = "`gvirstor repair` writes a new one that names that directory. Look at the snapshots then: it may be one of those that were deleted since."
	}
	v.find(f)
	return nil
}

// searchDirectory reads the beginning of every chunk that nothing is known to have. The
// directory in force and the one before it are both there, and what is left of earlier
// ones: the latest that can be one of the pool is taken.
func (p *poolCheck) searchDirectory() (first ondisk.Link, dir *ondisk.Directory, err error) {
	for id, i := range p.member {
		m, names := p.v.at(i), p.v.maps[i]
		sector := int64(m.p.SectorSize())
		head := make([]byte, (ondisk.DirectoryHead+sector-1)/sector*sector)
		for chunk := uint32(m.want.ChunkReserved); chunk < m.dataEnd(); chunk++ {
			if err := p.v.in.ctx.Err(); err != nil {
				return first, dir, err
			}
			if names != nil && names.has(chunk) {
				continue
			}
			off := int64(chunk) * int64(m.want.ChunkSize)
			if readFull(m.p, head, off) != nil {
				continue // what cannot be read is no directory that could be used
			}
			at := ondisk.Place{Member: id, Chunk: chunk}
			link, ok := ondisk.FindDirectory(at, head, m.want.ChunkSize)
			if !ok {
				continue
			}
			b := make([]byte, (int64(link.Length)+sector-1)/sector*sector)
			if readFull(m.p, b, off) != nil {
				continue
			}
			if link, ok = ondisk.FindDirectory(at, b, m.want.ChunkSize); !ok {
				continue
			}
			d, err := p.reader.Directory(p.v.in.ctx, link)
			if errors.Is(err, p.v.in.ctx.Err()) && err != nil {
				return first, dir, err
			}
			if err == nil && (dir == nil || d.Sequence > dir.Sequence) {
				first, dir = link, d
			}
		}
	}
	return first, dir, nil
}

// blankRecord is the first record of the volume: no operation and no job is under way.
func (v *volumeCheck) blankRecord() *ondisk.Extension {
	return &ondisk.Extension{Sequence: 1, VolumeID: v.zero.want.ID, ChunkSize: v.zero.want.ChunkSize}
}
