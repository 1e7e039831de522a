package daemon

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
)

// notedOpener notes what is flushed, and what is locked.
type notedOpener struct {
	Direct
	did *[]string
}

func (o notedOpener) Open(name string, readOnly bool, sectorSize int) (geomlib.Provider, error) {
	p, err := o.Direct.Open(name, readOnly, sectorSize)
	return notedFlush{p, o.did}, err
}

type notedFlush struct {
	geomlib.Provider
	did *[]string
}

func (p notedFlush) Flush() error {
	*p.did = append(*p.did, p.Name())
	return p.Provider.Flush()
}

// A label that a dead process took off may be off in a cache alone, and who starts the
// volume forgets that disk.
func TestWhatHasNoLabelIsFlushedBeforeAVolumeIsServed(t *testing.T) {
	names := labelFiles(t, 16<<20)
	blank := filepath.Join(t.TempDir(), "blank")
	must(t, os.WriteFile(blank, make([]byte, 1<<20), 0o600))
	for readOnly, want := range map[bool]bool{false: true, true: false} {
		var did []string
		d := New(Options{Version: "test", ReadOnly: readOnly}, notedOpener{Direct{LockDir: t.TempDir()}, &did}, nil, slog.New(slog.DiscardHandler))
		if n := d.ServeAll(append(slices.Clone(names), blank)); n != 1 {
			t.Fatalf("%d volumes", n)
		}
		if got := len(did) > 0 && did[0] == blank; got != want {
			t.Errorf("read only %t: flushed are %q", readOnly, did)
		}
		must(t, d.Close())
	}
}
