package supervisor

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/geomlib/virstor/backup"
	"github.com/gvirstor/gvirstor/ondisk"
)

// someBackup is one of a volume on a file.
func someBackup(t *testing.T) *backup.Backup {
	t.Helper()
	path := filepath.Join(t.TempDir(), "component")
	must(t, os.WriteFile(path, nil, 0o600))
	must(t, os.Truncate(path, 64<<20))
	p, err := geomlib.Open(path, geomlib.OpenOptions{})
	must(t, err)
	l, err := ondisk.Plan(ondisk.LabelRequest{Name: "vol", VirtualSize: 1 << 30, ChunkSize: 1 << 20, ID: 77,
		Providers: []ondisk.LabelProvider{{Name: path, Size: p.MediaSize(), SectorSize: p.SectorSize()}}})
	must(t, err)
	must(t, virstor.Label(t.Context(), []geomlib.Provider{p}, l, virstor.LabelOptions{}))
	m, err := geomlib.ReadMetadata(p)
	must(t, err)
	a := virstor.Assemble([]virstor.Member{{Provider: p, Metadata: m}})[0]
	b, err := backup.FromAssembly(t.Context(), a, time.Now(), func(int64, int64) {})
	must(t, errors.Join(err, p.Close()))
	return b
}

func TestTheSupervisorKeepsNothingThatIsNoBackup(t *testing.T) {
	p := newPair(t)
	ctx := t.Context()
	if _, err := p.c.one(methodScratch, struct{}{}, nil); err == nil {
		t.Error("a file is handed out though no directory was given")
	}
	dir := filepath.Join(t.TempDir(), "backups")
	p.s.opt.Archive = &backup.Dir{Path: dir, Count: 2}
	if _, err := p.c.peer.Call(ctx, methodKeep, struct{}{}, nil); err == nil {
		t.Error("something is kept though nothing was written")
	}
	for _, content := range []string{"", "not a backup"} {
		f, err := p.c.one(methodScratch, struct{}{}, nil)
		must(t, err)
		_, err = f.WriteString(content)
		must(t, errors.Join(err, f.Close()))
		if _, err := p.c.peer.Call(ctx, methodKeep, struct{}{}, nil); err == nil {
			t.Errorf("%q is kept", content)
		}
	}
	left, err := os.ReadDir(dir)
	must(t, err)
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
