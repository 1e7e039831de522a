package daemon

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

func TestALinkToAComponentIsNamedWhereverItIsGiven(t *testing.T) {
	names := labelFiles(t, 16<<20, 16<<20)
	link, spare := filepath.Join(t.TempDir(), "link"), filepath.Join(t.TempDir(), "spare")
	must(t, os.Symlink(names[1], link))
	must(t, fileOf(t, spare, 16<<20).Close())
	d := New(Options{Version: "test"}, Direct{LockDir: t.TempDir()}, nil, slog.New(slog.DiscardHandler))
	// As a configuration names them.
	if n := d.ServeAll([]string{names[0], names[1], link}); n != 1 {
		t.Fatalf("%d volumes", n)
	}
	says := func(what, text string, parts ...string) {
		t.Helper()
		for _, p := range append(parts, "the same by another name") {
			if !strings.Contains(text, p) {
				t.Errorf("%s: %q does not say %q", what, text, p)
			}
		}
	}
	st, err := d.Status(t.Context())
	must(t, err)
	if len(st.Problems) != 1 {
		t.Fatalf("problems: %+v", st.Problems)
	}
	says("configuration", st.Problems[0].Reason, link, names[1])
	refused := func(what string, err error, parts ...string) {
		t.Helper()
		if control.KindOf(err) != control.Invalid {
			t.Errorf("%s: %v", what, err)
			return
		}
		says(what, err.Error(), parts...)
	}
	refused("add", d.Add(t.Context(), "vol", control.AddRequest{Providers: []string{link}}), link, names[1], "a component of vol")
	refused("spare", d.Spare(t.Context(), "vol", control.SpareRequest{Providers: []string{link}}), link)
	_, err = d.StartJob(t.Context(), "vol", control.JobRequest{Kind: "replace", Args: []byte(`{"providers":["` + names[0] + `"],"target":"` + link + `"}`)})
	refused("replace", err, link)

	must(t, d.Spare(t.Context(), "vol", control.SpareRequest{Providers: []string{spare}}))
	second := filepath.Join(t.TempDir(), "hard link")
	must(t, os.Link(spare, second))
	refused("add of a spare", d.Add(t.Context(), "vol", control.AddRequest{Providers: []string{second}}), second, "a spare of vol")
	must(t, d.Close())
}
