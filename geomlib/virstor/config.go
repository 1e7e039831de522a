package virstor

import (
	"log/slog"
	"time"
)

// FullPolicy says what happens to a write that needs a chunk when none is free, or
// for which there is no room below a component (StorageFull).
type FullPolicy uint8

// The policies of a full volume.
const (
	// Wait holds the write until space appears, up to Config.FullTimeout.
	Wait FullPolicy = iota
	// Fail answers ErrNoSpace at once, or the component's error.
	Fail
)

func (p FullPolicy) String() string {
	if p == Fail {
		return "error"
	}
	return "wait"
}

// AllocOrder says which component gives the next chunk.
type AllocOrder uint8

// The allocation orders. Both take the lowest free chunk of a component.
const (
	// Fill uses component after component, as the kernel class does.
	Fill AllocOrder = iota
	// Spread takes the components in turn.
	Spread
)

func (o AllocOrder) String() string {
	if o == Spread {
		return "spread"
	}
	return "fill"
}

// ZeroPolicy says what a new chunk holds where it was not written.
type ZeroPolicy uint8

// The zeroing policies.
const (
	// ZeroAuto: zeros, by the cheapest way that can be relied on.
	ZeroAuto ZeroPolicy = iota
	// ZeroNever: whatever the component holds, as the kernel class does.
	ZeroNever
)

// DiscardPolicy says what becomes of discarded ranges.
type DiscardPolicy uint8

// The discard policies.
const (
	// DiscardOn frees whole chunks and passes the discard down.
	DiscardOn DiscardPolicy = iota
	// DiscardPassdown keeps chunks allocated and passes the discard down.
	DiscardPassdown
	// DiscardOff ignores discards. Writes of zeros still write zeros.
	DiscardOff
)

// Config is how a volume is opened. The zero value is a writable volume with
// the default policies.
type Config struct {
	ReadOnly bool
	// DeferWrites opens the volume on providers that may be read-only and
	// holds everything but reads until Activate.
	DeferWrites bool

	// MinGeneration is the highest settled generation of the volume that this host
	// knows of (Volume.Generation). A set that is older is refused with ErrOldSet:
	// all members may be old copies, which their disks alone cannot tell. 0 opens
	// any.
	MinGeneration uint64
	// MinBegan is when that one began; the zero time: unknown. It is for people.
	MinBegan time.Time
	// ForceOld opens a set below MinGeneration all the same. Its next generation is
	// above that one, so that components of the later state are stale beside it.
	ForceOld bool

	// ServeStranded opens a volume whose component 0 takes no writes: it is read, and
	// changes only by that component's leaving (Volume.Stranded). Without it such a
	// volume is refused.
	ServeStranded bool

	// Lease, if not nil, is that of the assembly, which was made anew since it was taken
	// (Assembly.Again): the volume looks at it before each request, and releases it when
	// it is closed.
	Lease *Lease

	WhenFull    FullPolicy
	FullTimeout time.Duration // how long Wait waits; 0: for ever
	HeldLimit   int64         // bytes of held write data; 0: 64 MiB
	Reserve     int64         // chunks that ordinary writes leave free, or ReserveAuto

	Alloc AllocOrder
	Zero  ZeroPolicy
	// ZeroAhead is how many of the chunks that are next to be allocated are
	// zeroed while the volume is idle, under ZeroAuto: at most 64 MiB of them.
	ZeroAhead int
	Discard   DiscardPolicy
	// DetectZeroes treats writes of zeros, and OpWriteZeroes with NoHole, as
	// OpWriteZeroes: they allocate nothing, and free what they cover whole.
	DetectZeroes bool

	Workers int // goroutines that wait for devices; 0: 32

	Log    *slog.Logger
	Events func(Event) // called in order by one goroutine at a time; must not block

	// breakRule lets tests prove that each rule of the engine is needed.
	breakRule  rule
	breakStart startRule
	// commitSteps are done instead of commitOrder, for the same purpose.
	commitSteps []commitStep
	// serial does one thing after the other, on the goroutines of those who ask
	// for it, so that a test's log of what the disks were asked is the same each
	// time.
	serial bool
	// giveUp are damaged snapshots that will be deleted: a rollback to one is not waited for.
	giveUp []string
	// seed is what a serial volume draws its random numbers from.
	seed uint64
	// mapPiece is how much of the map one goroutine reads at a time, in bytes; whole
	// sectors. 0: 1 MiB, which a processor's own cache holds until it is taken in.
	mapPiece int64
}

const defaultHeldLimit = 64 << 20

func (c *Config) setDefaults() {
	if c.HeldLimit == 0 {
		c.HeldLimit = defaultHeldLimit
	}
	if c.Workers == 0 {
		c.Workers = 32
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Events == nil {
		c.Events = func(Event) {}
	}
}

// rule names one rule of the engine that a test breaks on purpose. Those of the commit
// order are not among them: a test changes Config.commitSteps.
type rule uint64

const (
	breakEarlyUnfence   rule = 1 << iota // version 1 before the metadata is exact
	breakIntentTwice                     // an intent's redo is not idempotent
	breakFlushCoverage                   // flush leaves out component 0
	breakCopyFlush                       // a moved chunk's map sector written before the copy is flushed
	breakAddUnfenced                     // add labels a new component at version 1
	breakLastChunk                       // the chunk that reaches into the last sector is given out
	breakRenaming                        // remove writes a wrong index to the component that is renamed
	breakCloseFlush                      // the fence is lifted before the data is flushed
	breakUnfenceOrder                    // the fence is lifted from component 0 first
	breakBelieveMap                      // the map of a volume not closed in order is not written again
	breakFreedCovered                    // a chunk freed while a flush runs counts as covered by it
	breakFlushJoins                      // a flush joins the running one although writes came since
	breakLateClean                       // the dirty mark is cleared after the device flush
	breakAheadWhole                      // a zeroing ahead that was interrupted counts as whole
	breakTaskNumbers                     // a task goes by old indexes when a component has left
	breakBelieveCache                    // nor are caches dropped
	breakSettledEarly                    // a generation is settled before all members have it
	breakListEarly                       // the new list of members is used before its generation is settled
	breakHandBackNote                    // the fence is lifted without a note that it is
	breakDiscardsLater                   // a discard that was held frees what was written later
	breakHeirInUse                       // the map goes to a component that has data where it goes
	breakUnnamedZero                     // a component 0 that could not be cleared is not named as failed
	breakCommitFirst                     // add writes component 0 before the components that join
	breakOldMetadata                     // growing writes component 0's metadata as it was when it began
	breakRefusedTakes                    // a member that takes no writes is given new chunks
	breakFailedUnnoted                   // that a member takes no writes is not noted on component 0
	breakClearEarly                      // who leaves is cleared before it is noted that it does
	breakNoRise                          // opening does not raise the generation
	breakOldSet                          // a set older than what this host served is opened
	breakSuperseded                      // a held write does what later requests did
	breakHeldOutlives                    // a held write outlives who waits for it
	breakConditions                      // no state of the volume forbids anything
	breakSharedInPlace                   // a chunk that a snapshot names is overwritten
	breakSharedDiscard                   // what a snapshot names is given up or zeroed in part
	breakOwners                          // a chunk that the volume gives up is freed though a snapshot names it
	breakPendingOwner                    // a snapshot owns nothing until its record is durable
	breakDeletedEarly                    // what a deleted snapshot named is freed before the record without it
	breakDirectoryFirst                  // the directory is written before the maps that it names
	breakRecordFirst                     // the record is written before the directory
	breakMapSums                         // a snapshot's map is believed whatever its checksum
	breakTwinGiven                       // the copy of the directory that is not in force is given out
	breakOneRecord                       // a directory is put in force by one of the two slots
	breakDoubtWritten                    // a directory counts as in force whose record failed
	breakRollbackFirst                   // a rollback copies the map before the record that says so
	breakRollbackFlush                   // a rollback counts as done before the map is flushed
	breakRollbackKept                    // it is not noted that a rollback is done
	breakRollbackRead                    // an interrupted rollback is served as it is by who does not write
	breakMovedAlone                      // a chunk that a snapshot names is moved as if the volume alone had it
	breakLeaverNumbered                  // the directory names who leaves
	breakOneIndex                        // a component that changes its index is another for snapshots
	breakOriginOwner                     // a clone overwrites what it has in common with its snapshot
	breakHomeLedger                      // what a map gives up is free when component 0 is durable
	breakMapMembers                      // a volume's map names a component that the directory has no number for
	breakLiveRewrite                     // the maps of further volumes are not written again after a crash
	breakBackRecord                      // the record of a rollback of a further volume is written before its map
	breakBackEarly                       // what such a volume named is free before the record
	breakQuota                           // a volume gets more chunks than its quota allows
	breakOnePoint                        // snapshots of all volumes are taken one after the other
	breakMovedEarly                      // what snapshots named is freed before the record that names its copy
	breakLiveStays                       // a further volume keeps the old place of what it has in common with a snapshot
	breakPartUnpaused                    // the map of a further volume is written elsewhere while it changes
	breakPartInDoubt                     // the map of a further volume changes while nobody knows where it will be read from
	breakOldNumbers                      // a component that changes its index has the number of another
	breakLentUnpinned                    // a chunk can be freed while it is lent
)

// breaks reports whether r is broken on purpose.
func (c *Config) breaks(r rule) bool { return c.breakRule&r != 0 }
