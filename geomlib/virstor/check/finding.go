package check

import (
	"fmt"
	"time"

	"github.com/gvirstor/gvirstor/ondisk"
)

// Severity is how bad a finding is.
type Severity uint8

// The severities, from the least.
const (
	Info    Severity = iota // worth knowing; nothing is wrong
	Warning                 // wrong, but it can be served and no data is at risk while it is
	Error                   // it cannot be served, or data is at risk
)

var severityNames = [...]string{"info", "warning", "error"}

func (s Severity) String() string {
	if int(s) < len(severityNames) {
		return severityNames[s]
	}
	return fmt.Sprintf("severity %d", uint8(s))
}

// MarshalText makes a Severity its word in JSON.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Mend says who can put a finding right.
type Mend string

// The ways of mending.
const (
	MendNothing Mend = ""       // there is nothing to do, or the engine does it
	MendRepair  Mend = "repair" // repair can, without guessing
	MendChoice  Mend = "choice" // repair can, once the user has decided
	MendByHand  Mend = "hand"   // only the user can
)

// Code is the stable word for a kind of finding.
type Code string

// The codes. They are part of the interface and do not change.
const (
	// Providers.
	ProviderUnreadable Code = "provider-unreadable" // the last sector cannot be read
	ProviderNoMetadata Code = "provider-no-metadata"
	ProviderGrown      Code = "provider-grown"   // metadata lies where the last sector was
	ProviderResized    Code = "provider-resized" // another size than the metadata says
	ProviderSwapped    Code = "metadata-swapped" // two providers have each other's metadata
	ProviderName       Code = "provider-name"    // hardcoded to another name
	SectorSize         Code = "sector-size"

	// Metadata, by field.
	MetadataVersion      Code = "metadata-version"
	MetadataName         Code = "metadata-name"
	MetadataID           Code = "metadata-id"
	MetadataVirtualSize  Code = "metadata-virtual-size"
	MetadataChunkSize    Code = "metadata-chunk-size"
	MetadataCount        Code = "metadata-count"
	MetadataIndex        Code = "metadata-index"
	MetadataProviderSize Code = "metadata-provider-size"
	MetadataChunkCount   Code = "metadata-chunk-count"
	MetadataChunkNext    Code = "metadata-chunk-next"
	MetadataReserved     Code = "metadata-chunk-reserved"
	MetadataFlags        Code = "metadata-flags"
	MetadataInvalid      Code = "metadata-invalid" // what no other code says

	// Components.
	ComponentMissing Code = "component-missing"
	ComponentDoubled Code = "component-doubled"
	ComponentSwapped Code = "component-swapped"
	ComponentIgnored Code = "component-ignored" // belongs to the volume by its id, and is none of it
	AddInterrupted   Code = "add-interrupted"

	// Who is a member, by the member blocks.
	MemberStale    Code = "member-stale"    // it missed what the members have
	MemberStranger Code = "member-stranger" // the members do not know it
	MemberDamaged  Code = "member-damaged"  // its member block is, or what that vouches for
	MemberFailed   Code = "member-failed"   // it takes no writes, as component 0's record says
	TwoHistories   Code = "two-histories"   // the providers were written in two ways since they parted
	OtherHistory   Code = "other-history"   // it is of the history that was not asked for
	Unsettled      Code = "generation-unsettled"
	HandBackBegun  Code = "hand-back-begun" // and not finished

	// The last sector.
	LastSectorReach Code = "last-sector-reach" // a chunk could be allocated over the metadata
	LastSectorUsed  Code = "last-sector-used"  // and is

	// The map.
	MapUnreadable   Code = "map-unreadable"
	MapByteOrder    Code = "map-byte-order"
	EntryFlags      Code = "entry-flags"
	EntryComponent  Code = "entry-component"
	EntryRange      Code = "entry-range"
	EntryReserved   Code = "entry-reserved"
	EntryGarbage    Code = "entry-garbage"   // in an unallocated entry
	EntryLost       Code = "entry-lost-flag" // unallocated, yet it names a chunk that nothing has
	ChunkDoubled    Code = "chunk-doubled"   // two virtual chunks on one chunk
	Holes           Code = "holes"
	FillOrder       Code = "fill-order"
	TooManyFindings Code = "too-many"

	// Extension block, fence, volume.
	ExtensionNone    Code = "extension-none" // the label left no room
	ExtensionDamaged Code = "extension-damaged"
	ExtensionAbsurd  Code = "extension-absurd"
	ExtensionNewer   Code = "extension-newer"
	PoolUnknown      Code = "pool-unknown"      // it holds what no version serves that is known here
	DirectoryDamaged Code = "directory-damaged" // that of the snapshots
	SnapshotDamaged  Code = "snapshot-damaged"
	IntentPending    Code = "intent-pending"
	TaskPending      Code = "task-pending"
	Unclean          Code = "unclean"
	FenceOn          Code = "fenced"
	FenceMixed       Code = "fence-mixed"
	Changing         Code = "changing" // it changed while it was looked at
	CannotAssemble   Code = "cannot-assemble"
)

// Finding is one thing that was found.
type Finding struct {
	Severity Severity `json:"severity"`
	Code     Code     `json:"code"`
	// Volume is the name of the volume, and VolumeID its id in hex; empty
	// for a provider that belongs to none.
	Volume   string `json:"volume,omitempty"`
	VolumeID string `json:"volume_id,omitempty"`
	Provider string `json:"provider,omitempty"`
	Text     string `json:"text"`
	Remedy   string `json:"remedy,omitempty"`
	Mend     Mend   `json:"mend,omitempty"`
	// Snapshot is what the finding is about, where it is about one.
	Snapshot string `json:"snapshot,omitempty"`
	// Prevents: the volume cannot be opened while this is so.
	Prevents bool `json:"prevents_opening,omitempty"`
	// Member is what the member block of Provider says, where the finding is about
	// that. A damaged one is not to be believed.
	Member *MemberState `json:"member,omitempty"`
	// Virtual is the virtual chunk concerned, nil when it is not about one.
	Virtual *uint64 `json:"virtual_chunk,omitempty"`
	// Also are other virtual chunks concerned.
	Also []uint64 `json:"also,omitempty"`
}

// MemberState is what a member block says (ondisk.MemberBlock).
type MemberState struct {
	ID         string    `json:"id"` // 16 hexadecimal digits
	Generation uint64    `json:"generation"`
	Settled    uint64    `json:"settled"`
	Began      time.Time `json:"began"` // the generation, by the clock of the host that wrote it
	LastName   string    `json:"last_name"`
}

// memberState is what b says, nil when there is no block.
func memberState(b ondisk.MemberBlock) *MemberState {
	if !b.Exists() {
		return nil
	}
	return &MemberState{ID: fmt.Sprintf("%016x", b.ID), Generation: b.Generation, Settled: b.Settled,
		Began: time.Unix(b.Began, 0).UTC(), LastName: ondisk.Printable(b.LastName)}
}
