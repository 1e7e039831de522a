package publish

import (
	"fmt"
	"strings"
)

// Fenced is a volume that a host is to be kept from.
type Fenced struct {
	Name       string   `json:"name"`
	ID         uint32   `json:"id"`
	Components []string `json:"components"` // names of providers
	Host       string   `json:"host"`       // as its lease says; empty: not known
	HostID     string   `json:"host_id"`    // hexadecimal
}

// Environment is what a command is told of it.
func (f Fenced) Environment() []string {
	return []string{
		"GVIRSTOR_VOLUME=" + f.Name, fmt.Sprintf("GVIRSTOR_ID=%08x", f.ID),
		"GVIRSTOR_COMPONENTS=" + strings.Join(f.Components, " "), "GVIRSTOR_HOST=" + f.Host, "GVIRSTOR_HOSTID=" + f.HostID,
	}
}
