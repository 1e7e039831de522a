package ondisk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc64"
)

// The extension block is the last ExtensionSize bytes of the area that component
// 0 reserves, which the kernel class never touches. It has two slots; a record
// is written whole, as the first sector of the slot that its sequence number
// picks (Slot), so that a torn write leaves the other one.
const (
	// ExtensionSize is the size of the block in bytes.
	ExtensionSize = 128 << 10
	// ExtensionSlotSize is the size of a slot in bytes.
	ExtensionSlotSize = ExtensionSize / 2
	// ExtensionRecordSize is the size of a record in bytes. It fits the
	// smallest sector; the rest of a larger one is zero.
	ExtensionRecordSize = 512
	// MaxTaskComponents is how many components a Task can name.
	MaxTaskComponents = 8
	// MaxFailedMembers is how many members an Extension can name as failed.
	MaxFailedMembers = 4
	// ExtensionVersion is the version of the records that are written. A volume
	// with a MemberBlock has one of it, which earlier releases refuse: they
	// would take a stale component for a true one. Version 1, without HandBack,
	// Failed and the ids of members, is read.
	ExtensionVersion = 2
	// ExtensionPoolVersion is the version of a record that puts a directory in
	// force. Who knows no directory refuses it: he would take the chunks that only
	// snapshots and further volumes name for free ones.
	ExtensionPoolVersion = 3
	// ExtensionRollbackVersion is the version of a record of a pool whose first volume
	// is being rolled back. Who does not know that intent refuses it: he would take a
	// map for the volume's that is half of it another.
	ExtensionRollbackVersion = 4
)

const extensionMagic = "GVIRSTOR::EXT"

// Flags of a record.
const (
	extensionClean    uint32 = 1 << iota // Extension.Clean
	extensionHandBack                    // Extension.HandBack
)

// Offsets in a record. Magic, version and checksum stay where they are in every
// version.
const (
	extOffMagic      = 0
	extOffVersion    = 16
	extOffFlags      = 20
	extOffSequence   = 24
	extOffVolumeID   = 32
	extOffChunkSize  = 36
	extOffIntent     = 40  // kind, 4 bytes of zeros, 8 arguments
	extOffTask       = 112 // kind, number of components, 3 bytes of zeros, 8 arguments
	extOffTaskCount  = extOffTask + 4
	extOffComponents = extOffTask + 8 + 64
	// From here on zero at version 1.
	extOffFailed        = extOffComponents + 4*MaxTaskComponents // ids, each with a generation
	extOffIntentMembers = extOffFailed + 16*MaxFailedMembers
	extOffTaskMembers   = extOffIntentMembers + 16
	extOffTaskTarget    = extOffTaskMembers + 8*MaxTaskComponents
	extOffDirectory     = extOffTaskTarget + 8 // zero at version 2; then zeros to the checksum
	extOffChecksum      = ExtensionRecordSize - 8
)

// IntentKind names the one operation on several sectors that is under way and
// that whoever opens the volume next finishes or takes back.
type IntentKind uint32

// The intents. What their arguments mean is the engine's.
const (
	IntentNone        IntentKind = iota
	IntentRemove                 // the last component takes the index of a removed one
	IntentReplaceZero            // component 0 moves to another provider
	IntentGrow                   // the virtual size and the reserved area grow
	IntentShrink                 // the virtual size shrinks
	IntentExpand                 // a component's provider has grown
	IntentNewID                  // the volume gets another id; argument 0 is the one before
	IntentRollback               // the first volume gets the map and the size of the snapshot with the id in argument 0
	intentKinds
)

var intentNames = [intentKinds]string{"none", "remove", "replace component 0", "grow", "shrink", "expand", "new id", "roll back"}

// String is what the intent does, in words.
func (k IntentKind) String() string {
	if k < intentKinds {
		return intentNames[k]
	}
	return fmt.Sprintf("intent %d", uint32(k))
}

// Intent is an operation under way, with its arguments.
type Intent struct {
	Kind IntentKind
	Arg  [8]uint64
	// Leaves and Moves are the ids of the members concerned (MemberBlock.ID), 0
	// where there is none: who leaves, or was component 0, and who takes that
	// index.
	Leaves, Moves uint64
}

// TaskKind names a long job, made of steps that are safe each, that goes on
// after a restart.
type TaskKind uint32

// The tasks. What their arguments mean is the engine's.
const (
	TaskNone      TaskKind = iota
	TaskEvacuate           // move the chunks off components
	TaskReplace            // move the chunks of one component to another
	TaskPack               // fill holes
	TaskRebalance          // spread the chunks over the components
	TaskResize             // change the virtual size
	TaskReclaim            // free the chunks that are zeros
	taskKinds
)

var taskNames = [taskKinds]string{"none", "evacuate", "replace", "pack", "rebalance", "resize", "reclaim"}

// String is the verb of the task.
func (k TaskKind) String() string {
	if k < taskKinds {
		return taskNames[k]
	}
	return fmt.Sprintf("task %d", uint32(k))
}

// Task is a long job with its arguments.
type Task struct {
	Kind           TaskKind
	ComponentCount uint8                     // of Components, how many are in use
	Components     [MaxTaskComponents]uint32 // the components concerned; zero beyond ComponentCount
	Arg            [8]uint64
	// Members are the ids of Components (MemberBlock.ID), and Target that of the
	// one that takes what they hold; 0 where none is known.
	Members [MaxTaskComponents]uint64
	Target  uint64
}

// FailedMember is a member that takes no writes. It is true as long as its
// generation is not below Generation, whatever the others have settled since.
type FailedMember struct {
	ID         uint64 // MemberBlock.ID
	Generation uint64 // MemberBlock.Generation when that was noted
}

// Extension is a record of the extension block. It is valid only on a volume of
// VersionFenced.
type Extension struct {
	Sequence  uint64 // one more for each record written
	VolumeID  uint32 // Metadata.ID
	ChunkSize uint32 // Metadata.ChunkSize, bytes
	Clean     bool   // the volume was closed in order
	HandBack  bool   // component metadata of Version is being written, component 0's last
	Intent    Intent
	Task      Task
	Failed    [MaxFailedMembers]FailedMember // zero behind the last
	// Directory is the first chunk of the pool's directory; none while the first
	// volume's map is the only one.
	Directory Link
}

// version is that of the record: the oldest that holds all of it.
func (e Extension) version() uint32 {
	switch {
	case e.Intent.Kind == IntentRollback:
		return ExtensionRollbackVersion
	case e.Directory.Exists():
		return ExtensionPoolVersion
	}
	return ExtensionVersion
}

// FailedSince is the generation that member id has at least if it is named as
// failed.
func (e Extension) FailedSince(id uint64) (generation uint64, failed bool) {
	for _, f := range e.Failed {
		if f.ID == id && id != 0 {
			return f.Generation, true
		}
	}
	return 0, false
}

// Slot is the index, 0 or 1, of the slot that the record belongs in.
func (e Extension) Slot() int { return int(e.Sequence % 2) }

// Encode writes the record to sector, the first sector of a slot: what the
// record does not use becomes zero. The checksum is CRC-64/ECMA (hash/crc64) of
// all that precedes it. It fails, and leaves sector alone, with ErrShort when
// sector is smaller than ExtensionRecordSize, and with ErrExtensionContents when
// DecodeExtension would not take what it writes.
func (e Extension) Encode(sector []byte) error {
	if len(sector) < ExtensionRecordSize {
		return fmt.Errorf("extension record: %w: %d of %d", ErrShort, len(sector), ExtensionRecordSize)
	}
	if err := e.check(); err != nil {
		return err
	}
	e.encode(sector, e.version())
	return nil
}

// encode writes what check has accepted as a record of that version.
func (e Extension) encode(sector []byte, version uint32) {
	clear(sector)
	le := binary.LittleEndian
	copy(sector[extOffMagic:], extensionMagic)
	le.PutUint32(sector[extOffVersion:], version)
	var flags uint32
	if e.Clean {
		flags |= extensionClean
	}
	if e.HandBack {
		flags |= extensionHandBack
	}
	le.PutUint32(sector[extOffFlags:], flags)
	le.PutUint64(sector[extOffSequence:], e.Sequence)
	le.PutUint32(sector[extOffVolumeID:], e.VolumeID)
	le.PutUint32(sector[extOffChunkSize:], e.ChunkSize)
	le.PutUint32(sector[extOffIntent:], uint32(e.Intent.Kind))
	putArgs(sector[extOffIntent+8:], &e.Intent.Arg)
	le.PutUint32(sector[extOffTask:], uint32(e.Task.Kind))
	sector[extOffTaskCount] = e.Task.ComponentCount
	putArgs(sector[extOffTask+8:], &e.Task.Arg)
	for i, c := range e.Task.Components {
		le.PutUint32(sector[extOffComponents+4*i:], c)
	}
	if version > 1 {
		e.encodeMembers(sector)
	}
	le.PutUint64(sector[extOffChecksum:], extensionChecksum(sector))
}

// encodeMembers writes what version 2 and the later ones added.
func (e Extension) encodeMembers(sector []byte) {
	le := binary.LittleEndian
	for i, f := range e.Failed {
		le.PutUint64(sector[extOffFailed+16*i:], f.ID)
		le.PutUint64(sector[extOffFailed+16*i+8:], f.Generation)
	}
	le.PutUint64(sector[extOffIntentMembers:], e.Intent.Leaves)
	le.PutUint64(sector[extOffIntentMembers+8:], e.Intent.Moves)
	for i, id := range e.Task.Members {
		le.PutUint64(sector[extOffTaskMembers+8*i:], id)
	}
	le.PutUint64(sector[extOffTaskTarget:], e.Task.Target)
	e.Directory.encode(sector[extOffDirectory:])
}

// decodeMembers reads what version 2 and the later ones added.
func (e *Extension) decodeMembers(b []byte) {
	le := binary.LittleEndian
	for i := range e.Failed {
		e.Failed[i] = FailedMember{le.Uint64(b[extOffFailed+16*i:]), le.Uint64(b[extOffFailed+16*i+8:])}
	}
	e.Intent.Leaves = le.Uint64(b[extOffIntentMembers:])
	e.Intent.Moves = le.Uint64(b[extOffIntentMembers+8:])
	for i := range e.Task.Members {
		e.Task.Members[i] = le.Uint64(b[extOffTaskMembers+8*i:])
	}
	e.Task.Target = le.Uint64(b[extOffTaskTarget:])
	e.Directory = decodeLink(b[extOffDirectory:])
}

// DecodeExtension reads the record at the start of b, the first sector of a
// slot. It fails with ErrShort, ErrExtensionMagic, ErrExtensionChecksum,
// ErrExtensionVersion or ErrExtensionContents.
func DecodeExtension(b []byte) (Extension, error) {
	if len(b) < ExtensionRecordSize {
		return Extension{}, fmt.Errorf("extension record: %w: %d of %d", ErrShort, len(b), ExtensionRecordSize)
	}
	if text(b[extOffMagic:]) != extensionMagic {
		return Extension{}, ErrExtensionMagic
	}
	le := binary.LittleEndian
	if got, want := le.Uint64(b[extOffChecksum:]), extensionChecksum(b); got != want {
		return Extension{}, fmt.Errorf("%w: %#x, should be %#x", ErrExtensionChecksum, got, want)
	}
	version := le.Uint32(b[extOffVersion:])
	if version == 0 || version > ExtensionRollbackVersion {
		return Extension{}, fmt.Errorf("%w: %d, known are 1 to %d", ErrExtensionVersion, version, ExtensionRollbackVersion)
	}
	flags := le.Uint32(b[extOffFlags:])
	e := Extension{
		Sequence:  le.Uint64(b[extOffSequence:]),
		VolumeID:  le.Uint32(b[extOffVolumeID:]),
		ChunkSize: le.Uint32(b[extOffChunkSize:]),
		Clean:     flags&extensionClean != 0,
		HandBack:  flags&extensionHandBack != 0 && version > 1,
		Intent:    Intent{Kind: IntentKind(le.Uint32(b[extOffIntent:])), Arg: args(b[extOffIntent+8:])},
		Task: Task{
			Kind:           TaskKind(le.Uint32(b[extOffTask:])),
			ComponentCount: b[extOffTaskCount],
			Arg:            args(b[extOffTask+8:]),
		},
	}
	for i := range e.Task.Components {
		e.Task.Components[i] = le.Uint32(b[extOffComponents+4*i:])
	}
	if version > 1 {
		e.decodeMembers(b)
	}
	if err := e.check(); err != nil {
		return Extension{}, err
	}
	if version != 1 && version != e.version() || version == 1 && e.version() != ExtensionVersion {
		return Extension{}, fmt.Errorf("%w: version %d, intent %v, directory %v", ErrExtensionContents, version, e.Intent.Kind, e.Directory)
	}
	// What encode would write differently is of no meaning known here.
	var again [ExtensionRecordSize]byte
	e.encode(again[:], version)
	if !bytes.Equal(again[:], b[:ExtensionRecordSize]) {
		return Extension{}, fmt.Errorf("%w: unknown flags, or unused bytes that are not zero", ErrExtensionContents)
	}
	return e, nil
}

// check refuses what this version gives no meaning to.
func (e Extension) check() error {
	if e.Intent.Kind >= intentKinds {
		return fmt.Errorf("%w: unknown %v", ErrExtensionContents, e.Intent.Kind)
	}
	if err := e.checkRollback(); err != nil {
		return err
	}
	if e.Task.Kind >= taskKinds {
		return fmt.Errorf("%w: unknown %v", ErrExtensionContents, e.Task.Kind)
	}
	if e.Task.ComponentCount > MaxTaskComponents {
		return fmt.Errorf("%w: a task of %d components, at most %d are possible",
			ErrExtensionContents, e.Task.ComponentCount, MaxTaskComponents)
	}
	for _, c := range e.Task.Components[e.Task.ComponentCount:] {
		if c != 0 {
			return fmt.Errorf("%w: component %d beyond the %d of the task", ErrExtensionContents, c, e.Task.ComponentCount)
		}
	}
	return e.checkMembers()
}

// checkRollback refuses a rollback to what can be no snapshot.
func (e Extension) checkRollback() error {
	if e.Intent.Kind != IntentRollback {
		return nil
	}
	to := e.Intent.Arg[0]
	if want := (Intent{Kind: IntentRollback, Arg: [8]uint64{to}}); to <= FirstMap || e.Intent != want || !e.Directory.Exists() {
		return fmt.Errorf("%w: %v to map %d, of the directory %v", ErrExtensionContents, e.Intent.Kind, to, e.Directory)
	}
	return nil
}

// checkMembers refuses ids of members where there can be none.
func (e Extension) checkMembers() error {
	for _, id := range e.Task.Members[e.Task.ComponentCount:] {
		if id != 0 {
			return fmt.Errorf("%w: member %#x beyond the %d components of the task", ErrExtensionContents, id, e.Task.ComponentCount)
		}
	}
	if e.Intent.Kind == IntentNone && (e.Intent.Leaves != 0 || e.Intent.Moves != 0) {
		return fmt.Errorf("%w: members of no intent", ErrExtensionContents)
	}
	ended := false
	for _, f := range e.Failed {
		switch {
		case f == FailedMember{}:
			ended = true
		case ended || f.ID == 0 || f.Generation == 0:
			return fmt.Errorf("%w: failed member %#x of generation %d", ErrExtensionContents, f.ID, f.Generation)
		}
	}
	if err := e.Directory.check(e.ChunkSize); e.Directory.Exists() && err != nil {
		return fmt.Errorf("%w: directory: %w", ErrExtensionContents, err)
	}
	return nil
}

// ExtensionOffset is where, in bytes, the extension block begins on the
// component that m describes. ok is false when there is none: on every component
// but 0, when the map reaches into the block, and when the block would reach
// into the last 64 KiB of the provider, where the metadata sector is.
func ExtensionOffset(m Metadata) (off int64, ok bool) {
	end := uint64(m.ChunkReserved) * uint64(m.ChunkSize)
	if m.No != 0 || m.MapBytes() > int64(end)-ExtensionSize {
		return 0, false
	}
	if end+maxSectorSize > m.ProviderSize {
		return 0, false
	}
	return int64(end) - ExtensionSize, true
}

// PickExtension is the record in force among those at the start of the two
// slots, each given from its first sector on: the valid one with the highest sequence
// number that names m's volume and chunk size and is in the slot that its number picks.
// ok is false when there is none. It fails with ErrExtensionVersion, wrapped, when a slot
// holds an intact record that a later version of this program wrote, whatever the other
// one holds: the volume may be in the middle of an operation that this one does not know.
func PickExtension(slots [2][]byte, m Metadata) (e Extension, ok bool, err error) {
	for i, b := range slots {
		found, err := DecodeExtension(b)
		if errors.Is(err, ErrExtensionVersion) {
			return Extension{}, false, fmt.Errorf("slot %d: %w", i, err)
		}
		if err != nil || found.Slot() != i || found.VolumeID != m.ID || found.ChunkSize != m.ChunkSize {
			continue
		}
		if !ok || found.Sequence > e.Sequence {
			e, ok = found, true
		}
	}
	return e, ok, nil
}

func extensionChecksum(record []byte) uint64 {
	return crc64.Checksum(record[:extOffChecksum], crc64.MakeTable(crc64.ECMA))
}

func putArgs(b []byte, args *[8]uint64) {
	for i, a := range args {
		binary.LittleEndian.PutUint64(b[8*i:], a)
	}
}

func args(b []byte) (out [8]uint64) {
	for i := range out {
		out[i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	return out
}
