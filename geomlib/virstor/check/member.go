package check

import (
	"errors"
	"fmt"
	"math"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ondisk"
)

// member is a provider that takes part in a volume, or claims to.
type member struct {
	p     geomlib.Provider
	id    uint32          // of the volume; it may have a former one yet
	read  ondisk.Metadata // as in the last sector, or where it was found
	found ondisk.Metadata // so, with the index and the count that its member block proves
	want  ondisk.Metadata // what it should be
	why   []string        // why want differs
	moved int64           // byte offset of metadata that is not in the last sector; 0: it is
	leave bool            // takes no part: left as it is
	clear bool            // takes no part: its metadata is to be cleared
	other bool            // takes no part: of a history that was not asked for
	// broken: the metadata cannot be understood and is not used.
	broken bool
	former bool // was component 0, which another provider has replaced

	// damaged: checksum and contents of the member block contradict each other. found
	// has none then, and said is what it says, which is not believed.
	damaged bool
	said    ondisk.MemberBlock
}

func (m *member) name() string { return m.p.Name() }

// mend notes that want differs from what was found.
func (m *member) mend(why string, set func(*ondisk.Metadata)) {
	set(&m.want)
	m.why = append(m.why, why)
}

// change is what becomes of the provider's metadata.
func (m *member) change() Change {
	c := Change{Provider: m.p, Why: m.why}
	if m.leave {
		return c
	}
	if found := m.found; m.moved == 0 {
		c.Found = &found
	}
	if want := m.want; !m.clear {
		c.Wanted = &want
	}
	return c
}

// fits reports whether n chunks of size bytes are what label or add make of
// the provider: those that fit, the one over the last sector included or not.
func (m *member) fits(n, size uint32) bool {
	if size == 0 {
		return false
	}
	all := m.p.MediaSize() / int64(size)
	return n == m.usable(size) || uint64(n) == uint64(min(all, math.MaxUint32))
}

// usable is the number of chunks of size bytes before the last sector.
func (m *member) usable(size uint32) uint32 {
	return ondisk.UsableChunks(m.p.MediaSize(), m.p.SectorSize(), int64(size))
}

// readMember reads the metadata of p.
func readMember(p geomlib.Provider) (*member, error) {
	md, err := geomlib.ReadMetadata(p)
	m := &member{p: p, read: md}
	if errors.Is(err, ondisk.ErrMemberBlock) {
		m.damaged, m.said, err = true, md.Member, nil
		md.Member = ondisk.MemberBlock{}
	}
	if err != nil {
		return nil, err
	}
	m.found, m.want = md, md
	return m, nil
}

// searchMoved looks for metadata where the last sector of p was before p grew:
// in the last within bytes. Metadata that says how large the provider was when
// it was written proves itself by its place.
func searchMoved(p geomlib.Provider, within int64) (*member, error) {
	sector := int64(p.SectorSize())
	last := p.MediaSize() - sector
	buf := make([]byte, min(1<<20, p.MediaSize())/sector*sector)
	holes, sparse := p.(geomlib.HoleFinder)
	for end := last; end > 0 && end > last-within; {
		n := min(int64(len(buf)), end)
		start := end - n
		end = start
		if sparse {
			if s, _, err := holes.NextData(start, start+n); err == nil && s >= start+n {
				continue
			}
		}
		if _, err := p.ReadAt(buf[:n], start); err != nil {
			return nil, fmt.Errorf("read %s at byte %d: %w", p.Name(), start, err)
		}
		for off := n - sector; off >= 0; off -= sector {
			md, err := ondisk.DecodeMetadata(buf[off : off+sector])
			if err != nil || md.ProviderSize != uint64(start+off+sector) {
				continue
			}
			return &member{p: p, read: md, found: md, want: md, moved: start + off}, nil
		}
	}
	return nil, nil
}

func isNoMetadata(err error) bool { return errors.Is(err, geomlib.ErrNoMetadata) }
