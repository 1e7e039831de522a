package virstor

import (
	"bytes"
	"errors"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
)

// lendingDisk lends copies.
type lendingDisk struct{ *disktest.Disk }

func (d lendingDisk) Lend(off, n int64, wait bool) (geomlib.Loan, bool) {
	b := make([]byte, n)
	if !d.ReadCached(b, off) {
		return geomlib.Loan{}, false
	}
	return geomlib.Loan{Memory: b}, true
}

// taker takes what take says, and keeps that.
type taker struct {
	take  func(p []byte) int
	calls int
	got   []byte
	done  chan error
}

func (k *taker) Take(_ *Request, p []byte) int {
	k.calls++
	n := k.take(p)
	k.got = append(k.got, p[:n]...)
	return n
}

func (k *taker) Complete(r *Request) { k.done <- r.Err }

// read reads from v and returns what came, by way of the taker or not.
func (k *taker) read(v *Volume, flags Flags, off, n int64) ([]byte, error) {
	k.calls, k.got, k.done = 0, nil, make(chan error, 1)
	r := &Request{Op: OpRead, Flags: flags, Offset: off, Length: n, Data: make([]byte, n), Done: k, Taker: k}
	v.Submit(r)
	err := <-k.done
	return append(k.got, r.Data[len(k.got):]...), err
}

// lending is a volume on a disk that lends, of which the first four chunks are written to.
func lending(t *testing.T, cfg Config) (*Volume, *disktest.Disk, []byte) {
	t.Helper()
	d := disktest.New("a", 16*crashChunk, 512)
	labelled(t, 64, d)
	m, err := geomlib.ReadMetadata(d)
	mustDo(t, err)
	v, err := Open(Assemble([]Member{{lendingDisk{d}, m}})[0], cfg)
	mustDo(t, err)
	data := make([]byte, 4*crashChunk)
	for i := range data {
		data[i] = byte(i*7 + i/512)
	}
	_, err = v.WriteAt(data, 0)
	mustDo(t, err)
	return v, d, data
}

// TestWhatIsNotTakenIsCopied: whatever a taker takes, its reader gets all of the range, and
// the request counts as one.
func TestWhatIsNotTakenIsCopied(t *testing.T) {
	v, d, data := lending(t, Config{})
	defer v.Close()
	type part struct{ off, n int64 }
	offered := []part{{0, crashChunk}, {512, 1024}, {crashChunk, 512}}
	copied := []part{{crashChunk - 512, 1024}, {0, 2 * crashChunk}, {8 * crashChunk, 512}, {4*crashChunk - 512, crashChunk}}
	reads, bytesRead := 0, int64(0)
	try := func(p part, take int64, flags Flags, offers bool) {
		k := &taker{take: func(b []byte) int { return int(min(take, int64(len(b)))) }}
		got, err := k.read(v, flags, p.off, p.n)
		mustDo(t, err)
		want := append(bytes.Clone(data[min(p.off, int64(len(data))):min(p.off+p.n, int64(len(data)))]), make([]byte, p.n)...)[:p.n]
		if !bytes.Equal(got, want) {
			t.Errorf("%+v, %d taken, flags %d: other data", p, take, flags)
		}
		if (k.calls > 0) != offers {
			t.Errorf("%+v: offered %d times, want offers %v", p, k.calls, offers)
		}
		reads, bytesRead = reads+1, bytesRead+p.n
	}
	for _, cached := range []bool{true, false} {
		d.SetCached(cached)
		for _, flags := range []Flags{0, MayBlock} {
			for _, take := range []int64{0, 1, 511, 512, 700, 1 << 30} {
				for range timedOneIn { // one of them is timed
					for _, p := range offered {
						try(p, take, flags, cached)
					}
				}
				for _, p := range copied {
					try(p, take, flags, false)
				}
			}
		}
	}
	if s := v.OpStats(OpRead); s.Count != uint64(reads) || s.Bytes != uint64(bytesRead) || s.Errors != 0 {
		t.Errorf("%d reads of %d bytes became %+v", reads, bytesRead, s)
	}
}

// TestAReadFailsThatWasTakenInPart when the rest cannot be read.
func TestAReadFailsThatWasTakenInPart(t *testing.T) {
	v, d, _ := lending(t, Config{})
	defer v.Close()
	d.FailFrom(disktest.Read, 1, syscall.EIO)
	for _, flags := range []Flags{0, MayBlock} {
		k := &taker{take: func([]byte) int { return 100 }}
		if _, err := k.read(v, flags, 0, 1024); !errors.Is(err, syscall.EIO) || len(k.got) != 100 {
			t.Errorf("flags %d: %d bytes taken, then %v", flags, len(k.got), err)
		}
	}
}

// keepsWhatIsLent frees a chunk while it is lent.
func keepsWhatIsLent(t *testing.T, cfg Config) (err error) {
	synctest.Test(t, func(t *testing.T) {
		v, _, _ := lending(t, cfg)
		defer v.Close()
		freed := make(chan error, 1)
		k := &taker{take: func(p []byte) int {
			go func() { freed <- v.Discard(0, crashChunk) }()
			synctest.Wait()
			if len(freed) > 0 {
				err = errors.New("a chunk was freed while it was lent")
			}
			return len(p)
		}}
		if _, e := k.read(v, MayBlock, 0, 1024); e != nil {
			err = errors.Join(err, e)
		}
		err = errors.Join(err, <-freed)
	})
	return err
}
