package control

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ondisk"
)

// Status is all that a daemon knows.
type Status struct {
	Version  string         `json:"version"` // of the daemon
	PID      int            `json:"pid"`
	Started  time.Time      `json:"started"`
	Volumes  []VolumeStatus `json:"volumes"` // ordered by name
	Problems []Problem      `json:"problems"`
}

// Problem is a volume or a provider that cannot be served.
type Problem struct {
	Volume    string          `json:"volume,omitempty"`    // its name, where it is known
	ID        ondisk.VolumeID `json:"id,omitempty"`        // of the volume
	Providers []string        `json:"providers,omitempty"` // that are concerned
	Reason    string          `json:"reason"`
	// Lacks is what an incomplete volume lacks: Reason without that it is incomplete.
	Lacks  string `json:"lacks,omitempty"`
	Remedy string `json:"remedy,omitempty"` // what to do
	// Missing are the components that are not there, where that is the reason.
	Missing []MissingComponent `json:"missing,omitempty"`
}

// MissingComponent is one that a volume lacks.
type MissingComponent struct {
	Index    int    `json:"index"`
	LastName string `json:"last_name,omitempty"` // when this host last served the volume, if it is known
}

// VolumeStatus is a served volume at one moment. Sizes are bytes, counts are
// chunks.
type VolumeStatus struct {
	Name            string            `json:"name"` // of the volume
	ID              ondisk.VolumeID   `json:"id"`
	Published       []Publication     `json:"published"`
	VirtualSize     int64             `json:"virtual_size"`
	ChunkSize       int64             `json:"chunk_size"`
	SectorSize      int               `json:"sector_size"`
	VirtualChunks   int64             `json:"virtual_chunks"`
	PhysicalChunks  int64             `json:"physical_chunks"`  // on all components, the map's included
	AllocatedChunks int64             `json:"allocated_chunks"` // that hold data
	FreeChunks      int64             `json:"free_chunks"`      // that data may take
	ReservedChunks  int64             `json:"reserved_chunks"`  // free ones that ordinary writes leave
	State           string            `json:"state"`            // StateText
	Conditions      []Condition       `json:"conditions"`
	Held            Held              `json:"held"`
	ReadOnly        bool              `json:"read_only"`
	WhenFull        string            `json:"when_full"` // "wait" or "error"
	Alloc           string            `json:"alloc"`     // "fill" or "spread"
	Fenced          bool              `json:"fenced"`    // the kernel class refuses the components
	Components      []ComponentStatus `json:"components"`
	// Outsiders are providers that name the volume and take no part in it: they
	// missed something, were removed, or are copies.
	Outsiders []Outsider `json:"outsiders,omitempty"`
	Snapshots int        `json:"snapshots,omitempty"` // how many there are
	// DamagedSnapshots are those whose maps cannot be read (SnapshotDamaged), with further
	// volumes as "/VOLUME", and their snapshots as "/VOLUME@SNAPSHOT".
	DamagedSnapshots []string     `json:"damaged_snapshots,omitempty"`
	Volumes          []PoolVolume `json:"volumes,omitempty"` // of the pool beside this one, the oldest first
	// Lease keeps other hosts from components that they can reach; absent where none do.
	Lease *Lease `json:"lease,omitempty"`
	// ExpectedComponents is how many there should be where some are missing.
	ExpectedComponents int        `json:"expected_components,omitempty"`
	Job                *JobStatus `json:"job,omitempty"`    // the long job under way
	Alerts             []Alert    `json:"alerts,omitempty"` // levels that are crossed
	// SecondsToFull is predicted from the rate of allocation; absent when the
	// volume does not grow.
	SecondsToFull *int64 `json:"seconds_to_full,omitempty"`
	// Operations are the requests that have ended since the volume was opened, by kind:
	// "read", "write", "flush", "delete", "write_zeroes".
	Operations  map[string]OpStatus `json:"operations,omitempty"`
	Spares      []Spare             `json:"spares,omitempty"`
	SparesAdded uint64              `json:"spares_added,omitempty"` // by the daemon, grown files included
}

// Lease is one that the daemon has.
type Lease struct {
	Host            string    `json:"host"`             // name of this host, as others see it
	Since           time.Time `json:"since"`            // when it was taken
	IntervalSeconds float64   `json:"interval_seconds"` // how often it is renewed
	SettleSeconds   float64   `json:"settle_seconds"`   // how long what was sent may take to be done
	LeftSeconds     float64   `json:"left_seconds"`     // for which requests may be sent, unless it is renewed
	// Fencing: another host is fenced off by a command before its lease is taken.
	Fencing bool `json:"fencing"`
}

// OpStatus counts requests of one kind.
type OpStatus struct {
	Requests uint64 `json:"requests"`
	Bytes    uint64 `json:"bytes"`  // of those that succeeded
	Errors   uint64 `json:"errors"` // requests that failed
	// Nanoseconds is how long the requests that were timed took together, waits for
	// space included, and Buckets how many of these took less than 2 to the power of
	// their place, and not less than half of that. Of reads and writes one in 16 is
	// timed.
	Nanoseconds uint64   `json:"nanoseconds"`
	Buckets     []uint64 `json:"buckets,omitempty"`
}

// Outsider is a provider that names a volume and takes no part in it.
type Outsider struct {
	Name       string     `json:"name"`                // of the provider
	Kind       string     `json:"kind"`                // "stale", "no member", "being removed", "damaged member block"
	Generation uint64     `json:"generation"`          // 0: it has none
	Settled    uint64     `json:"settled"`             // the volume's
	Began      *time.Time `json:"began,omitempty"`     // when its generation began
	LastName   string     `json:"last_name,omitempty"` // what it was called as a member
	Text       string     `json:"text"`                // all of it, in words
}

// Condition is what is out of the ordinary about a volume or a component.
type Condition string

// The conditions.
const (
	Degraded    Condition = "degraded"        // a map sector could not be written; nothing is allocated
	Full        Condition = "full"            // no chunk is free for ordinary writes
	LowSpace    Condition = "low on space"    // a percentage or the predicted time is crossed
	HeldWrites  Condition = "held"            // writes wait for space
	ReadOnly    Condition = "read-only"       // opened so
	Stopping    Condition = "stopping"        // on its way out
	FlushFailed Condition = "flush failed"    // a component lost data it had accepted
	ReadErrors  Condition = "read errors"     // a component fails reads
	WriteErrors Condition = "write errors"    // a component fails writes
	StorageFull Condition = "storage full"    // no room below a component; make room there
	Unreached   Condition = "no connection"   // to the server of a component
	NoWrites    Condition = "takes no writes" // a component is read, and gets no new chunk
	KernelClass Condition = "kernel class"    // FreeBSD's geom_virstor runs it, not the daemon
	Incomplete  Condition = "incomplete"      // of the kernel class: components are missing
	// Unleased: the lease could not be renewed, so that nothing is sent to any component.
	Unleased Condition = "no lease"
	// SnapshotDamaged: the map of a snapshot cannot be read; the volume is only read.
	SnapshotDamaged Condition = "snapshot damaged"
)

// Remedy is what to do about a condition of a component, or nothing.
func (c Condition) Remedy() string {
	switch c {
	case StorageFull:
		return "make room on the file system or device that it lies on"
	case ReadErrors, WriteErrors, NoWrites:
		return "look at the disk and its cable, and replace it while it can still be read"
	case Unreached:
		return "see to its server and the way to it: what is asked of it waits, and fails when that takes too long"
	}
	return ""
}

// Alert is a level that a volume has crossed.
type Alert struct {
	Level string    `json:"level"` // "chunks", "components", "percent-90", "time-to-full", "full", …
	Since time.Time `json:"since"`
	Text  string    `json:"text"`
}

// Spare is a provider that the daemon adds when space gets short.
type Spare struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`             // bytes; 0 where it could not be opened
	Failed string `json:"failed,omitempty"` // why it is not used
}

// Publication is a way to a volume.
type Publication struct {
	Kind        PublicationKind `json:"kind"`
	Name        string          `json:"name"` // "ggate0", "virstor/mydata", or the export's name
	URI         string          `json:"uri,omitempty"`
	Connections int             `json:"connections"` // NBD clients
	Mode        Mode            `json:"mode"`
}

// PublicationKind says how a volume is published.
type PublicationKind string

// The kinds of publication.
const (
	Gate PublicationKind = "gate" // a node in /dev by geom_gate(4)
	NBD  PublicationKind = "nbd"  // an NBD export
	// Kernel is a node in /dev of FreeBSD's geom_virstor.
	Kernel PublicationKind = "kernel"
)

// Mode counts who has a provider open, as geom(8) does.
type Mode struct {
	Read      int `json:"read"`
	Write     int `json:"write"`
	Exclusive int `json:"exclusive"`
}

// String is m as geom(8) writes it: "r1w1e0".
func (m Mode) String() string { return fmt.Sprintf("r%dw%de%d", m.Read, m.Write, m.Exclusive) }

// Held tells of the writes that wait for space.
type Held struct {
	Count         int   `json:"count"`
	Bytes         int64 `json:"bytes"`
	OldestSeconds int64 `json:"oldest_seconds"`
}

// ComponentStatus is one component of a volume.
type ComponentStatus struct {
	Name               string      `json:"name"`
	Index              int         `json:"index"`
	MediaSize          int64       `json:"media_size"`
	SectorSize         int         `json:"sector_size"`
	ChunkCount         uint32      `json:"chunk_count"`     // as in the metadata
	ChunksReserved     uint32      `json:"chunks_reserved"` // for the allocation map
	ChunksUsed         uint32      `json:"chunks_used"`     // reserved ones included
	ChunksFree         uint32      `json:"chunks_free"`
	StorageFreePercent int         `json:"storage_free_percent"` // rounded down
	State              []Condition `json:"state,omitempty"`
	AwaySeconds        int64       `json:"away_seconds,omitempty"` // for how long its server has not been reached
	Gone               bool        `json:"gone,omitempty"`         // and it will not be until the volume is opened again
	Mode               Mode        `json:"mode"`
}

// Percent is part of whole in whole percent, rounded down; 0 when there is no
// whole.
func Percent(part, whole int64) int {
	if part <= 0 || whole <= 0 {
		return 0
	}
	// In floating point only where 64 bits would overflow.
	if part > (1<<63-1)/100 {
		return int(float64(part) / float64(whole) * 100)
	}
	return int(part * 100 / whole)
}

// FreePercent is how much of the physical chunks ordinary writes may still take, in
// whole percent, rounded down: without the reserve, and without what is reserved for
// the allocation map.
func (v *VolumeStatus) FreePercent() int {
	return Percent(v.FreeChunks-v.ReservedChunks, v.PhysicalChunks)
}

// StateText is what geom(8) shows as State: "99% physical free", and after
// that what is out of the ordinary.
func (v *VolumeStatus) StateText() string {
	s := fmt.Sprintf("%d%% physical free", v.FreePercent())
	for _, c := range v.Conditions {
		if c == HeldWrites {
			s += fmt.Sprintf(", %d writes held (%d KiB, %d s)", v.Held.Count, (v.Held.Bytes+1023)/1024, v.Held.OldestSeconds)
			continue
		}
		if c == Unreached {
			s += v.waitingText()
			continue
		}
		s += ", " + string(c)
	}
	if v.Job != nil {
		s += ", " + v.Job.Progress()
	}
	return s
}

// waitingText names the components that are not reached.
func (v *VolumeStatus) waitingText() (s string) {
	for _, c := range v.Components {
		switch {
		case c.Gone:
			s += ", lost " + ondisk.Printable(c.Name)
		case slices.Contains(c.State, Unreached):
			s += fmt.Sprintf(", waiting for %s, %d s", ondisk.Printable(c.Name), c.AwaySeconds)
		}
	}
	return s
}

// Nodes are the names under which geom(8) knows the volume: those of its
// devices, or virstor/NAME when it has none.
func (v *VolumeStatus) Nodes() []string {
	names := nodesOf(v.Published)
	if names == nil {
		names = []string{"virstor/" + v.Name}
	}
	return names
}

// VolumeName is the name of the volume that name means, spelled as it is or as status
// prints it, virstor/NAME, with or without /dev/.
func VolumeName(name string) string {
	return strings.TrimPrefix(geomlib.Name(name).Bare(), "virstor/")
}

// SplitName takes the name of a further volume of a pool apart, such as mydata/web: pool is
// what VolumeName makes of the rest. own is empty for a volume that is none.
func SplitName(name string) (pool, own string) {
	pool, own, _ = strings.Cut(VolumeName(name), "/")
	return pool, own
}

// PoolVolume is a volume of a pool beside the first.
type PoolVolume struct {
	Name    string    `json:"name"` // what follows the "/"
	ID      uint64    `json:"id"`
	Created time.Time `json:"created"`
	Size    int64     `json:"size"` // bytes
	// Allocated are the bytes of the chunks that it has, those included that it has in
	// common with what it is a clone of.
	Allocated int64 `json:"allocated"`
	// Quota is how many bytes of chunks it may have at most; absent: no limit.
	Quota int64 `json:"quota,omitempty"`
	// SecondsToFull is when it has as much as its quota allows, predicted from the rate of
	// allocation; absent when it does not grow, or has no quota.
	SecondsToFull *int64 `json:"seconds_to_full,omitempty"`
	Origin        string `json:"origin,omitempty"` // of a clone, as "VOLUME@SNAPSHOT", or of the first volume "@SNAPSHOT"
	Held          Held   `json:"held"`
	Users         int    `json:"users,omitempty"`    // who has it open
	Degraded      bool   `json:"degraded,omitempty"` // a sector of its map could not be written: it takes no new chunks
	Problem       string `json:"problem,omitempty"`  // why it cannot be used
	// Published is where clients find it.
	Published []Publication `json:"published,omitempty"`
}

// Nodes are those of its devices.
func (v *PoolVolume) Nodes() []string { return nodesOf(v.Published) }

// Nodes are those of its devices.
func (s *Snapshot) Nodes() []string { return nodesOf(s.Published) }

func nodesOf(ps []Publication) (names []string) {
	for _, p := range ps {
		if p.Kind == Gate {
			names = append(names, p.Name)
		}
	}
	return names
}

// Is reports whether name means v: its own name, virstor/NAME or one of its
// nodes, with or without /dev/.
func (v *VolumeStatus) Is(name string) bool {
	name = geomlib.Name(name).Bare()
	if VolumeName(name) == v.Name {
		return true
	}
	for _, node := range v.Nodes() {
		if node == name {
			return true
		}
	}
	return false
}

// Event tells of a change, in the words of the log.
type Event struct {
	Time   time.Time `json:"time"`
	Volume string    `json:"volume,omitempty"`
	Kind   string    `json:"kind"` // "published", "full", "components", …
	Text   string    `json:"text"`
}
