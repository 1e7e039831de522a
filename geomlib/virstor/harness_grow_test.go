package virstor

import (
	"bytes"
	"errors"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
)

// growBeside lets a volume grow, and a component join while chunks make way for the map:
// growing takes time, and what it writes to component 0 at its end says what the members
// are. It tells what is wrong with the volume then, and after the process died.
func growBeside(t *testing.T, cfg Config) error {
	t.Helper()
	a, b := disktest.New("a", 24*crashChunk, 512), disktest.New("b", 24*crashChunk, 512)
	labelled(t, 64, a)
	rec := disktest.Record(a, b)
	cfg.Alloc = Spread
	v, err := openDisks(cfg, []*disktest.Disk{a})
	mustDo(t, err)
	data := bytes.Repeat([]byte{7}, crashChunk)
	for vc := range int64(4) {
		_, err := v.WriteAt(data, vc*crashChunk)
		mustDo(t, err)
	}
	reached, release := a.BlockWhen(func(op disktest.Op) bool { return op.Kind == disktest.Write && op.Len == crashChunk })
	const size = 20000 * crashChunk // more than the map has room for
	mustDo(t, v.Resize(size, false, JobOptions{}))
	<-reached
	mustDo(t, v.Add([]geomlib.Provider{b}, AddOptions{}))
	generation, _ := v.Generation()
	release()
	ended(t, v)
	for vc := int64(4); vc < 12; vc++ { // on both
		_, err := v.WriteAt(data, vc*crashChunk)
		mustDo(t, err)
	}
	died := rec.ProcessDeath(rec.Len())
	_ = v.Close()
	if v, err = openDisks(Config{}, died); err != nil {
		return err
	}
	defer v.Close()
	if g, _ := v.Generation(); v.Size() < size || len(v.components()) != 2 || g <= generation {
		return errors.New("it is another volume")
	}
	got := make([]byte, 12*crashChunk)
	if _, err := v.ReadAt(got, 0); err != nil {
		return err
	}
	if !bytes.Equal(got, bytes.Repeat(data, 12)) {
		return errors.New("it holds something else")
	}
	return nil
}
