package control

import (
	"fmt"
	"strings"

	"github.com/gvirstor/gvirstor/ondisk"
)

// headlineVolumes is how many volumes Headline describes; of more it counts the rest.
const headlineVolumes = 3

// Headline is s in one line, as systemctl(1) shows it: the volumes that need a hand
// first, each with its state.
func (s *Status) Headline() string {
	if len(s.Volumes) == 0 && len(s.Problems) == 0 {
		return "No volumes"
	}
	var trouble, fine []string
	for i := range s.Volumes {
		v := &s.Volumes[i]
		line := fmt.Sprintf("%s %s", ondisk.Printable(v.Name), v.StateText())
		if v.Actions() != nil {
			trouble = append(trouble, line)
		} else {
			fine = append(fine, line)
		}
	}
	parts := append(trouble, fine...)
	if more := len(parts) - headlineVolumes; more > 0 {
		parts = append(parts[:headlineVolumes], fmt.Sprintf("%d more volumes", more))
	}
	if n := len(s.Problems); n > 0 {
		parts = append([]string{fmt.Sprintf("%d not served, see gvirstor status", n)}, parts...)
	}
	return strings.Join(parts, "; ")
}
