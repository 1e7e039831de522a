package geomlib

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
)

func TestANameIsSpelledWithOrWithoutDev(t *testing.T) {
	for _, c := range []struct {
		name, bare, scheme, clean string
	}{
		{"ada4", "ada4", "", "ada4"},
		{"/dev/ada4", "ada4", "", "/dev/ada4"},
		{"/vol//a/../b", "/vol//a/../b", "", "/vol/b"},
		{"nbd://host/a/../b", "nbd://host/a/../b", "nbd", "nbd://host/a/../b"},
		{"nbd+unix:///disk?socket=/run//s", "nbd+unix:///disk?socket=/run//s", "nbd+unix", "nbd+unix:///disk?socket=/run//s"},
		{"./nbd://a", "./nbd://a", "", "nbd:/a"},
		{"7up://a", "7up://a", "", "7up:/a"},
		{"://a", "://a", "", ":/a"},
	} {
		n := Name(c.name)
		if n.Bare() != c.bare || n.Scheme() != c.scheme || n.Clean() != c.clean {
			t.Errorf("%s: %q, %q, %q", c.name, n.Bare(), n.Scheme(), n.Clean())
		}
	}
	if !Name("ada4").Same("/dev/ada4") || !Name("/dev/ada4").Same("ada4") || Name("ada4").Same("ada5") {
		t.Error("with and without /dev/")
	}
}

// nameOpener opens the file that stands behind a name's scheme.
type nameOpener struct{ asked *[]string }

func (o nameOpener) Open(name string, opt OpenOptions) (Provider, error) {
	*o.asked = append(*o.asked, name)
	_, path, _ := strings.Cut(name, "://")
	return Open(path, opt)
}

func (o nameOpener) Adopt(f *os.File, name string, state []byte, opt OpenOptions) (Provider, error) {
	*o.asked = append(*o.asked, name+" "+string(state))
	return FromFile(f, name, opt)
}

func TestARegistryOpensByTheScheme(t *testing.T) {
	path := newFile(t, mib)
	var asked []string
	r := Registry{"there": nameOpener{&asked}}
	for _, name := range []string{path, "there://" + path} {
		p, err := r.Open(name, OpenOptions{})
		if err != nil || p.MediaSize() != mib {
			t.Fatalf("%s: %v", name, err)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(asked) != 1 || asked[0] != "there://"+path {
		t.Errorf("opened as %q", asked)
	}
	for _, r := range []Registry{nil, r} {
		_, err := r.Open("elsewhere://host/a", OpenOptions{})
		if !errors.Is(err, ErrScheme) || !strings.Contains(err.Error(), `scheme "elsewhere"`) ||
			strings.Contains(err.Error(), "there://,") || strings.HasSuffix(err.Error(), ", there://") != (r != nil) {
			t.Errorf("%v", err)
		}
	}
	if _, err := Open("there://"+path, OpenOptions{}); !errors.Is(err, ErrScheme) {
		t.Errorf("opened as a file: %v", err)
	}
}

// busyOpener says of what it opens that it is locked, until it was asked so often.
type busyOpener struct {
	nameOpener
	busy int
}

func (o busyOpener) Open(name string, opt OpenOptions) (Provider, error) {
	if len(*o.asked) < o.busy {
		*o.asked = append(*o.asked, name)
		return nil, ErrLocked
	}
	return o.nameOpener.Open(name, opt)
}

func TestALockThatAChildStillHoldsIsWaitedFor(t *testing.T) {
	path := newFile(t, mib)
	var asked []string
	r := Registry{"there": busyOpener{nameOpener{&asked}, 3}}
	p, err := r.OpenOwn(t.Context(), "there://"+path, OpenOptions{})
	if err != nil || len(asked) != 4 {
		t.Fatalf("asked %d times: %v", len(asked), err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.OpenOwn(t.Context(), path+" which is not there", OpenOptions{}); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func TestALockOfAnotherIsNotWaitedForWithoutEnd(t *testing.T) {
	stopped, stop := context.WithCancel(t.Context())
	stop()
	for what, ask := range map[string]func(r Registry) error{
		"its time is over": func(r Registry) error {
			return WhileLocked(t.Context(), 0, func() error { _, err := r.Open("there://a", OpenOptions{}); return err })
		},
		"nobody waits any more": func(r Registry) error {
			_, err := r.OpenOwn(stopped, "there://a", OpenOptions{})
			return err
		},
	} {
		var asked []string
		err := ask(Registry{"there": busyOpener{nameOpener{&asked}, 100}})
		if !errors.Is(err, ErrLocked) || len(asked) != 1 {
			t.Errorf("%s: asked %d times: %v", what, len(asked), err)
		}
	}
}

func TestAnotherProcessGoesOnWithADescriptor(t *testing.T) {
	var asked []string
	r := Registry{"there": nameOpener{&asked}}
	first := mustOpen(t, newFile(t, mib), OpenOptions{})
	f, state, ok := DescriptorOf(first)
	if !ok || state != nil {
		t.Fatalf("%v, %q", ok, state)
	}
	if _, _, ok := DescriptorOf(struct{ Provider }{first}); ok {
		t.Error("what is not Passable has a descriptor")
	}
	for _, name := range []string{first.Name(), "there://x//y"} {
		again, err := os.OpenFile(f.Name(), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		p, err := r.Adopt(again, name, []byte("state"), OpenOptions{NoLock: true})
		if err != nil || p.Name() != name {
			t.Fatalf("%s: %v", name, err)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(asked) != 1 || asked[0] != "there://x//y state" {
		t.Errorf("asked %q", asked)
	}
	if _, err := r.Adopt(f, "elsewhere://a", nil, OpenOptions{}); !errors.Is(err, ErrScheme) {
		t.Errorf("%v", err)
	}
}

func TestANameWithASchemeIsItsOwnTwinAlone(t *testing.T) {
	held := called{mustOpen(t, newFile(t, mib), OpenOptions{}), "there://a"}
	if Twin("there://a", []Provider{held}) != held || Twin("there://b", []Provider{held}) != nil {
		t.Error("twins by name")
	}
}

type called struct {
	Provider
	name string
}

func (c called) Name() string { return c.name }

// TestAUserInANameIsRefusedAndNotRepeated: it may be a secret, and names are shown to many.
func TestAUserInANameIsRefusedAndNotRepeated(t *testing.T) {
	for name, shown := range map[string]string{
		"nbds://alice:hush@h:1/x?y": "nbds://h:1/x?y",
		"nbd://hush@h":              "nbd://h",
		"a+b://hush@@h/c@d":         "a+b://h/c@d",
		"nbd://hush@?a":             "nbd://?a",
	} {
		err := Name(name).CheckUser()
		if !errors.Is(err, ErrUser) || !strings.HasPrefix(err.Error(), shown+": ") || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"nbd://h/a@b", "nbd+unix:///x?socket=a@b", "/a://b@c", "./nbd://b@c", "a@b", "nbd://h#a@b"} {
		if err := Name(name).CheckUser(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
