package blackbox

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// pipe has the shell run what sends with s's daemon and receives with to's.
func (s *site) pipe(to *site, send, between, receive string) (string, error) {
	s.t.Helper()
	program := filepath.Join(programs, "gvirstor")
	line := fmt.Sprintf("%s --control %s %s %s| %s --control %s %s", program, s.control, send, between, program, to.control, receive)
	return try(s.t, "sh", "-c", line)
}

func TestAServedVolumeIsSentToAnotherThatIsServed(t *testing.T) {
	need(t, "qemu-img")
	a, b := newSite(t, 64*mib, 64*mib), newSite(t, 160*mib)
	a.label("-s", "256m", "-m", "1m")
	b.label("-s", "256m", "-m", "4m")
	a.start()
	b.start()
	rng := rand.New(rand.NewPCG(5, 6))
	c := a.dial()
	for _, name := range []string{"s0", "s1"} {
		data := make([]byte, mib)
		for range 6 {
			for i := range data {
				data[i] = byte(rng.Uint32())
			}
			if _, err := c.WriteAt(data, rng.Int64N(30*mib)&^4095); err != nil {
				t.Fatal(err)
			}
		}
		a.gvirstor("snapshot", "vol@"+name)
	}
	same := func(name string) {
		t.Helper()
		command(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", a.snapshotURI(name), b.snapshotURI(name))
	}
	if out, err := a.pipe(b, "send vol@s0", "", "receive vol"); err != nil {
		t.Fatal(out)
	}
	same("s0")

	d := b.dial()
	if out, err := a.pipe(b, "send -i @s0 vol@s1", "", "receive vol"); err == nil || !strings.Contains(out, "Device busy (1 NBD client connected)") {
		t.Errorf("while a client is connected: %v, %s", err, out)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	out, err := a.pipe(b, "send -i @s0 vol@s1", "| head -c 3000000 ", "receive vol")
	m := regexp.MustCompile("--resume (receive-[0-9a-f-]+) vol@s1").FindStringSubmatch(out)
	if err == nil || m == nil {
		t.Fatalf("%v, %s", err, out)
	}
	if out, err := a.pipe(b, "send -i @s0 --resume "+m[1]+" vol@s1", "", "receive -v vol"); err != nil || !strings.Contains(out, "vol@s1: received") {
		t.Fatalf("%v, %s", err, out)
	}
	same("s1")
	same("s0")
	if out := b.gvirstor("list", "-t", "snapshot", "-p"); strings.Count(out, "\n") != 2 {
		t.Errorf("snapshots:\n%s", out)
	}
	if said := b.log.String(); strings.Contains(said, "verb=write") || !strings.Contains(said, "verb=receive") {
		t.Errorf("the log:\n%s", said)
	}
}
