package supervisor

import (
	"context"
	"io/fs"
	"syscall"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/gate"
	"github.com/gvirstor/gvirstor/geomlib/state"
	"github.com/gvirstor/gvirstor/ggated-virstor/gatepub/units"
)

// sentinels are the errors that callers decide by, by their names on the way.
var sentinels = map[string]error{
	"locked":    geomlib.ErrLocked,
	"tree-busy": geomlib.ErrTreeBusy,
	"no-geom":   geomlib.ErrNotSupported,
	"no-file":   fs.ErrNotExist,
	"denied":    fs.ErrPermission,
	"read-only": syscall.EROFS,
	"too-many":  syscall.EMFILE,
	"busy":      gate.ErrBusy,
	"exists":    gate.ErrExists,
	"gone":      gate.ErrGone,
	"not-ours":  units.ErrNotOurs,
	"older":     state.ErrOlder,
	"canceled":  context.Canceled,
	"deadline":  context.DeadlineExceeded,
}

// The methods that the worker calls, and their arguments and answers.
const (
	methodHello     = "hello"   // → Start; NBD listeners, the guard, /dev/ggctl
	methodReady     = "ready"   // volumes are served
	methodOpen      = "open"    // openArgs → openAnswer; the provider
	methodPeek      = "peek"    // openArgs → openAnswer; the provider
	methodConnect   = "connect" // openArgs → openAnswer; a connection to the provider
	methodClose     = "close"   // openAnswer
	methodFailed    = "failed"  // openAnswer; a flush of the provider failed
	methodLock      = "lock"    // lockArgs; the lock
	methodUnlock    = "unlock"  // lockArgs
	methodAcquire   = "acquire" // units.Spec → units.Unit
	methodConfirm   = "confirm" // unitArgs
	methodMode      = "mode"    // unitArgs → geomlib.Mode
	methodResize    = "resize"  // unitArgs
	methodRecord    = "note"    // unitArgs
	methodRelease   = "release" // unitArgs
	methodLeftovers = "left"    // → map of ids and providers
	methodUnitsOf   = "units"   // unitArgs → map of maps and units
	methodCheck     = "check"   // unitArgs
	methodFence     = "fence"   // publish.Fenced; a host is kept from a volume's components
	methodAlert     = "alert"   // alertArgs → alertAnswer; the administrator's command is run
	methodGrow      = "grow"    // growArgs → growArgs; the provider
	methodUngrow    = "ungrow"  // growArgs
	methodScratch   = "scratch" // a file to write a backup into
	methodKeep      = "keep"    // → keptAnswer; the backup in it is kept
	methodRecall    = "recall"  // lockArgs → recallAnswer; what this host has served
	methodServes    = "serves"  // state.Volume; what this host serves
	methodAnew      = "anew"    // lockArgs; its generations begin anew

	// The supervisor calls methodStop, with an Ending, methodAlive, of which nothing comes, and
	// methodLastRoom: the system goes down, and the reserves are released.
	methodStop     = "stop"
	methodAlive    = "alive"
	methodLastRoom = "last-room"
)

// Ending says how a worker ends.
type Ending string

// The endings.
const (
	// Leave everything to the next worker: nothing is closed for good.
	Leave Ending = "leave"
	// Finish: destroy the units that nobody has open.
	Finish Ending = "finish"
)

// Start is what a worker begins with.
type Start struct {
	Providers []string `json:"providers"` // to serve
	Again     bool     `json:"again"`     // there was a worker before
	NBD       int      `json:"nbd"`       // listeners
	Gate      bool     `json:"gate"`      // whether there is /dev/ggctl
	Clients   int      `json:"clients"`   // that the worker before left
}

type openArgs struct {
	Name       string `json:"name"`
	ReadOnly   bool   `json:"read_only,omitempty"`
	SectorSize int    `json:"sector_size,omitempty"`
}

type openAnswer struct {
	Name string `json:"name"`
	// State goes along with the descriptor, as the provider told it.
	State []byte `json:"state,omitempty"`
	// FlushFailed: a flush failed while a worker had the provider.
	FlushFailed bool `json:"flush_failed,omitempty"`
	// Held: the supervisor holds it open until the worker gives it back.
	Held bool `json:"held,omitempty"`
}

type lockArgs struct {
	ID uint32 `json:"id"`
}

type unitArgs struct {
	units.Key
	Unit      units.Unit `json:"unit"`
	Size      int64      `json:"size,omitempty"`
	Force     bool       `json:"force,omitempty"`
	Providers []string   `json:"providers,omitempty"`
	// Limit is how long GEOM is waited for, of methodMode.
	Limit time.Duration `json:"limit,omitempty"`
}

// alertArgs do not say what is run: that is the supervisor's to know.
type alertArgs struct {
	Env   []string      `json:"env"`
	Stdin []byte        `json:"stdin"`
	Limit time.Duration `json:"limit"`
}

type alertAnswer struct {
	Output []byte `json:"output"`
	Failed string `json:"failed,omitempty"`
}

type growArgs struct {
	Volume   string `json:"volume"`
	Provider string `json:"provider,omitempty"`
}

type stopArgs struct {
	Ending Ending `json:"ending"`
}

// recallAnswer is what is known of a volume that this host has served.
type recallAnswer struct {
	Known  bool         `json:"known"`
	Volume state.Volume `json:"volume"`
}

// keptAnswer is where a backup is.
type keptAnswer struct {
	Path string `json:"path"`
}
