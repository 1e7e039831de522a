package geomlib

import (
	"os"
	"path/filepath"
	"testing"
)

func TestAFileIsTheSameByWhateverName(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"a", "other"} {
		if err := os.WriteFile(at(name), make([]byte, 4096), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range []error{os.Symlink(at("a"), at("link")), os.Link(at("a"), at("hard")), os.Mkdir(at("sub"), 0o700), os.Symlink("nowhere", at("lost"))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	open := func(name string) Provider {
		p, err := Open(at(name), OpenOptions{ReadOnly: true, NoLock: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Close() })
		return p
	}
	a, other := open("a"), open("other")
	for name, same := range map[string]bool{"a": true, "link": true, "hard": true, "sub/../a": true, "other": false, "lost": false, "sub": false, "none": false} {
		if got := Twin(at(name), []Provider{other, a}) == a; got != same {
			t.Errorf("%s is a: %v, want %v", name, got, same)
		}
	}
	if !Same(a, open("link")) || Same(a, other) {
		t.Error("the identity of open files")
	}
	unknown := struct{ Provider }{a}
	if Same(unknown, unknown) {
		t.Error("what cannot tell who it is is the same as something")
	}
}
