package check

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ondisk"
)

// Report is what Inspect found.
type Report struct {
	Volumes  []*Volume `json:"volumes"`
	Findings []Finding `json:"findings"`
}

// Volume is one volume of a Report, as it is and as it should be.
type Volume struct {
	Name          string `json:"name"`
	ID            string `json:"id"`    // hex
	Fence         Fence  `json:"fence"` // of the components that are there
	VirtualSize   uint64 `json:"virtual_size"`
	ChunkSize     uint32 `json:"chunk_size"`
	VirtualChunks uint64 `json:"virtual_chunks"`
	Allocated     uint64 `json:"allocated_chunks"`
	Order         string `json:"byte_order"`
	// Generation is the highest that is known to have been on all members, 0 where
	// there is none.
	Generation uint64      `json:"generation"`
	Components []Component `json:"components"`
	Snapshots  []Snapshot  `json:"snapshots"` // the oldest first
	// Lease is absent where no host that others share components with has served it.
	Lease *Lease `json:"lease,omitempty"`
	// MapChecked: the map could be read, so that nothing said of it means
	// that it is right.
	MapChecked bool `json:"map_checked"`

	id       uint32
	members  []*member // all providers with the volume's id
	assembly *virstor.Assembly
	geometry Geometry
	suspects []Suspect
	doubled  []Doubled
	cleared  bool // entries are to be cleared or stripped of flags
	overflow bool // more suspects than are kept
	pool     bool // the record in force says that there is more than the volume's map

	newRecord *ondisk.Extension // instead of one that is lost or absurd
}

// Component is one component of a Volume.
type Component struct {
	Index    int    `json:"index"`
	Provider string `json:"provider"` // empty: missing
	Chunks   uint32 `json:"chunks"`   // that data may use
	Reserved uint32 `json:"reserved"`
	Used     uint32 `json:"used"`
	Holes    uint32 `json:"holes"` // free chunks below the last used one
	// Member is what its member block says, nil where it has none.
	Member *MemberState `json:"member,omitempty"`
	// Failed: it takes no writes, as component 0's record says.
	Failed bool `json:"failed,omitempty"`
}

// Lease says which host serves a Volume, or did.
type Lease struct {
	Host     string    `json:"host"`     // its name; empty: the lease cannot be read
	Since    time.Time `json:"since"`    // by that host's clock
	Released bool      `json:"released"` // it has ended in order
}

// Fence says whether the kernel class is kept from the components.
type Fence string

// The states of the fence.
const (
	FenceNone  Fence = "none"
	FenceAll   Fence = "all"
	FenceSome  Fence = "mixed"
	FenceUnset Fence = "" // no component is there
)

// Count is how many findings there are of a severity.
func (r *Report) Count(s Severity) int {
	n := 0
	for _, f := range r.Findings {
		if f.Severity == s {
			n++
		}
	}
	return n
}

// Clean reports that there is neither an error nor a warning.
func (r *Report) Clean() bool { return r.Count(Error)+r.Count(Warning) == 0 }

// ExitCode is 0 when the report is clean and 1 when it is not.
func (r *Report) ExitCode() int {
	if r.Clean() {
		return 0
	}
	return 1
}

// WriteText writes the report for people. Findings of severity Info and the
// figures of components are left out unless verbose is set.
func (r *Report) WriteText(w io.Writer, verbose bool) error {
	var b strings.Builder
	for _, v := range r.Volumes {
		v.writeText(&b, verbose)
	}
	shown := 0
	for _, f := range r.Findings {
		if f.Severity == Info && !verbose {
			continue
		}
		f.writeText(&b)
		shown++
	}
	switch {
	case !r.Clean():
		fmt.Fprintf(&b, "%s, %s.\n", plural(r.Count(Error), "error"), plural(r.Count(Warning), "warning"))
	case len(r.Volumes) > 0:
		b.WriteString("No errors.\n")
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

func (v *Volume) writeText(b *strings.Builder, verbose bool) {
	fmt.Fprintf(b, "Volume %s (id %s): %s", v.Name, v.ID, plural(len(v.Components), "component"))
	if v.MapChecked {
		fmt.Fprintf(b, ", %d of %d virtual chunks allocated", v.Allocated, v.VirtualChunks)
	} else {
		b.WriteString(", the allocation map was not checked")
	}
	if len(v.Snapshots) > 0 {
		fmt.Fprintf(b, ", %s", plural(len(v.Snapshots), "snapshot"))
	}
	if v.Generation > 0 {
		fmt.Fprintf(b, ", generation %d", v.Generation)
	}
	if l := v.Lease; l != nil && !l.Released {
		fmt.Fprintf(b, ", leased to %s since %s", cmp.Or(l.Host, "a host without a name"), l.Since.Local().Format(time.DateTime))
	}
	b.WriteString("\n")
	if !verbose {
		return
	}
	for _, c := range v.Components {
		name := c.Provider
		if name == "" {
			name = "(missing)"
		}
		fmt.Fprintf(b, "  %d. %s: %d of %d chunks used, %d reserved, %d holes", c.Index, name, c.Used, c.Chunks, c.Reserved, c.Holes)
		if c.Member != nil {
			fmt.Fprintf(b, ", member %s of generation %d", c.Member.ID, c.Member.Generation)
		}
		b.WriteString("\n")
	}
	for _, s := range v.Snapshots {
		name := s.Name // of a further volume it has that one's
		if !strings.HasPrefix(name, "/") {
			name = "@" + name
		}
		fmt.Fprintf(b, "  %s of %s: ", name, s.Created.Format(time.DateTime))
		if s.Damaged {
			b.WriteString("damaged\n")
		} else {
			fmt.Fprintf(b, "%s, %d of which nothing else names\n", plural(int(s.Chunks), "chunk"), s.Unique)
		}
	}
}

func (f *Finding) writeText(b *strings.Builder) {
	b.WriteString(f.Severity.String())
	if f.Volume != "" {
		fmt.Fprintf(b, ": %s", f.Volume)
	}
	if f.Provider != "" {
		fmt.Fprintf(b, ": %s", f.Provider)
	}
	fmt.Fprintf(b, ": %s [%s]\n", f.Text, f.Code)
	if f.Remedy != "" {
		fmt.Fprintf(b, "    %s\n", f.Remedy)
	}
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// NumericID is the volume's id, the same on all its components.
func (v *Volume) NumericID() uint32 { return v.id }

// Assembly is the volume as it can be put together once Changes are made.
// Its Err is set when it cannot.
func (v *Volume) Assembly() *virstor.Assembly { return v.assembly }

// IsPool reports whether the components hold more than the volume: snapshots of it.
func (v *Volume) IsPool() bool { return v.pool }

// NewRecord is what the extension block is to hold instead of a record that is lost or cannot
// be true, nil where none is.
func (v *Volume) NewRecord() *ondisk.Extension { return v.newRecord }

// Geometry is what the entries of the map are judged by.
func (v *Volume) Geometry() Geometry { return v.geometry }

// Suspects are the entries of the map that only a choice can settle. complete is
// false when there are more than were kept.
func (v *Volume) Suspects() (list []Suspect, complete bool) { return v.suspects, !v.overflow }

// Doubled are the chunks that more than one virtual chunk claims.
func (v *Volume) Doubled() []Doubled { return v.doubled }

// MapNeedsCleaning reports that entries are to be cleared or stripped of
// unknown flags, which Geometry.Judge tells of each.
func (v *Volume) MapNeedsCleaning() bool { return v.cleared }

// Change is what the metadata of a provider should be.
type Change struct {
	Provider geomlib.Provider
	// Found is what the last sector holds now; nil when it is no metadata.
	Found *ondisk.Metadata
	// Wanted is what it should hold; nil for none. Both are nil for a provider
	// that is to be left alone.
	Wanted *ondisk.Metadata
	Why    []string
}

// Changes are the providers whose metadata is to be written or cleared.
func (v *Volume) Changes() []Change {
	var out []Change
	for _, m := range v.members {
		if c := m.change(); c.Wanted == nil || c.Found == nil || *c.Wanted != *c.Found {
			out = append(out, c)
		}
	}
	return slices.DeleteFunc(out, func(c Change) bool { return c.Found == nil && c.Wanted == nil })
}

// Members are the providers that take part in the volume, or will once they
// are changed, component 0 first.
func (v *Volume) Members() []Change {
	var out []Change
	for _, m := range v.members {
		if !m.leave && !m.clear {
			out = append(out, m.change())
		}
	}
	slices.SortStableFunc(out, func(a, b Change) int { return cmp.Compare(a.Wanted.No, b.Wanted.No) })
	return out
}

// Providers are all that have the volume's id on them, components or not.
func (v *Volume) Providers() []geomlib.Provider {
	var out []geomlib.Provider
	for _, m := range v.members {
		out = append(out, m.p)
	}
	return out
}

// Others are the providers of histories that were not asked for (Options.History).
func (v *Volume) Others() []geomlib.Provider {
	var out []geomlib.Provider
	for _, m := range v.members {
		if m.other {
			out = append(out, m.p)
		}
	}
	return out
}

// absurdGeneration is one that no volume comes to.
const absurdGeneration = 1 << 62

// Highest is the highest generation that any provider with the volume's id has, whatever
// it is. One that is damaged says nothing.
func (v *Volume) Highest() uint64 {
	var g uint64
	for _, m := range v.members {
		if n := m.want.Member.Generation; n < absurdGeneration {
			g = max(g, n)
		}
	}
	return g
}

// wanted are the members with the metadata that they should have.
func (v *Volume) wanted() []virstor.Member {
	var out []virstor.Member
	for _, m := range v.members {
		if !m.leave && !m.clear {
			out = append(out, virstor.Member{Provider: m.p, Metadata: m.want})
		}
	}
	return out
}
