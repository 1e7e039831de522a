package web

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"html/template"
	"log"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/virstor/picture"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ondisk"
)

// Overview is all that the page shows, and its answer to who asks for JSON.
type Overview struct {
	Time           time.Time      `json:"time"` // of all of it but the maps
	control.Status                // members of the same object
	Actions        []VolumeAction `json:"actions"` // what needs a hand
	// Maps are by the volume's name, each as it was drawn last: a second ago or less, and of
	// a large volume up to twenty times as long ago as the drawing took.
	Maps map[string]*picture.Picture `json:"maps"`
	// Snapshots are the newest twenty of each volume that has any, by its name; of a
	// further one of a pool by its whole name.
	Snapshots map[string][]control.Snapshot `json:"snapshots"`
	Clients   []control.ClientStatus        `json:"clients"` // of all volumes
	Events    []control.Event               `json:"events"`  // the newest first
}

// MaxSnapshots is how many snapshots of a volume an Overview has.
const MaxSnapshots = 20

// VolumeAction is what a volume needs a hand with.
type VolumeAction struct {
	Volume string `json:"volume"` // its name
	control.Action
}

// Overseer knows what the page shows. Its methods are called by many goroutines.
type Overseer interface {
	// Overview is how everything is now, but for Actions, which the page adds.
	Overview(ctx context.Context) (Overview, error)
	// Subscribe returns events from now on until ctx ends.
	Subscribe(ctx context.Context) (<-chan control.Event, error)
}

//go:embed page.html page.css page.js icon.svg
var files embed.FS

// freshness is for how long an Overview is shown again: however many look, that is how
// often it is made.
const freshness = 500 * time.Millisecond

// page answers /, /live and what they need.
type page struct {
	overseer Overseer
	template *template.Template
	log      *log.Logger
	ended    chan struct{} // closed: streams end
	streams  chan struct{} // one for each stream, up to its capacity

	mu   sync.Mutex
	last Overview // made at last.Time
}

// maxStreams is how many browsers are kept up to date at once.
const maxStreams = 32

func newPage(o Overseer, log *log.Logger) *page {
	return &page{overseer: o, template: template.Must(template.ParseFS(files, "page.html")), log: log,
		ended: make(chan struct{}), streams: make(chan struct{}, maxStreams)}
}

// routes adds the page's to mux.
func (p *page) routes(mux *http.ServeMux) {
	mux.HandleFunc("GET /{$}", p.show)
	mux.HandleFunc("GET /live", p.stream)
	for name, kind := range map[string]string{"page.css": "text/css; charset=utf-8", "page.js": "text/javascript; charset=utf-8", "icon.svg": "image/svg+xml"} {
		mux.HandleFunc("GET /"+name, func(w http.ResponseWriter, _ *http.Request) { p.serveFile(w, name, kind) })
	}
}

// policy is what a browser may do with the page: nothing but what is this server's own,
// and no other page may hold it in a frame.
const policy = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// setHeaders are those of everything that a browser takes.
func setHeaders(w http.ResponseWriter, kind string) {
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
}

// serveFile answers one of files; page.css has the colours of drawings, too.
func (p *page) serveFile(w http.ResponseWriter, name, kind string) {
	text, err := files.ReadFile(name)
	if err != nil {
		p.fail(w, err)
		return
	}
	if name == "page.css" {
		text = append(text, picture.Style...)
	}
	setHeaders(w, kind)
	p.write(w, text)
}

// show answers the page, or what it shows as JSON to who would rather have that.
func (p *page) show(w http.ResponseWriter, r *http.Request) {
	o, err := p.overview(r.Context())
	if err != nil {
		p.fail(w, err)
		return
	}
	kind, text := "text/html; charset=utf-8", []byte(nil)
	if wantsJSON(r.Header.Values("Accept")) {
		kind = "application/json"
		if text, err = control.MarshalJSON(o); err == nil {
			text = append([]byte(ondisk.PrintableText(string(text))), '\n')
		}
	} else {
		text, err = p.render("page.html", o)
	}
	if err != nil {
		p.fail(w, err)
		return
	}
	setHeaders(w, kind)
	w.Header().Set("Vary", "Accept")
	p.write(w, text)
}

// render is the page, or a part of it. Whatever a browser, or the terminal of who has no
// browser, would obey is escaped once more.
func (p *page) render(part string, o Overview) ([]byte, error) {
	v, err := newView(o)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := p.template.ExecuteTemplate(&b, part, v); err != nil {
		return nil, fmt.Errorf("make the status page: %w", err)
	}
	return []byte(ondisk.PrintableText(b.String())), nil
}

// overview asks the overseer, unless that was done just now.
func (p *page) overview(ctx context.Context) (Overview, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if age := time.Since(p.last.Time); age >= 0 && age < freshness {
		return p.last, nil
	}
	o, err := p.overseer.Overview(ctx)
	if err != nil {
		return o, fmt.Errorf("what the status page shows: %w", err)
	}
	o.Actions = []VolumeAction{}
	for i := range o.Volumes {
		for _, a := range o.Volumes[i].Actions() {
			o.Actions = append(o.Actions, VolumeAction{o.Volumes[i].Name, a})
		}
	}
	p.last = o
	return o, nil
}

func (p *page) fail(w http.ResponseWriter, err error) {
	p.log.Print(err)
	http.Error(w, ondisk.PrintableText(err.Error()), http.StatusInternalServerError)
}

func (p *page) write(w http.ResponseWriter, text []byte) {
	_, _ = w.Write(text) // a browser that has gone needs no answer
}

// wantsJSON reports whether the values of Accept like JSON better than HTML.
func wantsJSON(accept []string) bool {
	liked := func(kind string) float64 {
		best, closest := 0.0, -1
		for _, one := range strings.Split(strings.Join(accept, ","), ",") {
			name, parameters, _ := strings.Cut(one, ";")
			name = strings.ToLower(strings.TrimSpace(name))
			major, _, _ := strings.Cut(kind, "/")
			near := map[string]int{kind: 2, major + "/*": 1, "*/*": 0}
			if n, ok := near[name]; ok && n > closest {
				best, closest = quality(parameters), n
			}
		}
		return best
	}
	return liked("application/json") > liked("text/html")
}

// quality is the q of a value of Accept, 1 without one.
func quality(parameters string) float64 {
	for _, one := range strings.Split(parameters, ";") {
		if value, ok := strings.CutPrefix(strings.TrimSpace(one), "q="); ok {
			q, err := strconv.ParseFloat(value, 64)
			if err != nil || !(q >= 0 && q <= 1) {
				return 0
			}
			return q
		}
	}
	return 1
}
