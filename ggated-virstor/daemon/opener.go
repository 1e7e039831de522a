package daemon

import (
	"context"
	"io"

	"github.com/gvirstor/gvirstor/geomlib"
)

// Direct opens providers in this process.
type Direct struct {
	Registry geomlib.Registry // opens providers by their names
	LockDir  string           // where volumes are locked by id
}

// Open implements Opener. Read-only volumes too keep other writers off where
// the medium allows it.
func (o Direct) Open(name string, readOnly bool, sectorSize int) (geomlib.Provider, error) {
	return o.Registry.OpenOwn(context.Background(), name, geomlib.OpenOptions{ReadOnly: readOnly, KeepWritersOff: readOnly, SectorSize: sectorSize})
}

// Peek implements Opener.
func (o Direct) Peek(name string, sectorSize int) (geomlib.Provider, error) {
	return o.Registry.Open(name, geomlib.OpenOptions{ReadOnly: true, NoLock: true, SectorSize: sectorSize})
}

// LockVolume implements Opener.
func (o Direct) LockVolume(id uint32) (io.Closer, error) {
	return geomlib.LockVolume(o.LockDir, id)
}
