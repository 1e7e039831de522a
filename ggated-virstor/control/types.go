// Package control is the daemon's control interface, JSON over HTTP on a Unix
// socket of mode 0600, and its client. Sizes are exact bytes.
package control

import "errors"

// DefaultPath is where the daemon listens when it is not told.
const DefaultPath = "/var/run/ggated-virstor.sock"

// Status is what the daemon serves, and what it could not serve.
type Status struct {
	Version  string         `json:"version"`
	Volumes  []VolumeStatus `json:"volumes"`
	Problems []Problem      `json:"problems,omitempty"`
}

// VolumeStatus is one volume. Counts are chunks unless the name says bytes.
type VolumeStatus struct {
	Name           string            `json:"name"`
	ID             uint32            `json:"id"`
	Published      []Publication     `json:"published"`
	VirtualSize    int64             `json:"virtual_size"`
	ChunkSize      int64             `json:"chunk_size"`
	SectorSize     int               `json:"sector_size"`
	VirtualChunks  int64             `json:"virtual_chunks"`
	PhysicalChunks int64             `json:"physical_chunks"`
	Allocated      int64             `json:"allocated_chunks"`
	Free           int64             `json:"free_chunks"`
	Reserved       int64             `json:"reserved_chunks"`
	Pending        int               `json:"pending_chunks"` // freed, not yet usable
	State          string            `json:"state"`          // "99% physical free"
	Conditions     []string          `json:"conditions,omitempty"`
	Held           Held              `json:"held"`
	ReadOnly       bool              `json:"read_only"`
	WhenFull       string            `json:"when_full"`
	Alloc          string            `json:"alloc"`
	Fenced         bool              `json:"fenced"`
	Kernel         bool              `json:"kernel,omitempty"` // run by the kernel class, not by the daemon
	Components     []ComponentStatus `json:"components"`
	Job            *Job              `json:"job,omitempty"`
	Spares         []Spare           `json:"spares,omitempty"`
	Forecast       *Forecast         `json:"forecast,omitempty"`
}

// Publication is one way in which a volume is reached.
type Publication struct {
	Kind        string `json:"kind"` // "gate" or "nbd"
	Name        string `json:"name"` // ggate0, virstor/mydata, or the export's name
	URI         string `json:"uri,omitempty"`
	Connections int    `json:"connections"` // NBD clients, or 1 while a device is open
	Mode        string `json:"mode"`        // r1w1e0
}

// Held are the writes that wait for space.
type Held struct {
	Count         int     `json:"count"`
	Bytes         int64   `json:"bytes"`
	OldestSeconds float64 `json:"oldest_seconds"`
}

// ComponentStatus is one component. Used and Free count chunks for data;
// Reserved ones, which hold the map, are in neither.
type ComponentStatus struct {
	Name       string `json:"name"`
	Index      int    `json:"index"`
	MediaSize  int64  `json:"media_size"`
	SectorSize int    `json:"sector_size"`
	ChunkCount int64  `json:"chunk_count"`
	Reserved   int64  `json:"chunks_reserved"`
	Used       int64  `json:"chunks_used"`
	Free       int64  `json:"chunks_free"`
	State      string `json:"state,omitempty"` // empty when all is well
	Mode       string `json:"mode"`
}

// Spare is a provider that is added when space gets short.
type Spare struct {
	Name  string `json:"name"`
	State string `json:"state"`
}

// Forecast is when the volume is full if it fills on as it did.
type Forecast struct {
	BytesPerSecond float64 `json:"bytes_per_second"`
	SecondsToFull  float64 `json:"seconds_to_full"` // 0: not filling
}

// Job is a long operation on a volume.
type Job struct {
	Kind    string  `json:"kind"`
	Detail  string  `json:"detail,omitempty"`
	State   string  `json:"state"` // "running", "done", "cancelled", "failed"
	Done    int64   `json:"done"`  // bytes
	Total   int64   `json:"total"` // bytes; 0 while unknown
	Rate    int64   `json:"rate"`  // bytes per second
	Error   string  `json:"error,omitempty"`
	Result  string  `json:"result,omitempty"`
	Seconds float64 `json:"seconds"`
}

// Problem is something that the daemon does not serve, and why.
type Problem struct {
	Volume   string `json:"volume,omitempty"`
	Provider string `json:"provider,omitempty"`
	Text     string `json:"text"`
}

// Request is the body of every call that changes something. Verbs use what
// concerns them.
type Request struct {
	Providers []string `json:"providers,omitempty"`
	Hardcode  bool     `json:"hardcode,omitempty"`
	Force     bool     `json:"force,omitempty"`
	Size      int64    `json:"size,omitempty"`
	Chunks    int64    `json:"chunks,omitempty"`
	Rate      int64    `json:"rate,omitempty"` // bytes per second; 0: unlimited
	DryRun    bool     `json:"dry_run,omitempty"`
	Cancel    bool     `json:"cancel,omitempty"`
}

// Reply is the answer to a call that changed something.
type Reply struct {
	Text   string `json:"text,omitempty"`   // for the administrator
	Notice string `json:"notice,omitempty"` // what he should know, such as why a volume stays fenced
	Kept   bool   `json:"kept,omitempty"`   // stop: the volume was not handed back
	Job    *Job   `json:"job,omitempty"`
}

// Errors of calls, by the kind that the daemon answers.
var (
	ErrNotFound = errors.New("no such volume")
	ErrBusy     = errors.New("busy")
	ErrInvalid  = errors.New("invalid request")
	ErrNoSpace  = errors.New("no space")
	ErrConflict = errors.New("not possible now")
	ErrInternal = errors.New("internal error")
	// ErrNoDaemon: nothing listens on the socket.
	ErrNoDaemon = errors.New("no daemon is running")
)

// Error is an error with the daemon's own words. It unwraps to its kind.
type Error struct {
	Kind error
	Text string
}

func (e *Error) Error() string { return e.Text }
func (e *Error) Unwrap() error { return e.Kind }

// kinds names the kinds on the wire, with their HTTP status.
var kinds = []struct {
	err    error
	name   string
	status int
}{
	{ErrNotFound, "not_found", 404},
	{ErrBusy, "busy", 409},
	{ErrInvalid, "invalid", 400},
	{ErrNoSpace, "no_space", 507},
	{ErrConflict, "conflict", 412},
	{ErrInternal, "internal", 500},
}
