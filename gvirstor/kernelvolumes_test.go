package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
)

// kernelTree is what a kernel printed that runs the volume "written": 14 chunks
// allocated on vtbd0, two reserved there, and vtbd2 added while it ran, of which
// this kernel tells nothing.
func kernelTree(t *testing.T) *geomlib.Tree {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", "kernel.confxml"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tree, err := geomlib.ParseTree(f)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func TestVolumesOfTheKernelClassAreShownAsSuch(t *testing.T) {
	const warning = "gvirstor: warning: ggated-virstor is not running; only volumes of the kernel class are shown\n"
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"status"}, "" +
			"           Name                           Status  Components\n" +
			"virstor/written  97% physical free, kernel class  vtbd0\n" +
			"                                                  vtbd1\n" +
			"                                                  vtbd2\n"},
		{[]string{"status", "-gs", "written"}, "" +
			"written  97% physical free, kernel class  vtbd0\n" +
			"written  97% physical free, kernel class  vtbd1\n" +
			"written  97% physical free, kernel class  vtbd2\n"},
		{[]string{"status", "-p"}, "written\tvirstor/written\t1073741824\t803209216\t14680064\t786432000\t0\t97\tkernel class\n"},
		{[]string{"list", "-p"}, "" +
			"written\t0\tvtbd0\t268435456\t512\t255\t2\t16\t239\t93\n" +
			"written\t1\tvtbd1\t268435456\t512\t255\t0\t0\t255\t100\n" +
			"written\t2\tvtbd2\t268435456\t512\t256\t0\t0\t256\t100\n"},
	} {
		e, stdout, stderr := testEnv(tt.args...)
		e.kernel = &fakeKernel{geoms: kernelTree(t)}
		status := run(t.Context(), e)
		if status != 0 || stdout.String() != tt.want || stderr.String() != warning {
			t.Errorf("%v: %d\n%s%swant\n%s", tt.args, status, stdout, stderr, tt.want)
		}
	}
	e, stdout, _ := testEnv("list", "written")
	e.kernel = &fakeKernel{geoms: kernelTree(t)}
	if status := run(t.Context(), e); status != 0 {
		t.Fatal(status)
	}
	for _, line := range []string{"Geom name: written", "ChunkVirtualCount: 1024", "PhysicalFree: 97%", "State: 97% physical free, kernel class",
		"Status: Components=3, Online=3", "1. Name: virstor/written", "3. Name: vtbd2", "   StorageFree: 93%"} {
		if !strings.Contains(stdout.String(), line+"\n") {
			t.Errorf("list does not say %q:\n%s", line, stdout)
		}
	}

	// A component went away.
	tree := kernelTree(t)
	g := tree.Geom("VIRSTOR", "written")
	g.Consumers, g.Providers = g.Consumers[1:], nil
	e, stdout, _ = testEnv("list", "written")
	e.kernel = &fakeKernel{geoms: tree}
	if status := run(t.Context(), e); status != 0 || !strings.Contains(stdout.String(), "Components=3, Online=2\n") || !strings.Contains(stdout.String(), "kernel class, incomplete\n") {
		t.Errorf("an incomplete volume: %d\n%s", status, stdout)
	}

	e, stdout, stderr := testEnv("status")
	e.kernel = &fakeKernel{geoms: new(geomlib.Tree)}
	if status := run(t.Context(), e); status != 1 || stdout.Len() > 0 || !strings.Contains(stderr.String(), "Can't reach the daemon") {
		t.Errorf("no daemon and no kernel class: %d %s%s", status, stdout, stderr)
	}
}

func TestADaemonThatWasNamedIsNotReplacedByTheKernelClass(t *testing.T) {
	for _, verb := range []string{"status", "list"} {
		e, stdout, stderr := testEnv("--control", filepath.Join(t.TempDir(), "none"), verb)
		e.kernel = &fakeKernel{geoms: kernelTree(t)}
		if status := run(t.Context(), e); status != 1 || stdout.Len() > 0 || !strings.Contains(stderr.String(), "is not running") {
			t.Errorf("%s: %d %s%s", verb, status, stdout, stderr)
		}
	}
}
