package virstor

import (
	"errors"
	"strings"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/ondisk"
)

// settleDisks hands back what lies on disks, as the utility does with a volume that
// nobody serves.
func settleDisks(t *testing.T, disks ...*disktest.Disk) error {
	t.Helper()
	var ms []Member
	for _, d := range disks {
		m, err := geomlib.ReadMetadata(d)
		mustDo(t, err)
		ms = append(ms, Member{d, m})
	}
	return FinishInterrupted(Assemble(ms)[0], true, nil)
}

func TestAnUnfinishedJobIsAnObstacleForAStoppedVolumeAsForOneInService(t *testing.T) {
	for kind := ondisk.TaskEvacuate; kind <= ondisk.TaskReclaim; kind++ {
		t.Run(kind.String(), func(t *testing.T) {
			a, b := disktest.New("a", 16*crashChunk, 512), disktest.New("b", 16*crashChunk, 512)
			labelled(t, 64, a, b)
			disks := []*disktest.Disk{a, b}
			v, err := openDisks(Config{}, disks)
			mustDo(t, err)
			mustDo(t, <-startWrite(v, 0, 1).done)
			task := ondisk.Task{Kind: kind, ComponentCount: 1, Components: [8]uint32{1}}
			if kind == ondisk.TaskResize {
				task.Arg[1] = uint64(v.Size())
			}
			mustDo(t, v.setTask(task))
			mustDo(t, v.Close())
			var kept *NotHandedBackError
			if err := settleDisks(t, disks...); !errors.As(err, &kept) || !strings.Contains(kept.Error(), "unfinished "+kind.String()) {
				t.Errorf("a stopped volume: %v, want it kept for the unfinished job", err)
			}
			for _, d := range disks {
				if m, err := geomlib.ReadMetadata(d); err != nil || m.Version != ondisk.VersionFenced {
					t.Errorf("%s is of version %d, %v", d.Name(), m.Version, err)
				}
			}
			// The job is not forgotten either: the next start goes on with it.
			v, err = openDisks(Config{}, disks)
			mustDo(t, err)
			if _, resumed := v.Job(); !resumed {
				t.Error("the next start does not go on with the job")
			}
			if _, err := v.WaitJob(t.Context()); err != nil {
				t.Error(err)
			}
			mustDo(t, v.Close())
		})
	}
}

func TestAStoppedVolumeWithoutObstaclesIsHandedBack(t *testing.T) {
	a := disktest.New("a", 16*crashChunk, 512)
	labelled(t, 64, a)
	v, err := openDisks(Config{}, []*disktest.Disk{a})
	mustDo(t, err)
	mustDo(t, <-startWrite(v, 0, 1).done)
	mustDo(t, v.Close())
	mustDo(t, settleDisks(t, a))
	if m, err := geomlib.ReadMetadata(a); err != nil || m.Version != ondisk.Version {
		t.Errorf("version %d, %v", m.Version, err)
	}
}
