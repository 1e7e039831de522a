package repair_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/geomlib/virstor/check"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/voltest"
	"github.com/gvirstor/gvirstor/geomlib/virstor/repair"
	"github.com/gvirstor/gvirstor/ondisk"
)

func mustBe(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
}

// journal is one of a repair of a stale count, and the disks after it.
func journal(t testing.TB) ([]byte, []*disktest.Disk) {
	t.Helper()
	disks, _ := voltest.New(t, false)
	voltest.Spoil(t, disks[1], func(m *ondisk.Metadata) { m.Count = 2 })
	r, err := check.Inspect(ctx, voltest.Providers(disks), check.Options{})
	if err != nil {
		t.Fatal(err)
	}
	plan := planOf(t, r, repair.Choices{})
	path := filepath.Join(t.TempDir(), "undo")
	j, err := repair.CreateJournal(path, plan, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := repair.CreateJournal(path, plan, time.Now()); !errors.Is(err, os.ErrExist) {
		t.Fatalf("a journal was overwritten: %v", err)
	}
	if _, err := repair.Apply(ctx, plan, j, silent); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b, disks
}

func TestJournalMayEndInATornRecordButNotBeDamagedBefore(t *testing.T) {
	b, disks := journal(t)
	opt := repair.UndoOptions{Force: true, DryRun: true}
	undo := func(b []byte) (*repair.UndoResult, error) {
		return repair.Undo(ctx, bytes.NewReader(b), voltest.Providers(disks), opt)
	}
	whole, err := undo(b)
	if err != nil || whole.Writes < 2 {
		t.Fatalf("%+v, %v", whole, err)
	}
	if res, err := undo(append(bytes.Clone(b), make([]byte, 5000)...)); err != nil || res.Writes != whole.Writes {
		t.Errorf("zeros at the end: %+v, %v", res, err)
	}
	_, err = undo(append(bytes.Clone(b), "more"...))
	mustBe(t, err, repair.ErrJournal)
	const end = 4 + 8 + 32
	for cut := 1; cut < len(b)-200; cut += 37 { // wherever it is cut, that is told
		_, err := undo(b[:len(b)-cut])
		if !errors.Is(err, repair.ErrCut) && !errors.Is(err, repair.ErrJournal) {
			t.Fatalf("without its last %d bytes: %v", cut, err)
		}
	}
	opt.Partial = true
	for lost, torn := range [][]byte{b[:len(b)-end], b[:len(b)-end-1], append(bytes.Clone(b[:len(b)-end-40]), make([]byte, 40)...)} {
		res, err := undo(torn)
		if err != nil || res.Writes != whole.Writes-min(lost, 1) {
			t.Errorf("torn: %+v, %v", res, err)
		}
	}
	damaged := bytes.Clone(b)
	damaged[bytes.Index(b, []byte("WRIT"))+100]++
	_, err = undo(damaged)
	mustBe(t, err, repair.ErrJournal)
	_, err = undo(b[4:])
	mustBe(t, err, repair.ErrJournal)
	_, err = undo(nil)
	mustBe(t, err, repair.ErrJournal)
}

func FuzzUndoRefusesWhatIsNoJournal(f *testing.F) {
	b, disks := journal(f)
	f.Add(b)
	f.Add(b[:200])
	f.Fuzz(func(t *testing.T, b []byte) {
		_, err := repair.Undo(ctx, bytes.NewReader(b), voltest.Providers(voltest.Clone(disks)), repair.UndoOptions{})
		if err != nil && !errors.Is(err, repair.ErrJournal) && !errors.Is(err, repair.ErrCut) && !errors.Is(err, repair.ErrMismatch) && !errors.Is(err, repair.ErrChanged) {
			t.Error(err)
		}
	})
}
