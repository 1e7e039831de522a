package helper

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib/gate"
)

// TestMain answers when the tests ask their own program.
func TestMain(m *testing.M) {
	question := Asked()
	if question == "" {
		os.Exit(m.Run())
	}
	k := Kernel{
		Tree: func() ([]byte, error) { return []byte("<mesh/>"), nil },
		Resize: func(f *os.File, unit int, size int64) error {
			b := make([]byte, 16)
			n, err := f.Read(b)
			switch {
			case err != nil:
				return err
			case string(b[:n]) != "the device":
				return errors.New("another descriptor")
			case unit == 3 && size == 1<<40:
				return nil
			}
			return &gate.OpError{Cmd: gate.CmdModify, Unit: unit, Err: gate.ErrGone}
		},
	}
	b, err := k.Answer(question)
	if err != nil {
		os.Stderr.WriteString(err.Error())
		os.Exit(1)
	}
	os.Stdout.Write(b)
}

// asker asks this program, with a file in place of the control device.
func asker(t *testing.T, contents string) *Asker {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := f.WriteString(contents); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Seek(0, 0); err != nil {
		t.Fatal(err)
	}
	return New(program, f)
}

func TestTheTreeIsReadByAnotherProcess(t *testing.T) {
	b, err := asker(t, "").Tree()
	if err != nil || string(b) != "<mesh/>" {
		t.Fatalf("%q, %v", b, err)
	}
}

func TestASizeIsChangedByAnotherProcess(t *testing.T) {
	if err := asker(t, "the device").Resize(3, 1<<40); err != nil {
		t.Fatal(err)
	}
	err := asker(t, "the device").Resize(4, 1<<40)
	if want := "MODIFY unit 4: no such unit"; !errors.Is(err, gate.ErrGone) || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	if err := asker(t, "a file").Resize(3, 1<<40); err == nil || !strings.Contains(err.Error(), "another descriptor") {
		t.Errorf("an error that is no errno: %v", err)
	}
}

func TestNoAnswerIsAnError(t *testing.T) {
	a := asker(t, "")
	if _, err := a.ask("riddle"); err == nil || !strings.Contains(err.Error(), "riddle: not a question") {
		t.Errorf("%v", err)
	}
	a.program += "-that-is-not-there"
	if _, err := a.Tree(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}
