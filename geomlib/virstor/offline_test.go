package virstor_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/geomlib/virstor/backup"
	"github.com/gvirstor/gvirstor/geomlib/virstor/check"
	"github.com/gvirstor/gvirstor/geomlib/virstor/repair"
	"github.com/gvirstor/gvirstor/ondisk"
)

var (
	ctx    = context.Background()
	silent = slog.New(slog.DiscardHandler)
)

func providers(disks []*disktest.Disk) (ps []geomlib.Provider) {
	for _, d := range disks {
		ps = append(ps, d)
	}
	return ps
}

// setMetadata changes the metadata on a disk.
func setMetadata(d *disktest.Disk, change func(m *ondisk.Metadata)) error {
	m, err := geomlib.ReadMetadata(d)
	if err != nil {
		return err
	}
	change(&m)
	return geomlib.StoreMetadata(d, m)
}

// flagFirstEntry gives the first map entry, which is allocated, flags that do not
// exist.
func flagFirstEntry(d *disktest.Disk) error {
	b := make([]byte, d.SectorSize())
	if _, err := d.ReadAt(b, 0); err != nil {
		return err
	}
	e := ondisk.DecodeEntry(b, ondisk.LittleEndian)
	e.Flags |= 0x10
	e.Encode(b, ondisk.LittleEndian)
	if _, err := d.WriteAt(b, 0); err != nil {
		return err
	}
	return d.Flush()
}

// mend repairs the volume on disks, saving what it replaces in folder, and
// returns the journal, if one was needed.
func mend(disks []*disktest.Disk, folder string) ([]byte, error) {
	r, err := check.Inspect(ctx, providers(disks), check.Options{Search: -1})
	if err != nil {
		return nil, err
	}
	plans, err := repair.Make(r, repair.Choices{})
	if err != nil || len(plans) != 1 || !plans[0].Needed() {
		return nil, err
	}
	path := filepath.Join(folder, "journal")
	j, err := repair.CreateJournal(path, plans[0], time.Unix(0, 0))
	if err != nil {
		return nil, err
	}
	_, err = repair.Apply(ctx, plans[0], j, silent)
	err = errors.Join(err, j.Close())
	saved, readErr := os.ReadFile(path)
	return saved, errors.Join(err, readErr, os.Remove(path))
}

// offlineVerbs are made anew for each run: some remember what was saved.
func offlineVerbs(folder string) []virstor.OfflineVerb {
	var kept *backup.Backup
	var journal []byte
	chunkSize := func(disks []*disktest.Disk) error {
		return setMetadata(disks[0], func(m *ondisk.Metadata) { m.ChunkSize = 0 })
	}
	repairAll := func(disks []*disktest.Disk) error {
		_, err := mend(disks, folder)
		return err
	}
	return []virstor.OfflineVerb{
		{Name: "repair of metadata", Damaged: true, Before: chunkSize, Do: repairAll},
		{Name: "repair of metadata and map", Damaged: true, Do: repairAll, Before: func(disks []*disktest.Disk) error {
			return errors.Join(flagFirstEntry(disks[0]), setMetadata(disks[1], func(m *ondisk.Metadata) { m.Count, m.ChunkCount = 9, 2 }))
		}},
		{Name: "undo of a repair, and repair", Damaged: true,
			Before: func(disks []*disktest.Disk) (err error) {
				if err := errors.Join(flagFirstEntry(disks[0]), chunkSize(disks)); err != nil {
					return err
				}
				journal, err = mend(disks, folder)
				return err
			},
			Do: func(disks []*disktest.Disk) error {
				_, err := repair.Undo(ctx, bytes.NewReader(journal), providers(disks), repair.UndoOptions{})
				if err != nil && !errors.Is(err, repair.ErrChanged) { // used since
					return err
				}
				return repairAll(disks)
			}},
		{Name: "restore of component 0",
			Before: func(disks []*disktest.Disk) error {
				var members []virstor.Member
				for _, d := range disks {
					m, err := geomlib.ReadMetadata(d)
					if err != nil {
						return err
					}
					members = append(members, virstor.Member{Provider: d, Metadata: m})
				}
				var err error
				if kept, err = backup.FromAssembly(ctx, virstor.Assemble(members)[0], time.Unix(0, 0), nil); err != nil {
					return err
				}
				if _, err := disks[0].WriteAt(make([]byte, 256<<10), 0); err != nil {
					return err
				}
				return geomlib.ClearMetadata(disks[0])
			},
			Do: func(disks []*disktest.Disk) error {
				_, err := backup.Restore(ctx, providers(disks), kept, backup.RestoreOptions{InOrder: true, Log: silent})
				if errors.Is(err, backup.ErrNewer) { // done, and used since
					return nil
				}
				return err
			}},
	}
}

func TestRepairAndRestoreInterruptedAtEveryWriteCanBeDoneAgain(t *testing.T) {
	for i, v := range offlineVerbs(t.TempDir()) {
		t.Run(v.Name, func(t *testing.T) {
			counts, err := virstor.CrashOffline(v, uint64(i), testing.Short())
			if err != nil {
				t.Fatal(err)
			}
			t.Log(counts)
		})
	}
}
