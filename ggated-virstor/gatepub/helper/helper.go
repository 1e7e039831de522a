// Package helper asks the kernel in a helper process for what waits until
// GEOM's event queue is empty: kern.geom.confxml, and the return from a MODIFY of
// geom_gate(4) that changes a size (g_waitfor_event and g_waitidle in
// sys/geom/geom_event.c). Nothing ends such a wait, SIGKILL neither, and the queue
// may stand still until somebody serves a device of ours. A process that waits
// so keeps its locks even when it is killed, and the next daemon, which would
// serve the device, would wait for the locks. The helper holds none.
//
//	supervisor: Asker ──environment, /dev/ggctl──► the same program: Asked, Answer
//	            ◄───────────standard output──────
package helper

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/gvirstor/gvirstor/geomlib/gate"
)

const (
	// env tells the program what it is asked. Its name must not change: a
	// supervisor may start a program that is newer than itself.
	env = "GGATED_VIRSTOR_APART"
	// gateFD is its descriptor of the control device.
	gateFD = 3

	tree   = "tree"
	resize = "resize"
)

// Asker asks. Its methods may be called by many goroutines at once.
type Asker struct {
	program string
	gate    *os.File
}

// New makes an Asker that starts program, which calls Asked, with the descriptor
// of the control device. It stays the caller's.
func New(program string, gate *os.File) *Asker { return &Asker{program, gate} }

// Tree is kern.geom.confxml.
func (a *Asker) Tree() ([]byte, error) { return a.ask(tree) }

// Resize is gate.Gate's.
func (a *Asker) Resize(unit int, size int64) error {
	out, err := a.ask(fmt.Sprint(resize, " ", unit, " ", size))
	if err != nil {
		return fmt.Errorf("resize unit %d: %w", unit, err)
	}
	if n, err := strconv.Atoi(string(out)); err == nil && n != 0 {
		return &gate.OpError{Cmd: gate.CmdModify, Unit: unit, Err: gate.Errno(n)}
	}
	return nil
}

func (a *Asker) ask(question string) ([]byte, error) {
	cmd := exec.Command(a.program)
	cmd.Env = append(os.Environ(), env+"="+question)
	cmd.ExtraFiles = []*os.File{a.gate} // becomes gateFD
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("ask the kernel in a process apart: %w: %s", err, strings.TrimSpace(said.String()))
	}
	return out.Bytes(), nil
}

// Asked is what this process is asked; empty if it is no helper.
func Asked() string { return os.Getenv(env) }

// Kernel is who knows the answers.
type Kernel struct {
	Tree   func() ([]byte, error)
	Resize func(gate *os.File, unit int, size int64) error
}

// Answer returns what to print.
func (k Kernel) Answer(question string) ([]byte, error) {
	if question == tree {
		return k.Tree()
	}
	var unit int
	var size int64
	if _, err := fmt.Sscanf(question, resize+" %d %d", &unit, &size); err != nil {
		return nil, fmt.Errorf("%s=%s: not a question", env, question)
	}
	err := k.Resize(os.NewFile(gateFD, "control device of geom_gate"), unit, size)
	var errno gate.Errno
	if err != nil && !errors.As(err, &errno) {
		return nil, err
	}
	return strconv.AppendInt(nil, int64(errno), 10), nil
}
