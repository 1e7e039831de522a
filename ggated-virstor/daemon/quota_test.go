package daemon

import (
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/space"
)

// What was predicted by the quota that there was is told no more when it is another one.
func TestAnotherQuotaIsAnotherPredictionAtOnce(t *testing.T) {
	names := labelFiles(t, 40<<20)
	synctest.Test(t, func(t *testing.T) {
		d := New(Options{Version: "test", Alerts: space.AlertOptions{Levels: space.Defaults()}}, Direct{LockDir: t.TempDir()}, nil, slog.New(slog.DiscardHandler))
		if n := d.ServeAll(names); n != 1 {
			t.Fatalf("%d volumes", n)
		}
		_, err := d.Create(t.Context(), "vol/web", control.CreateRequest{Size: 32 << 20, Quota: 8 << 20})
		must(t, err)
		s, err := d.findActivePool("vol")
		must(t, err)
		web, err := s.vol.OpenVolume("web")
		must(t, err)
		time.Sleep(time.Minute + time.Second) // the first look
		_, err = web.WriteAt(make([]byte, 4<<20), 0)
		must(t, err)
		time.Sleep(10*time.Minute + time.Second)
		predicted := func() int64 {
			synctest.Wait()
			v := s.status()
			if len(v.Volumes) != 1 || v.Volumes[0].SecondsToFull == nil {
				t.Fatalf("no prediction: %+v", v.Volumes)
			}
			return *v.Volumes[0].SecondsToFull
		}
		before := predicted()
		must(t, d.Quota(t.Context(), "vol/web", control.QuotaRequest{Bytes: 24 << 20}))
		if now := predicted(); now < 4*before { // 20 MiB are left, and 4 were
			t.Errorf("%d s, and %d s before the quota was raised", now, before)
		}
		must(t, d.Close())
	})
}
