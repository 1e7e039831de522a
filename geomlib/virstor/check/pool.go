package check

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/poolio"
	"github.com/gvirstor/gvirstor/ondisk"
)

// Snapshot is a snapshot of a Volume.
type Snapshot struct {
	Name    string    `json:"name"` // what follows the "@"
	ID      uint64    `json:"id"`
	Created time.Time `json:"created"`
	Size    uint64    `json:"size"` // of the volume then, bytes
	// Chunks are how many chunks of data its map names, and Unique how many of them
	// nothing else does: those that a delete would free. Both are 0 of a damaged one,
	// and Unique of a volume in use.
	Chunks  uint64 `json:"chunks"`
	Unique  uint64 `json:"unique"`
	Damaged bool   `json:"damaged,omitempty"`
	// Clones are the volumes that began as it, and need it.
	Clones []string `json:"clones,omitempty"`

	of ondisk.PoolMap // or of a further volume, which is looked at alike
}

// poolCheck looks at what the components hold beside the volume's map: the directory that
// is in force, and the maps of the snapshots. What names which chunk it takes from these
// bytes alone.
type poolCheck struct {
	v      *volumeCheck
	reader *poolio.Reader
	member map[uint64]int // index of the component, by member id
	dir    *ondisk.Directory
	maps   []*snapshotMap        // of intact snapshots, the newest first
	parts  map[ondisk.Place]bool // chunks of maps, which snapshots may share
	same   map[uint64]bool       // virtual chunks of suspects whose chunk a snapshot has for them
	found  []Finding
}

// snapshotMap is where the map of a snapshot lies.
type snapshotMap struct {
	*Snapshot
	at    *poolio.Map
	block []byte // the entries that are looked at
}

// checkPool looks at the pool that the record in force names, if it names any. What a
// volume in use had when that record was read, and does not have any more, is no finding.
func (v *volumeCheck) checkPool() error {
	if !v.pool || !v.extOK {
		return nil
	}
	p := v.newPoolCheck()
	if p == nil {
		return nil // of which is told already
	}
	if err := p.look(); err != nil {
		return err
	}
	if v.in.opt.Live && p.gone() {
		v.Snapshots = []Snapshot{}
		v.find(Finding{Severity: Info, Code: Changing, Text: "its snapshots changed while they were looked at",
			Remedy: "Check again when none is taken or deleted."})
		return nil
	}
	for _, f := range p.found {
		v.find(f)
	}
	return nil
}

// newPoolCheck is one of the components, nil when one of them is missing.
func (v *volumeCheck) newPoolCheck() *poolCheck {
	if v.assembly == nil || v.zero == nil {
		return nil
	}
	p := &poolCheck{v: v, member: make(map[uint64]int), parts: make(map[ondisk.Place]bool),
		same:   make(map[uint64]bool),
		reader: poolio.New(v.zero.want.ChunkSize, v.zero.p.SectorSize())}
	for i := range v.assembly.Members {
		m := v.at(i)
		if m == nil {
			return nil
		}
		md := m.want
		if m.found.Member.Exists() { // else a damaged block, where the others prove what it was
			md.Member = m.found.Member
		}
		if !md.Member.Exists() {
			continue // nothing names it
		}
		p.member[md.Member.ID] = i
		p.reader.Add(m.p, md)
	}
	return p
}

// gone reports whether another directory is in force now, or none.
func (p *poolCheck) gone() bool {
	now, ok := readExtension(p.v.zero)
	return !ok || now.Directory != p.v.ext.Directory
}

// look reads the directory and the maps, and counts owners.
func (p *poolCheck) look() error {
	v := p.v
	err := p.readDirectory()
	switch {
	case errors.Is(err, virstor.ErrUnserved):
		p.find(Finding{Severity: Error, Code: PoolUnknown, Provider: v.zero.name(), Mend: MendByHand, Prevents: true, Text: err.Error(),
			Remedy: "Use a version of this program that serves it."})
		return nil
	case err != nil:
		p.find(Finding{Severity: Error, Code: DirectoryDamaged, Provider: v.zero.name(), Mend: MendByHand, Prevents: true,
			Text:   fmt.Sprintf("the directory of its snapshots cannot be used: %v", err),
			Remedy: "If a disk cannot be read, copy it to another one, and check that."})
		return nil
	}
	p.checkRollback()
	v.Snapshots = []Snapshot{}
	for _, m := range p.dir.Maps[1:] {
		if m.Kind == ondisk.KindSnapshot {
			v.Snapshots = append(v.Snapshots, Snapshot{Name: p.dir.Title(m), ID: m.ID, Created: time.Unix(m.Time, 0).UTC(), Size: m.Size, of: m})
		}
	}
	for _, m := range p.dir.Maps[1:] {
		i := slices.IndexFunc(v.Snapshots, func(s Snapshot) bool { return m.Kind == ondisk.KindVolume && s.ID == m.Origin })
		if i >= 0 {
			v.Snapshots[i].Clones = append(v.Snapshots[i].Clones, v.Name+p.dir.Title(m))
		}
	}
	last := len(v.Snapshots)
	for _, m := range slices.Backward(p.dir.Maps[1:]) {
		s := &Snapshot{Name: p.dir.Title(m), ID: m.ID, of: m}
		if m.Kind == ondisk.KindSnapshot {
			last--
			s = &v.Snapshots[last]
		}
		sm, err := p.readMap(s, m)
		if v.in.ctx.Err() != nil {
			return v.in.ctx.Err()
		}
		if err != nil {
			p.damaged(s, err)
			continue
		}
		p.maps = append(p.maps, sm)
	}
	if v.in.opt.Live {
		return nil // what the volume names changes meanwhile
	}
	if err := p.countOwners(); err != nil {
		return err
	}
	p.judgeSuspects()
	return nil
}

// judgeSuspects finds which entries of the volume's map that may have been allocated name
// what is another's in the pool.
func (p *poolCheck) judgeSuspects() {
	for i := range p.v.suspects {
		s := &p.v.suspects[i]
		if s.As == nil || p.same[s.Virtual] {
			continue
		}
		b := p.v.maps[s.As.Component]
		s.Taken = b != nil && b.has(s.As.Chunk)
	}
}

func (p *poolCheck) find(f Finding) { p.found = append(p.found, f) }

// damaged finds that a snapshot is, once.
func (p *poolCheck) damaged(s *Snapshot, err error) {
	if s.Damaged {
		return
	}
	s.Damaged, s.Chunks, s.Unique = true, 0, 0
	copied := "If a disk cannot be read, copy it to another one, and check that."
	f := Finding{Severity: Error, Code: SnapshotDamaged, Provider: p.v.zero.name(), Mend: MendChoice, Snapshot: s.Name,
		Text: fmt.Sprintf("%v %s is damaged: %v", s.of.Kind, s.Name, err),
		Remedy: fmt.Sprintf("%s While it is damaged the volume is only read. If nothing brings it back, what it alone holds is lost: `gvirstor repair --give-up %s` gives it up, with -f.",
			copied, s.Name)}
	if s.Clones != nil {
		f.Remedy = fmt.Sprintf("%s While it is damaged all volumes are only read, and %s, which began as it, are the way to what it held: copy what they have to another volume. "+
			"If nothing brings it back, it can be given up when they are gone: what they hold is lost when `gvirstor delete` deletes them, with -f; then `gvirstor repair --give-up %s` gives it up.",
			copied, strings.Join(s.Clones, ", "), s.Name)
	}
	if strings.HasPrefix(s.Name, "/") { // a further volume, or of one
		f.Mend, f.Snapshot = MendByHand, ""
		f.Remedy = fmt.Sprintf("%s While it is damaged all volumes are only read. If nothing brings it back, what it alone holds is lost: `gvirstor delete %s` gives it up, with -f.", copied, p.fullName(s))
	}
	if to, is := p.rollback(); is && to == s.ID {
		f.Prevents = true
		f.Remedy = fmt.Sprintf("A rollback to it was interrupted: until it can be read the volume is not served. %s If nothing brings it back, "+
			"`gvirstor repair --give-up %s` rolls the volume back as far as its map can be read and gives it up, with -f.", copied, s.Name)
	}
	p.find(f)
}

// fullName is how a verb is told of s.
func (p *poolCheck) fullName(s *Snapshot) string {
	if strings.HasPrefix(s.Name, "/") {
		return p.v.Name + s.Name
	}
	return p.v.Name + "@" + s.Name
}

// rollback is the id of the snapshot that a rollback is to, if one was interrupted.
func (p *poolCheck) rollback() (to uint64, is bool) {
	in := p.v.ext.Intent
	return in.Arg[0], in.Kind == ondisk.IntentRollback
}

// checkRollback finds that a rollback was interrupted to what is no snapshot.
func (p *poolCheck) checkRollback() {
	to, is := p.rollback()
	if m, known := p.dir.Map(to); !is || known && m.Kind == ondisk.KindSnapshot {
		return
	}
	p.find(Finding{Severity: Error, Code: DirectoryDamaged, Provider: p.v.zero.name(), Mend: MendByHand, Prevents: true,
		Text:   fmt.Sprintf("a rollback to snapshot %d was interrupted, which the directory of its snapshots does not name", to),
		Remedy: "If a disk cannot be read, copy it to another one, and check that."})
}

// readDirectory reads the directory in force, and claims the chunks of both its copies and
// of the reserve.
func (p *poolCheck) readDirectory() (err error) {
	if p.dir, err = p.reader.Directory(p.v.in.ctx, p.v.ext.Directory); err != nil {
		return err
	}
	if err := virstor.Servable(p.dir); err != nil {
		return err
	}
	for _, a := range slices.Concat(p.dir.Own, p.dir.Other, p.dir.Reserve) {
		id, _ := p.dir.Member(a.Number)
		if at := (ondisk.Place{Member: id, Chunk: a.Chunk}); !p.claim(at) {
			return p.usedTwice(at)
		}
	}
	return nil
}

func (p *poolCheck) usedTwice(at ondisk.Place) error {
	return fmt.Errorf("chunk %d of component %d has another use, too", at.Chunk, p.member[at.Member])
}

// claim takes a system chunk, and reports whether nothing had it.
func (p *poolCheck) claim(at ondisk.Place) bool {
	b := p.v.maps[p.member[at.Member]]
	return p.v.in.opt.Live || b == nil || b.claim(at.Chunk)
}

func readFull(from geomlib.Provider, b []byte, off int64) error {
	if _, err := from.ReadAt(b, off); err != nil {
		return fmt.Errorf("read %s at byte %d: %w", from.Name(), off, err)
	}
	return nil
}

// readMap reads the map of a snapshot once, claims the chunks that it lies in, and counts
// what it names.
func (p *poolCheck) readMap(s *Snapshot, m ondisk.PoolMap) (*snapshotMap, error) {
	at, err := p.reader.Map(p.v.in.ctx, p.dir, m)
	if err != nil {
		return nil, err
	}
	if m.Origin == ondisk.FirstMap && m.Size > p.v.VirtualSize {
		return nil, fmt.Errorf("it has %d bytes, the volume %d", m.Size, p.v.VirtualSize)
	}
	for _, at := range at.Places {
		if !p.claim(at) {
			return nil, p.usedTwice(at)
		}
	}
	for i, c := range at.List.Chunks {
		if c.Hole {
			continue
		}
		place := at.Place(c)
		if (m.Kind == ondisk.KindVolume || !p.parts[place]) && !p.claim(place) {
			return nil, p.usedTwice(place)
		}
		p.parts[place] = true
		err := p.readPart(s, at, i)
		if err != nil && p.copied(s, at, i) {
			err = p.readPart(s, at, i)
		}
		if err != nil {
			return nil, err
		}
	}
	return &snapshotMap{Snapshot: s, at: at}, nil
}

// readPart verifies chunk i of the map of a snapshot, and counts what it names.
func (p *poolCheck) readPart(s *Snapshot, at *poolio.Map, i int) error {
	n := uint64(0)
	err := p.reader.Part(p.v.in.ctx, at, i, func(vc uint64, e ondisk.Entry) error {
		if _, ok := p.keyOf(e); !ok {
			return fmt.Errorf("map entry of virtual chunk %d holds flags %#x, member number %d, chunk %d", vc, e.Flags, e.Component, e.Chunk)
		}
		n++
		return nil
	})
	if err == nil {
		s.Chunks += n
	}
	return err
}

// copied takes chunk i of the map of a snapshot from the volume's, if a rollback to it was
// interrupted that had copied it.
func (p *poolCheck) copied(s *Snapshot, at *poolio.Map, i int) bool {
	if to, is := p.rollback(); !is || to != s.ID {
		return false
	}
	n, sector := p.reader.PartLength(at, i), int64(p.reader.SectorSize)
	b := make([]byte, (n+sector-1)/sector*sector)
	if readFull(p.v.zero.p, b, int64(i)*int64(p.reader.ChunkSize)) != nil {
		return false
	}
	poolio.Numbered(b[:n], p.v.geometry.Order, func(index uint16) (uint16, bool) {
		for _, m := range p.dir.Members {
			if c, known := p.member[m.ID]; known && c == int(index) {
				return m.Number, true
			}
		}
		return 0, false
	})
	return at.Replace(i, b[:n])
}

// keyOf is the chunk that an entry of a snapshot names, as chunkKey; ok is false of one
// that cannot be right.
func (p *poolCheck) keyOf(e ondisk.Entry) (key uint64, ok bool) {
	id, _ := p.dir.Member(e.Component)
	i, known := p.member[id]
	if !known || e.Flags != ondisk.FlagAllocated {
		return 0, false
	}
	r := p.v.geometry.Components[i]
	return chunkKey(ondisk.Entry{Component: uint16(i), Chunk: e.Chunk}), e.Chunk >= r.First && e.Chunk < r.Count
}

// countOwners goes through all maps side by side: a chunk has the same virtual number in
// each that names it, so one that is claimed already when it comes up has another use.
func (p *poolCheck) countOwners() error {
	if len(p.maps) == 0 {
		return nil
	}
	// Memory is bounded, whatever the number of maps.
	step := max(4096, int64(32<<20)/int64(len(p.maps)+1)/4096*4096)
	var own []byte
	longest := p.v.mapSize()
	for _, m := range p.maps {
		longest = max(longest, m.at.Bytes)
	}
	for from := int64(0); from < longest; from += step {
		if err := p.v.in.ctx.Err(); err != nil {
			return err
		}
		end := min(from+step, longest)
		own = slices.Grow(own[:0], int(end-from))[:end-from]
		clear(own)
		if n := min(end, p.v.mapSize()) - from; n > 0 {
			if err := readFull(p.v.zero.p, own[:n], from); err != nil {
				clear(own) // which is told of already
			}
		}
		for _, m := range p.maps {
			m.block = slices.Grow(m.block[:0], int(end-from))[:end-from]
			if err := p.reader.Entries(m.at, m.block, from); err != nil {
				p.damaged(m.Snapshot, err)
			}
		}
		for off := int64(0); off < end-from; off += ondisk.EntrySize {
			p.countOne(uint64(from+off)/ondisk.EntrySize, own[off:], off)
		}
	}
	return nil
}

// owned is a chunk with how many snapshots name it, and the newest that does.
type owned struct {
	key    uint64
	owners int
	first  *snapshotMap
}

// countOne counts the owners of the chunks that snapshots name for vc, whose entries are
// off bytes into the blocks. raw is the entry of the volume.
func (p *poolCheck) countOne(vc uint64, raw []byte, off int64) {
	var chunks []owned
	for _, m := range p.maps {
		e := ondisk.DecodeEntry(m.block[off:], ondisk.LittleEndian)
		key, ok := p.keyOf(e)
		if !ok {
			continue
		}
		i := slices.IndexFunc(chunks, func(o owned) bool { return o.key == key })
		if i < 0 {
			chunks = append(chunks, owned{key, 1, m})
		} else {
			chunks[i].owners++
		}
	}
	if chunks == nil {
		return
	}
	verdict, e := p.v.geometry.Judge(raw)
	volume := verdict == EntryGood || verdict == StripFlags
	for _, c := range chunks {
		if (verdict == MayBeLost || verdict == OtherOrder) && chunkKey(e) == c.key {
			p.same[vc] = true
		}
		if volume && chunkKey(e) == c.key {
			continue
		}
		if c.owners == 1 && !c.first.Damaged {
			c.first.Unique++
		}
		comp, chunk := int(c.key>>32), uint32(c.key)
		if b := p.v.maps[comp]; b != nil && !b.claim(chunk) {
			p.damaged(c.first.Snapshot, fmt.Errorf("map entry of virtual chunk %d names chunk %d of component %d, which has another use", vc, chunk, comp))
		}
	}
}
