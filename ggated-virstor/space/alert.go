package space

import (
	"log/slog"
	"time"

	"github.com/gvirstor/gvirstor/ondisk"
)

// Level names what an Alert is about. There are as many as Levels configures:
// they are fit for a metric's label.
type Level string

// The levels. Those of Thresholds.Percent are called by Percent.
const (
	Chunks          Level = "chunks"           // free chunks on the component being filled
	Components      Level = "components"       // components that are left to fill
	TimeToFull      Level = "time-to-full"     // predicted
	Full            Level = "full"             // a write found no chunk
	Degraded        Level = "degraded"         // a map sector could not be written
	ComponentFailed Level = "component-failed" // a component's flush failed
	Errors          Level = "component-errors" // a component fails reads or writes
	StorageFull     Level = "storage-full"     // there is no room for a component to be written
	SpareAdded      Level = "spare-added"      // by the daemon; no state
	SpareFailed     Level = "spare-failed"     // named in Component; no state
	SparesOut       Level = "spares-out"       // space is short and none is left; no state
	Test            Level = "test"             // asked for; no state
)

// Alert is one thing told. Sizes are bytes.
type Alert struct {
	Time      time.Time       `json:"time"`
	Volume    string          `json:"volume"`
	ID        ondisk.VolumeID `json:"id"`
	Level     Level           `json:"level"`
	Recovered bool            `json:"recovered"` // the level is left again
	Severity  slog.Level      `json:"severity"`
	Text      string          `json:"text"` // in the words of the log

	Component string `json:"component,omitempty"`
	// Threshold is what was crossed and Value what it was crossed with: chunks,
	// components, percent or seconds, as the level has it.
	Threshold int64 `json:"threshold"`
	Value     int64 `json:"value"`

	PhysicalBytes  int64 `json:"physical_bytes"`
	AllocatedBytes int64 `json:"allocated_bytes"`
	FreeBytes      int64 `json:"free_bytes"`
	ReservedBytes  int64 `json:"reserved_bytes"`
	UsedPercent    int   `json:"used_percent"` // of what ordinary writes may take, rounded down
	// SecondsToFull is the prediction; -1 when there is none.
	SecondsToFull int64 `json:"seconds_to_full"`
	HeldWrites    int   `json:"held_writes"`
}
