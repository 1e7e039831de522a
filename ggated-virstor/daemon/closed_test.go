package daemon

import (
	"bytes"
	"context"
	"strings"
	"syscall"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/geomlib/gate/gatetest"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

// rolledBack asks for vol to be rolled back to its snapshot "then", behind which it was
// written to. fail is done to its first component before.
func rolledBack(t *testing.T, s *site, fail func(zero *disktest.Disk)) error {
	t.Helper()
	names := s.label("vol", 1, 8*mib, 4, 4)
	s.start(1, names...)
	dev := s.open("ggate0")
	_, err := dev.WriteAt(bytes.Repeat([]byte{3}, 4096), 0)
	must(t, err)
	_, err = s.d.Snapshot(context.Background(), "vol", control.SnapshotRequest{Snapshot: "then"})
	must(t, err)
	_, err = dev.WriteAt(bytes.Repeat([]byte{4}, 4096), 0)
	must(t, err)
	must(t, dev.Close())
	fail(s.disks[names[0]])
	_, err = s.d.Rollback(context.Background(), "vol", control.RollbackRequest{Snapshot: "then", Force: true, Providers: names})
	return err
}

func TestAVolumeWhoseClosingFailsAmidAVerbIsServedAgain(t *testing.T) {
	s := newSite(t, gatetest.Options{})
	err := rolledBack(t, s, func(zero *disktest.Disk) { zero.FailNth(disktest.Flush, 1, syscall.EIO) })
	if err == nil || !strings.Contains(err.Error(), "close vol: ") || !strings.Contains(err.Error(), "vol is served again as it is") {
		t.Fatalf("rolled back: %v", err)
	}
	b := make([]byte, 4096)
	dev := s.open("ggate0")
	_, err = dev.ReadAt(b, 0)
	must(t, err)
	if b[0] != 4 {
		t.Errorf("it holds %d", b[0])
	}
	_, err = dev.WriteAt(b, mib)
	must(t, err)
	must(t, dev.Close())
	_, err = s.d.Rollback(context.Background(), "vol", control.RollbackRequest{Snapshot: "then", Force: true, Providers: []string{"vol0", "vol1"}})
	must(t, err)
}

func TestAVolumeThatCannotBeServedAgainSaysWhatToDo(t *testing.T) {
	s := newSite(t, gatetest.Options{})
	err := rolledBack(t, s, (*disktest.Disk).Gone)
	if err == nil || !strings.Contains(err.Error(), "vol is out of service until ggated-virstor starts again with all its components") {
		t.Fatalf("rolled back: %v", err)
	}
}
