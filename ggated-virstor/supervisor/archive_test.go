package supervisor

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib/virstor/backup"
)

func TestTheSupervisorKeepsNothingThatIsNoBackup(t *testing.T) {
	p := newPair(t)
	ctx := t.Context()
	if _, err := p.c.one(methodScratch, struct{}{}, nil); err == nil {
		t.Error("a file is handed out though no directory was given")
	}
	dir := filepath.Join(t.TempDir(), "backups")
	p.s.opt.Archive = &backup.Dir{Path: dir, Count: 2}
	if _, err := p.c.peer.call(ctx, methodKeep, struct{}{}, nil); err == nil {
		t.Error("something is kept though nothing was written")
	}
	for _, content := range []string{"", "not a backup"} {
		f, err := p.c.one(methodScratch, struct{}{}, nil)
		must(t, err)
		_, err = f.WriteString(content)
		must(t, errors.Join(err, f.Close()))
		if _, err := p.c.peer.call(ctx, methodKeep, struct{}{}, nil); err == nil {
			t.Errorf("%q is kept", content)
		}
	}
	left, err := os.ReadDir(dir)
	must(t, err)
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
