package publish

import (
	"net"
	"os"
	"testing"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

// fileOf is the descriptor of a listener that is closed itself.
func fileOf(t *testing.T) *os.File {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func open(t *testing.T, name string) *os.File {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func closed(f *os.File) bool { return f.Close() != nil }

func TestWhatIsTakenIsTheTakersAndTheRestIsClosed(t *testing.T) {
	gate, one, two := open(t, os.DevNull), fileOf(t), fileOf(t)
	r := Resources{control.Gate: {gate}, control.NBD: {one, two}}
	ls, err := r.TakeListeners(control.NBD)
	if err != nil || len(ls) != 2 {
		t.Fatalf("%d listeners, %v", len(ls), err)
	}
	for _, l := range ls {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		l.Close()
	}
	if again := r.Take(control.NBD); again != nil || !closed(one) || !closed(two) {
		t.Errorf("taken twice: %v", again)
	}
	if err := r.Close(); err != nil || !closed(gate) {
		t.Errorf("what nobody took is open: %v", err)
	}
}

func TestADescriptorThatIsNoListenerIsAnErrorAndNothingStaysOpen(t *testing.T) {
	l, other := fileOf(t), open(t, os.DevNull)
	r := Resources{control.NBD: {l, other}}
	ls, err := r.TakeListeners(control.NBD)
	if err == nil || ls != nil || !closed(l) || !closed(other) {
		t.Errorf("%v, %v", ls, err)
	}
}
