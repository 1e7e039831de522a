package virstor

import (
	"errors"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib/disktest"
)

// twoDisks is a volume on a and b with its first seven chunks written to, four of them
// on a, and another disk, of the size that could take all.
func twoDisks(t *testing.T) (disks []*disktest.Disk, spare *disktest.Disk, v *Volume) {
	t.Helper()
	disks = []*disktest.Disk{disktest.New("a", 6*crashChunk+512, 512), disktest.New("b", 9*crashChunk+512, 512)}
	spare = disktest.New("new", 12*crashChunk+512, 512).FillJunk(3)
	labelled(t, 64, disks...)
	v, err := openDisks(Config{WhenFull: Fail}, disks)
	mustDo(t, err)
	for i := range int64(7) {
		mustDo(t, <-startWrite(v, i*crashChunk, uint64(i+1)).done)
	}
	mustDo(t, v.Flush())
	return disks, spare, v
}

// holdsSeven checks the seven chunks that twoDisks wrote.
func holdsSeven(t *testing.T, v *Volume) {
	t.Helper()
	b := make([]byte, unit)
	for i := range int64(7) {
		if _, err := v.ReadAt(b, i*crashChunk); err != nil || idOf(b) != uint64(i+1) {
			t.Errorf("chunk %d holds %d, %v", i, idOf(b), err)
		}
	}
}

func endsWell(t *testing.T, v *Volume, err error) JobStatus {
	t.Helper()
	mustDo(t, err)
	s, err := v.WaitJob(t.Context())
	mustDo(t, errors.Join(err, s.Err))
	return s
}

func TestAVolumeWhoseComponent0TakesNoWritesIsReadAndNothingElseUntilThatHasLeft(t *testing.T) {
	disks, spare, v := twoDisks(t)
	mustDo(t, v.Close())
	var met atomic.Bool
	takesNone(disks[0], 1, &met)
	if _, err := openDisks(Config{}, disks); !errors.Is(err, syscall.EIO) {
		t.Errorf("it is opened for writing: %v", err)
	}
	v, err := openDisks(Config{ServeStranded: true, WhenFull: Fail}, disks)
	mustDo(t, err)
	if !v.Stranded() || v.Deferred() || !hasFailed(v.Status().Components, "a") {
		t.Errorf("stranded %v, deferred %v, %+v", v.Stranded(), v.Deferred(), v.Status().Components)
	}
	holdsSeven(t, v)
	mustDo(t, v.Flush()) // of nothing
	for what, err := range map[string]error{
		"write":       <-startWrite(v, 6*crashChunk, 99).done, // on b
		"discard":     v.Discard(0, crashChunk),
		"add":         v.Add(nil, AddOptions{}),
		"remove":      v.Remove("b"),
		"evacuate b":  v.Evacuate([]string{"b"}, "", JobOptions{}),
		"pack":        v.Pack(JobOptions{}),
		"resize":      v.Resize(128*crashChunk, false, JobOptions{}),
		"raise":       v.RaiseGeneration(),
		"remove of 0": v.Remove("a"),
	} {
		if !errors.Is(err, ErrStranded) || !strings.Contains(err.Error(), "a: component 0") {
			t.Errorf("%s: %v", what, err)
		}
	}
	s := endsWell(t, v, v.Replace("a", spare, false, JobOptions{}))
	if !strings.Contains(s.Result, "a, component 0, took no writes") {
		t.Errorf("no word about the disk: %q", s.Result)
	}
	holdsSeven(t, v)
	mustDo(t, <-startWrite(v, 20*crashChunk, 21).done) // a new chunk
	if v.Stranded() || v.Status().Degraded {
		t.Error("it does not go on")
	}
	mustDo(t, v.Close())
	v, err = openDisks(Config{}, []*disktest.Disk{disks[0], disks[1], spare})
	mustDo(t, err)
	defer v.Close()
	holdsSeven(t, v)
	if names := namesOf(v); names != "new b" {
		t.Errorf("its components are %s", names)
	}
}

func namesOf(v *Volume) string {
	var names []string
	for _, c := range v.Status().Components {
		names = append(names, c.Name)
	}
	return strings.Join(names, " ")
}

func TestStoppingAVolumeWhoseComponent0TakesNoWritesDoesNotHandItBack(t *testing.T) {
	disks, _, v := twoDisks(t)
	mustDo(t, v.Close())
	var met atomic.Bool
	takesNone(disks[0], 1, &met)
	v, err := openDisks(Config{ServeStranded: true}, disks)
	mustDo(t, err)
	if err := v.Stop(); !errors.Is(err, ErrNotHandedBack) || !strings.Contains(err.Error(), "takes no writes") {
		t.Errorf("stop: %v", err)
	}
}

func TestAVolumeThatIsTakenOverIsReadWhenComponent0TakesNoWrites(t *testing.T) {
	disks, spare, v := twoDisks(t)
	mustDo(t, v.Close())
	v, err := openDisks(Config{ServeStranded: true, DeferWrites: true}, disks)
	mustDo(t, err)
	defer v.Close()
	waiting := startWrite(v, 0, 50)
	var met atomic.Bool
	takesNone(disks[0], 1, &met)
	mustDo(t, v.Activate(nil))
	if err := <-waiting.done; !errors.Is(err, ErrStranded) {
		t.Errorf("a write that waited: %v", err)
	}
	holdsSeven(t, v)
	endsWell(t, v, v.Replace("a", spare, false, JobOptions{}))
	mustDo(t, <-startWrite(v, 0, 1).done)
	holdsSeven(t, v)
}

func TestAProviderThatCannotReplaceComponent0IsLetGoAndAllIsAsBefore(t *testing.T) {
	disks, spare, v := twoDisks(t)
	defer v.Close()
	var met atomic.Bool
	heal := takesNone(disks[0], 1, &met)
	var written atomic.Int64
	spare.Inject(func(o disktest.Op) error {
		if o.Kind == disktest.Write && written.Add(1) > 3 {
			return syscall.ENXIO
		}
		return nil
	})
	free := v.Status().Free
	mustDo(t, v.Replace("a", spare, false, JobOptions{}))
	if s, _ := v.WaitJob(t.Context()); !errors.Is(s.Err, syscall.ENXIO) {
		t.Errorf("the job ended with %v", s.Err)
	}
	if names := namesOf(v); names != "a b" || v.Status().Free != free {
		t.Errorf("its components are %s, %d chunks are free, were %d", names, v.Status().Free, free)
	}
	heal()
	holdsSeven(t, v)
	mustDo(t, <-startWrite(v, 0, 1).done)
	v.committer.kick()
	mustDo(t, <-startWrite(v, 6*crashChunk, 7).done)
}

func TestFlushesFailWhenAComponent0HasLeftOfWhichOneDid(t *testing.T) {
	disks, spare, v := twoDisks(t)
	mustDo(t, <-startWrite(v, 0, 1).done)
	disks[0].Inject(func(o disktest.Op) error {
		if o.Kind == disktest.Flush {
			return syscall.EIO
		}
		return nil
	})
	endsWell(t, v, v.Replace("a", spare, false, JobOptions{}))
	if names := namesOf(v); names != "new b" {
		t.Errorf("its components are %s", names)
	}
	// The client wrote to what was lost, perhaps, and has not heard of it.
	if err := v.Flush(); !errors.Is(err, ErrFlushFailed) {
		t.Errorf("flush: %v", err)
	}
	_ = v.Close()
	v, err := openDisks(Config{}, []*disktest.Disk{spare, disks[1]})
	mustDo(t, err)
	holdsSeven(t, v)
	mustDo(t, v.Flush())
	mustDo(t, v.Close())
}
