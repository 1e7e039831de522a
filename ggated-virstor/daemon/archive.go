package daemon

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/geomlib/virstor/backup"
	"github.com/gvirstor/gvirstor/ggated-virstor/publish"
)

// Archive keeps the last backups of volumes. A supervisor may stand behind it.
type Archive interface {
	// Keep returns where the backup is.
	Keep(b *backup.Backup) (path string, err error)
}

// autoBackup has backups kept of one volume: when its components or its size have
// changed, on a goroutine of its own, and when it is stopped. A failure is
// logged and keeps nothing from going on.
type autoBackup struct {
	archive Archive // or nil
	vol     *virstor.Volume
	log     *slog.Logger
	changed chan struct{} // capacity 1
	task    *publish.Task

	making sync.Mutex // of one backup
}

func newAutoBackup(a Archive, vol *virstor.Volume, log *slog.Logger) *autoBackup {
	return &autoBackup{archive: a, vol: vol, log: log, changed: make(chan struct{}, 1)}
}

func (a *autoBackup) start() {
	a.task = publish.StartTask(func(ctx context.Context) {
		for {
			select {
			case <-ctx.Done():
				return
			case <-a.changed:
				a.keep()
			}
		}
	})
}

// note looks at what happened to the volume.
func (a *autoBackup) note(e virstor.Event) {
	if e.Kind != virstor.EventComponents && e.Kind != virstor.EventResized {
		return
	}
	select {
	case a.changed <- struct{}{}:
	default:
	}
}

func (a *autoBackup) stop(ctx context.Context) {
	if a.task != nil {
		a.task.Stop(ctx)
	}
}

// keep has the volume backed up as it is now.
func (a *autoBackup) keep() {
	if a.archive == nil || a.vol.ReadOnly() || a.vol.Deferred() {
		return
	}
	a.making.Lock()
	defer a.making.Unlock()
	b, err := backup.FromVolume(context.Background(), a.vol, time.Now())
	var path string
	if err == nil {
		path, err = a.archive.Keep(b)
	}
	if err != nil {
		a.log.Warn("no backup of metadata and map was kept", "volume", a.vol.Name(), "error", err)
		return
	}
	a.log.Info("metadata and map backed up", "volume", a.vol.Name(), "file", path)
}
