package verbs

import (
	"fmt"
	"log/slog"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

// Identify gives a volume another name, or the id that newID makes, or both. It is
// locked, and not open. With handBack its fence is lifted afterwards, if that can be:
// *virstor.NotHandedBackError tells that it has its name or id and stays fenced.
func Identify(a *virstor.Assembly, r control.IdentifyRequest, newID func() uint32, handBack bool, log *slog.Logger) error {
	if r.Name != "" {
		if err := virstor.Rename(a, r.Name, handBack && !r.NewID, log); err != nil || !r.NewID {
			return err
		}
		var err error
		if a, err = again(a); err != nil {
			return err
		}
	}
	if !r.NewID {
		return nil
	}
	return virstor.NewID(a, newID(), handBack, log)
}

// again is the volume of a as its components say now.
func again(a *virstor.Assembly) (*virstor.Assembly, error) {
	members := make([]virstor.Member, len(a.Members))
	for i, m := range a.Members {
		md, err := geomlib.ReadMetadata(m.Provider)
		if err != nil {
			return nil, err
		}
		members[i] = virstor.Member{Provider: m.Provider, Metadata: md}
	}
	as := virstor.Assemble(members)
	if len(as) != 1 {
		return nil, fmt.Errorf("the components are of %d volumes: %w", len(as), virstor.ErrChanged)
	}
	as[0].Above = a.Above
	return as[0], nil
}
