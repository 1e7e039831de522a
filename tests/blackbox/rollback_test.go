package blackbox

import (
	"bytes"
	"strings"
	"testing"

	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdclient"
)

// holdsValue fails the test unless the first chunks of an export hold value.
func (s *site) holdsValue(uri string, value byte) {
	s.t.Helper()
	c, err := nbdclient.Dial(s.t.Context(), uri, nbdclient.Options{})
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close() // the daemon does not count it then
	b := make([]byte, 4*mib)
	if _, err := c.ReadAt(b, 0); err != nil || !bytes.Equal(b, bytes.Repeat([]byte{value}, len(b))) {
		s.t.Errorf("%s begins with %#x, want %#x; %v", uri, b[:4], value, err)
	}
}

// rollsBack has a daemon roll its volume back while clients have it, hold a write for
// space, and read a snapshot.
func (s *site) rollsBack() {
	s.t.Helper()
	s.fillVolume(1)
	s.gvirstor("snapshot", "vol@monday")
	s.fillVolume(2)
	s.gvirstor("snapshot", "vol@tuesday")
	s.fillVolume(3)
	client := s.dial()
	out, err := s.tryGvirstor("rollback", "vol@monday")
	if err == nil || !strings.Contains(out, "4 chunks, 4194304 bytes, were written to or given up since") ||
		!strings.Contains(out, "4 chunks, 4194304 bytes, no snapshot has: they would be lost; it is in use (") || !strings.Contains(out, "or roll back with -f") {
		s.t.Errorf("%v, %s", err, out)
	}
	if out := s.gvirstor("rollback", "-n", "vol@monday"); !strings.HasPrefix(out, "vol@monday: 4 chunks, ") {
		s.t.Error(out)
	}
	held := make(chan error, 1)
	s.gvirstor("reserve", "vol", "90")
	go func() {
		_, err := client.WriteAt(bytes.Repeat([]byte{4}, 4*mib), 100*mib)
		held <- err
	}()
	s.until("a write is held", func() bool { return s.status().Held.Count > 0 })
	reader, err := nbdclient.Dial(s.t.Context(), s.snapshotURI("tuesday"), nbdclient.Options{})
	if err != nil {
		s.t.Fatal(err)
	}
	defer reader.Abort()
	if out := s.gvirstor("rollback", "-fv", "vol@monday"); out != "vol is what it was at monday; 4 chunks, 4194304 bytes, are taken back.\nDone.\n" {
		s.t.Error(out)
	}
	if err := <-held; err == nil {
		s.t.Error("the held write has been done")
	}
	s.said("volume rolled back")
	s.holdsValue(s.uri(), 1)
	s.holdsValue(s.snapshotURI("monday"), 1)
	s.holdsValue(s.snapshotURI("tuesday"), 2)
	reader, err = nbdclient.Dial(s.t.Context(), s.snapshotURI("monday"), nbdclient.Options{})
	if err != nil {
		s.t.Fatal(err)
	}
	if out, err := s.tryGvirstor("rename", "vol@monday", "@sunday"); err == nil {
		s.t.Errorf("renamed while it is read: %s", out)
	}
	if out, err := s.tryGvirstor("rename", "-n", "vol@monday", "@sunday"); err == nil || !strings.Contains(out, "1 NBD clients connected") {
		s.t.Errorf("could be renamed while it is read: %s", out)
	}
	reader.Abort()
	s.until("nobody reads the snapshot", func() bool { _, err := s.tryGvirstor("rename", "vol@monday", "@sunday"); return err == nil })
	s.holdsValue(s.snapshotURI("sunday"), 1)
	s.gvirstor("rename", "-n", "vol@sunday", "@monday")
	s.holdsValue(s.snapshotURI("sunday"), 1) // that has changed nothing
	s.gvirstor("rename", "vol@sunday", "@monday")
	s.gvirstor("rollback", "vol@monday") // nothing is lost by that
	if out := s.gvirstor("rollback", "-n", "vol@monday"); out != "vol@monday: nothing was written since\n" {
		s.t.Error(out)
	}
	s.gvirstor("reserve", "--release", "vol")
	spare := s.file("spare", 32*mib)
	s.gvirstor("spare", "vol", spare)
	s.gvirstor("rollback", "-f", "vol@tuesday")
	s.holdsValue(s.uri(), 2)
	if all := s.status().Spares; len(all) != 1 || all[0].Name != spare || all[0].Failed != "" {
		s.t.Errorf("spares %+v", all)
	}
}

func TestAVolumeInServiceIsRolledBack(t *testing.T) {
	for _, way := range []string{"no", "yes"} {
		if way == "yes" {
			needRoot(t)
		}
		s := newSite(t, 96*mib)
		s.label("-s", "1g", "-m", "1m")
		s.start("--supervise=" + way)
		s.rollsBack()
		s.kill()
		s.start("--supervise=" + way)
		s.holdsValue(s.uri(), 2)
		s.term()
	}
}

// What cannot be done anyway ends nobody's connection.
func TestClientsOfADaemonThatOnlyReadsStayWhenAVolumeIsToChange(t *testing.T) {
	s := newSite(t, 96*mib)
	s.label("-s", "1g", "-m", "1m")
	s.start()
	s.fillVolume(1)
	s.gvirstor("snapshot", "vol@monday")
	s.fillVolume(2)
	s.term()
	s.start("--read-only")
	client := s.dial()
	for _, verb := range [][]string{{"rollback", "-f", "vol@monday"}, {"rename", "-f", "vol", "other"}} {
		if out, err := s.tryGvirstor(verb...); err == nil || !strings.Contains(out, "read-only") {
			t.Errorf("%s: %v, %s", verb[0], err, out)
		}
		if _, err := client.ReadAt(make([]byte, 4096), 0); err != nil {
			t.Errorf("%s: %v", verb[0], err)
		}
	}
	s.term()
}
