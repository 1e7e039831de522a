package daemon

import (
	"bytes"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ondisk"
)

// A device that somebody has open goes on through the death of the daemon with the same
// lease. When another host has taken that, what is asked of the device fails, it goes away
// and nothing more is written: it is never continued.
func TestADeviceGoesOnWithItsLeaseAndFailsWithoutIt(t *testing.T) {
	s := newSite(t, tasting)
	s.far, s.last = true, new(leaseNote)
	s.lease = LeaseOptions{Interval: 40 * time.Millisecond, Settle: time.Second, HostName: "here"}
	names := s.label("vol", 0xabcd, 8*mib, 4, 4)
	s.start(1, names...)
	dev := s.open("ggate0")
	write := func(b byte) error {
		_, err := dev.WriteAt(bytes.Repeat([]byte{b}, 4096), 5*mib)
		return err
	}
	must(t, write(1))
	zero := s.disks[names[0]]
	m, err := geomlib.ReadMetadata(zero)
	must(t, err)
	off, room := ondisk.LeaseOffset(m, sector)
	if !room {
		t.Fatal("there is no room for a lease")
	}
	read := func() (l ondisk.Lease) {
		b := make([]byte, ondisk.LeaseSize)
		_, err := zero.ReadAt(b, off)
		must(t, err)
		l, err = ondisk.DecodeLease(b)
		must(t, err)
		return l
	}
	first := read()
	s.crash()
	s.start(1, names...)
	must(t, write(2))
	if again := read(); again.Owner != first.Owner || again.HostName != "here" || again.Released {
		t.Errorf("the lease was %+v, and is %+v", first, again)
	}

	other := read()
	other.Owner, other.HostName, other.Sequence = other.Owner+1, "there", 1
	b := make([]byte, ondisk.LeaseSize)
	must(t, other.Encode(b))
	// A renewal that has looked already writes over it once; who takes a lease looks again.
	eventually(t, "the lease is lost", func() bool {
		if read().Owner != other.Owner {
			_, err := zero.WriteAt(b, off)
			must(t, err)
		}
		_, there := s.k.Status(0)
		return !there
	})
	if err := write(3); err == nil {
		t.Error("a write succeeds without the lease")
	}
	_ = dev.Close() // of a device that is gone
	if is := read(); is != other {
		t.Errorf("the other's lease is now %+v", is)
	}
	eventually(t, "the volume is not served any more", func() bool {
		s.d.mu.Lock()
		defer s.d.mu.Unlock()
		return len(s.d.volumes) == 0
	})
}
