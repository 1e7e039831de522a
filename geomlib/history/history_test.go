package history

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/ownfile"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestDeedsAreReadAsTheyWereNotedOldestFirst(t *testing.T) {
	d := Dir{filepath.Join(t.TempDir(), "made")}
	uid := uint32(0)
	must(t, d.Note(Deed{Time: time.Unix(1, 0), UID: &uid, PID: 7, Verb: "add", Volume: "a", Request: json.RawMessage(`{"providers":["x"]}`)}))
	must(t, d.Note(Deed{Time: time.Unix(2, 0), Verb: "remove", Volume: "b", Error: "no"}))
	must(t, d.Note(Deed{Time: time.Unix(3, 0), Verb: "stop", Volume: "a"}))
	all, err := d.Read("")
	must(t, err)
	of, err := d.Read("a")
	must(t, err)
	if len(all) != 3 || all[1].Error != "no" || len(of) != 2 || of[0].Verb != "add" || *of[0].UID != 0 || of[0].PID != 7 ||
		string(of[0].Request) != `{"providers":["x"]}` || of[1].Verb != "stop" {
		t.Errorf("%+v, %+v", all, of)
	}
	must(t, d.Note(Deed{Time: time.Unix(4, 0), Verb: "create", Volume: "a/web"}))
	for name, want := range map[string]int{"a": 3, "a/web": 1, "a/w": 0} {
		if of, err := d.Read(name); err != nil || len(of) != want {
			t.Errorf("of %s: %+v, %v", name, of, err)
		}
	}
	if none, err := (Dir{t.TempDir()}).Read(""); err != nil || none != nil {
		t.Errorf("%v, %v", none, err)
	}
}

func TestTheHistoryIsBoundedAndManyMayNoteAtOnce(t *testing.T) {
	d := Dir{t.TempDir()}
	const writers, each = 4, 300
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for i := range each {
				if err := d.Note(Deed{Verb: "add", PID: i, Request: json.RawMessage(`"` + strings.Repeat("x", 3000) + `"`)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	var size int64
	for _, name := range []string{fileName, fileName + aside} {
		fi, err := os.Stat(filepath.Join(d.Path, name))
		must(t, err)
		size += fi.Size()
	}
	all, err := d.Read("")
	must(t, err)
	if size > 2*maxFile || len(all) < 300 || all[len(all)-1].PID < each-writers {
		t.Errorf("%d bytes, %d deeds", size, len(all))
	}
	if entries, _ := os.ReadDir(d.Path); len(entries) != 2 {
		t.Errorf("%v", entries)
	}
	must(t, d.Note(Deed{Verb: "long", Request: json.RawMessage(`"` + strings.Repeat("x", maxRequest) + `"`), Error: strings.Repeat("e", 5000)}))
	all, err = d.Read("")
	must(t, err)
	if last := all[len(all)-1]; last.Verb != "long" || last.Request != nil || len(last.Error) != maxText {
		t.Errorf("%+v", last)
	}
}

func TestACutLineAndAStrangersFileDoNoHarm(t *testing.T) {
	d := Dir{t.TempDir()}
	must(t, d.Note(Deed{Verb: "add"}))
	b, err := os.ReadFile(d.file())
	must(t, err)
	must(t, os.WriteFile(d.file(), bytes.Join([][]byte{b[:10], b, b[:5]}, []byte("\n")), 0o600))
	must(t, d.Note(Deed{Verb: "remove"}))
	if all, err := d.Read(""); err != nil || len(all) != 2 || all[1].Verb != "remove" {
		t.Errorf("%+v, %v", all, err)
	}
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	must(t, os.WriteFile(elsewhere, nil, 0o600))
	must(t, os.Remove(d.file()))
	must(t, os.Symlink(elsewhere, d.file()))
	if err := d.Note(Deed{Verb: "add"}); !errors.Is(err, ownfile.ErrUnsafe) {
		t.Errorf("a link is followed: %v", err)
	}
	if _, err := d.Read(""); !errors.Is(err, ownfile.ErrUnsafe) {
		t.Errorf("a link is read: %v", err)
	}
}
