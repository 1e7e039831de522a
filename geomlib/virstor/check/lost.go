package check

import (
	"fmt"
	"slices"
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
	s, err := p.searchDirectory()
	if err != nil {
		return err
	}
	if s.unread > 0 {
		f.Mend = MendByHand
		f.Text += fmt.Sprintf(", nor whether there are snapshots: what names them is lost, and %s of %s cannot be read, where it may be", plural(s.unread, "chunk"), s.unreadOn)
		f.Remedy = "If a disk cannot be read, copy it to another one, and check that."
		v.find(f)
		return nil
	}
	v.newRecord = v.blankRecord(s.highest)
	v.newRecord.Directory = s.first
	f.Remedy = "`gvirstor repair` writes a new one."
	if s.stale {
		f.Text += "; what directories of snapshots are still there name chunks that hold data of the volume: those snapshots were deleted"
	}
	dir := s.dir
	if dir != nil {
		v.ext, v.pool, v.extOK = *v.newRecord, true, true
		newest := dir.Maps[0]
		for _, m := range dir.Maps[1:] {
			if m.Time >= newest.Time {
				newest = m
			}
		}
		f.Text += fmt.Sprintf("; a directory of %s and volumes is still there, the newest of which is %s, of %s",
			plural(len(dir.Maps)-1, "snapshot"), dir.Title(newest), time.Unix(newest.Time, 0).UTC().Format(time.DateTime))
		f.Remedy = "`gvirstor repair` writes a new one that names that directory. Look at the snapshots then: it may be one of those that were deleted since."
	}
	v.find(f)
	return nil
}

// search is what was found of directories.
type search struct {
	first    ondisk.Link
	dir      *ondisk.Directory // the one that may be in force; nil: none
	stale    bool              // there are some whose chunks the volume has
	highest  uint64            // sequence number of all that were found
	unread   int               // chunks that cannot be read
	unreadOn string
}

// searchDirectory reads the beginning of every chunk that nothing is known to have. The
// directory in force and the one before it are both there, and what is left of earlier
// ones: the latest that can be one of the pool is taken.
func (p *poolCheck) searchDirectory() (s search, err error) {
	for id, i := range p.member {
		m, names := p.v.at(i), p.v.maps[i]
		for chunk := uint32(m.want.ChunkReserved); chunk < m.dataEnd(); chunk++ {
			if names != nil && names.has(chunk) {
				continue
			}
			link, dir, err := p.directoryAt(m, ondisk.Place{Member: id, Chunk: chunk})
			if ended := p.v.in.ctx.Err(); ended != nil {
				return s, ended
			}
			if err != nil {
				s.unread, s.unreadOn = s.unread+1, m.name()
			}
			if dir != nil {
				s.take(link, dir, p.inUse(dir))
			}
		}
	}
	return s, nil
}

// take takes a directory in. Of two pools that were there, one after the other, that which
// began later is in force; earlier releases began to count anew with each.
func (s *search) take(link ondisk.Link, d *ondisk.Directory, inUse bool) {
	s.highest = max(s.highest, d.Sequence)
	began := d.Maps[0].Time
	switch {
	case inUse:
		s.stale = true
	case s.dir == nil, began > s.dir.Maps[0].Time, began == s.dir.Maps[0].Time && d.Sequence > s.dir.Sequence:
		s.first, s.dir = link, d
	}
}

// directoryAt is the directory that begins in a chunk of m; nil where none does that can be
// one of the pool. It fails where the chunk cannot be read.
func (p *poolCheck) directoryAt(m *member, at ondisk.Place) (link ondisk.Link, dir *ondisk.Directory, err error) {
	sector, off := int64(m.p.SectorSize()), int64(at.Chunk)*int64(m.want.ChunkSize)
	b := make([]byte, (ondisk.DirectoryHead+sector-1)/sector*sector)
	if err := readFull(m.p, b, off); err != nil {
		return link, nil, err
	}
	link, ok := ondisk.FindDirectory(at, b, m.want.ChunkSize)
	if !ok {
		return link, nil, nil
	}
	b = make([]byte, (int64(link.Length)+sector-1)/sector*sector)
	if err := readFull(m.p, b, off); err != nil {
		return link, nil, err
	}
	if link, ok = ondisk.FindDirectory(at, b, m.want.ChunkSize); !ok {
		return link, nil, nil
	}
	if dir, err = p.reader.Directory(p.v.in.ctx, link); err != nil {
		return link, nil, nil
	}
	return link, dir, nil
}

// inUse reports whether the first volume has chunks that d says are the pool's own: then
// the record named another directory, or none, when it took them.
func (p *poolCheck) inUse(d *ondisk.Directory) bool {
	has := func(at ondisk.Place) bool {
		names := p.v.maps[p.member[at.Member]]
		return names != nil && names.has(at.Chunk)
	}
	for _, a := range slices.Concat(d.Own, d.Other, d.Reserve) {
		if id, _ := d.Member(a.Number); has(ondisk.Place{Member: id, Chunk: a.Chunk}) {
			return true
		}
	}
	return slices.ContainsFunc(d.Maps[1:], func(m ondisk.PoolMap) bool { return has(m.List.Place) })
}

// blankRecord is the first record of the volume, later than what has that sequence number:
// no operation and no job is under way.
func (v *volumeCheck) blankRecord(after uint64) *ondisk.Extension {
	return &ondisk.Extension{Sequence: after + 1, VolumeID: v.zero.want.ID, ChunkSize: v.zero.want.ChunkSize}
}
