package space

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ondisk"
)

const mib = 1 << 20

func becomeComponent(t *testing.T, path string) {
	t.Helper()
	p, err := geomlib.Open(path, geomlib.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	m := ondisk.Metadata{Version: 2, Name: "vol", VirtualSize: 1 << 30, ChunkSize: mib, ID: 1, Count: 2, No: 1,
		ProviderSize: uint64(p.MediaSize()), ChunkCount: 3}
	if err := geomlib.StoreMetadata(p, m); err != nil {
		t.Fatal(err)
	}
}

func TestFilesAreMadeUpToTheLimitAndFoundAgain(t *testing.T) {
	dir := t.TempDir()
	g := &FileGrower{Plans: map[string]Plan{"vol": {dir, 8 * mib}}, Max: 20 * mib}
	var made []string
	for range 2 {
		p, err := g.Grow(t.Context(), "vol")
		if err != nil {
			t.Fatal(err)
		}
		made = append(made, p)
	}
	if st, err := os.Stat(made[1]); err != nil || st.Size() != 8*mib {
		t.Fatalf("%v, %v", st, err)
	}
	if _, err := g.Grow(t.Context(), "vol"); !errors.Is(err, ErrLimit) {
		t.Errorf("beyond the limit: %v", err)
	}
	if _, err := g.Grow(t.Context(), "other"); err == nil {
		t.Error("a volume without a plan grows")
	}
	becomeComponent(t, made[0])
	found, err := g.Grown(t.Context())
	if err != nil || !slices.Equal(found, made[:1]) {
		t.Errorf("found %q, %v; should be the one that became a component", found, err)
	}
	if err := g.Undo(t.Context(), "vol", made[0]); err == nil {
		t.Error("a component is removed")
	}
	if err := g.Undo(t.Context(), "vol", made[1]); err != nil {
		t.Error(err)
	}
	if err := g.Undo(t.Context(), "vol", made[0]); err == nil {
		t.Error("a component is removed")
	}
	if p, err := g.Grow(t.Context(), "vol"); err != nil || p != made[1] {
		t.Errorf("%s, %v", p, err)
	}
}

func TestAFileLargerThanWhatIsFreeIsNotMade(t *testing.T) {
	dir := t.TempDir()
	g := &FileGrower{Plans: map[string]Plan{"vol": {dir, 1 << 60}}, Max: 1 << 61}
	if _, err := g.Grow(t.Context(), "vol"); err == nil || !strings.Contains(err.Error(), "free") {
		t.Errorf("error %v", err)
	}
	if es, _ := os.ReadDir(dir); len(es) != 0 {
		t.Errorf("%d files are left", len(es))
	}
}

func TestAFileThatCannotBeAttachedIsRemoved(t *testing.T) {
	dir := t.TempDir()
	bad := errors.New("no more units")
	g := &FileGrower{Plans: map[string]Plan{"vol": {dir, mib}}, Max: mib,
		Attach: func(context.Context, string) (string, error) { return "", bad }}
	if _, err := g.Grow(t.Context(), "vol"); !errors.Is(err, bad) {
		t.Errorf("error %v", err)
	}
	if es, _ := os.ReadDir(dir); len(es) != 0 {
		t.Errorf("%d files are left", len(es))
	}
}

// fakeMdconfig puts a program of that name, which keeps its units in a file, first
// in PATH.
func fakeMdconfig(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	script := `#!/bin/sh
units=` + dir + `/units
case "$1" in
-l) while read -r unit path; do [ "$path" = "$3" ] && echo "$unit" && exit 0; done <$units; exit 1 ;;
-a) [ "$2 $3 $4" = "-t vnode -f" ] || exit 2; n=$(wc -l <$units); echo "md$((n)) $5" >>$units; echo "md$((n))" ;;
-d) [ "$2" = -u ] || exit 2; grep -v "^$3 " $units >$units.new; mv $units.new $units ;;
esac
`
	for name, text := range map[string]string{"mdconfig": script, "units": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

func TestFilesBecomeDisksByMdconfigOnce(t *testing.T) {
	fakeMdconfig(t)
	dir := t.TempDir()
	g := &FileGrower{Plans: map[string]Plan{"vol": {dir, 8 * mib}}, Max: 24 * mib, Attach: Mdconfig, Detach: MdconfigDetach}
	for i := range 2 {
		name, err := g.Grow(t.Context(), "vol")
		if err != nil || name != "md"+strconv.Itoa(i) {
			t.Fatalf("%s, %v", name, err)
		}
	}
	becomeComponent(t, filepath.Join(dir, "vol.1.grown"))
	for range 2 { // attached already
		found, err := g.Grown(t.Context())
		if err != nil || !slices.Equal(found, []string{"md0"}) {
			t.Fatalf("%q, %v", found, err)
		}
	}
	if err := g.Undo(t.Context(), "vol", "md1"); err != nil {
		t.Fatal(err)
	}
	if name, err := g.Grow(t.Context(), "vol"); err != nil || name != "md1" {
		t.Errorf("%s, %v", name, err)
	}
}

func TestPlans(t *testing.T) {
	size := func(s string) (int64, error) { return strconv.ParseInt(s, 10, 64) }
	v, p, err := ParsePlan("vol=/var/a:b:5000000", size)
	if err != nil || v != "vol" || p != (Plan{"/var/a:b", 4 * mib}) {
		t.Errorf("%s %+v %v", v, p, err)
	}
	for _, bad := range []string{"", "vol", "vol=/d", "=/d:5000000", "vol=d:5000000", "vol=/d:1", "vol=/d:x", "a/b=/d:5000000"} {
		if _, _, err := ParsePlan(bad, size); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
