package state

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/ownfile"
)

func volume(generation uint64) Volume {
	return Volume{ID: 7, Name: "mydata", Generation: generation, Began: time.Unix(1e9, 0).UTC(),
		Providers: []string{"/dev/da0", "/dev/da1"}, Served: time.Unix(2e9, 0).UTC()}
}

func TestWhatIsRememberedIsRecalled(t *testing.T) {
	d := Dir{filepath.Join(t.TempDir(), "state")}
	if _, known, err := d.Recall(7); known || err != nil {
		t.Fatalf("before anything was remembered: known %v, %v", known, err)
	}
	for _, g := range []uint64{3, 3, 9} {
		if err := d.Remember(volume(g)); err != nil {
			t.Fatal(err)
		}
		got, known, err := d.Recall(7)
		if err != nil || !known || !reflect.DeepEqual(got, volume(g)) {
			t.Errorf("generation %d: %+v, %v, %v", g, got, known, err)
		}
	}
	names, err := filepath.Glob(filepath.Join(d.Path, "*"))
	if err != nil || len(names) != 1 {
		t.Errorf("the folder holds %v, %v", names, err)
	}
}

func TestAnEarlierGenerationIsNotedOnlyWhenTheyBeginAnew(t *testing.T) {
	d := Dir{t.TempDir()}
	if err := d.Remember(volume(9)); err != nil {
		t.Fatal(err)
	}
	if err := d.Remember(volume(8)); !errors.Is(err, ErrOlder) {
		t.Errorf("an earlier generation: %v", err)
	}
	if v, _, _ := d.Recall(7); v.Generation != 9 {
		t.Errorf("generation %d is remembered", v.Generation)
	}
	if err := d.BeginAnew(7); err != nil {
		t.Fatal(err)
	}
	if err := d.Remember(volume(8)); err != nil {
		t.Fatal(err)
	}
	if v, _, _ := d.Recall(7); v.Generation != 8 {
		t.Errorf("generation %d is remembered", v.Generation)
	}
}

func TestNoLinkIsFollowedNeitherForReadingNorForWriting(t *testing.T) {
	d := Dir{t.TempDir()}
	other := filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(other, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(other, d.file(7)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := d.Recall(7); !errors.Is(err, ownfile.ErrUnsafe) {
		t.Errorf("recalled through a link: %v", err)
	}
	if err := d.Remember(volume(1)); err != nil {
		t.Errorf("a link stands in the way for good: %v", err)
	}
	if b, err := os.ReadFile(other); err != nil || string(b) != "precious" {
		t.Errorf("the other file holds %q, %v", b, err)
	}
	if fi, err := os.Lstat(d.file(7)); err != nil || !fi.Mode().IsRegular() {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
}

func TestAFileThatIsNoNoteIsRefusedAndNamed(t *testing.T) {
	d := Dir{t.TempDir()}
	for _, text := range []string{"", "{", `{"id":8}`, strings.Repeat("x", 1000)} {
		if err := os.WriteFile(d.file(7), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, known, err := d.Recall(7); known || err == nil || !strings.Contains(err.Error(), d.file(7)) {
			t.Errorf("%.10q: known %v, %v", text, known, err)
		}
		if err := d.Remember(volume(1)); err != nil {
			t.Errorf("%.10q stands in the way for good: %v", text, err)
		}
	}
}

func TestWhatNoVolumeIsIsNotRemembered(t *testing.T) {
	d := Dir{t.TempDir()}
	for what, change := range map[string]func(*Volume){
		"no name":                          func(v *Volume) { v.Name = "" },
		"a long name":                      func(v *Volume) { v.Name = strings.Repeat("n", 256) },
		"no components":                    func(v *Volume) { v.Providers = nil },
		"a generation that leaves no room": func(v *Volume) { v.Generation = 1<<62 + 1 },
		"a NUL":                            func(v *Volume) { v.Providers[0] = "a\x00b" },
		"a very long name":                 func(v *Volume) { v.Providers[1] = strings.Repeat("p", 5000) },
		"too many providers":               func(v *Volume) { v.Providers = make([]string, 65536) },
	} {
		v := volume(1)
		change(&v)
		if err := d.Remember(v); err == nil {
			t.Errorf("%s is remembered", what)
		}
	}
}

func TestNothingIsNotedOfAVolumeThatWasNeverServed(t *testing.T) {
	d := Dir{filepath.Join(t.TempDir(), "state")}
	if err := d.BeginAnew(7); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(d.Path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder was made: %v", err)
	}
}

func TestOfWhatIsMissingTheLastNameIsKnown(t *testing.T) {
	v := volume(3)
	if got, want := v.LastSeen([]int{1, 5}), "; when this host last served it, component 1 was /dev/da1"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	v.Providers[0] = "evil\x1b[2J"
	if got := v.LastSeen([]int{0}); strings.Contains(got, "\x1b") || !strings.Contains(got, "evil") {
		t.Errorf("%q", got)
	}
	if got := (Volume{}).LastSeen([]int{0, -1}); got != "" {
		t.Errorf("of an unknown volume: %q", got)
	}
}
