package web

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/virstor/picture"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ondisk"
)

// overseer is an Overseer over an Overview that the test sets.
type overseer struct {
	control.Hub
	mu  sync.Mutex
	o   Overview
	err error
}

func (s *overseer) Overview(context.Context) (Overview, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.o
	o.Time = time.Now()
	return o, s.err
}

func (s *overseer) set(o Overview) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.o = o
}

// startPage serves the page and returns its address, and what ends the server.
func startPage(t testing.TB, o *overseer) (string, func()) {
	t.Helper()
	l, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(Config{Collector: NewCollector(source{}, nil, "1"), Health: health{}, Overseer: o, Log: slog.New(slog.DiscardHandler)})
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	end := sync.OnceFunc(func() {
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(end)
	return "http://" + l.Addr().String(), end
}

// someStatus is a volume that is well, on two components.
func someStatus(name string) control.VolumeStatus {
	return control.VolumeStatus{
		Name: name, ID: 7, VirtualSize: 1 << 40, ChunkSize: 4 << 20, SectorSize: 512, VirtualChunks: 1 << 18,
		PhysicalChunks: 258, AllocatedChunks: 96, FreeChunks: 160, WhenFull: "wait", Alloc: "fill", Fenced: true,
		Conditions: []control.Condition{},
		Published:  []control.Publication{{Kind: control.NBD, Name: name, URI: "nbd+unix:///" + name + "?socket=/run/nbd"}},
		Components: []control.ComponentStatus{
			{Name: "/dev/sdb", Index: 0, MediaSize: 520 << 20, ChunkCount: 130, ChunksReserved: 2, ChunksUsed: 88, ChunksFree: 42},
			{Name: "/dev/sdc", Index: 1, MediaSize: 512 << 20, ChunkCount: 128, ChunksUsed: 10, ChunksFree: 118},
		},
	}
}

// someMap is a map of v: its first component holds the beginning, both some in the middle.
func someMap(v *control.VolumeStatus) *picture.Picture {
	const cells = 384
	p := &picture.Picture{Name: v.Name, VirtualSize: v.VirtualSize, ChunkSize: v.ChunkSize, VirtualChunks: uint64(v.VirtualChunks), Allocated: uint64(v.AllocatedChunks)}
	for _, c := range v.Components {
		p.Components = append(p.Components, picture.Component{Name: c.Name, Index: c.Index, Chunks: uint64(c.ChunkCount), Used: uint64(c.ChunksUsed)})
	}
	border := func(i int64) int64 { return i * v.VirtualChunks / cells }
	for i := range int64(cells) {
		chunks := uint64(border(i+1) - border(i))
		cell := picture.Cell{Offset: border(i) * v.ChunkSize, Length: int64(chunks) * v.ChunkSize}
		switch {
		case i < 60:
			cell.Fill, cell.Shares = 1, []picture.Share{{Component: 0, Chunks: chunks}}
		case i > 200 && i < 230:
			cell.Fill, cell.Shares = .75, []picture.Share{{Component: 0, Chunks: chunks / 4}, {Component: 1, Chunks: chunks / 2}}
		}
		p.Cells = append(p.Cells, cell)
	}
	return p
}

// someOverview is of volumes as given, with maps.
func someOverview(volumes ...control.VolumeStatus) Overview {
	o := Overview{Status: control.Status{Version: "1.2.3", PID: 4711, Started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Volumes: volumes, Problems: []control.Problem{}},
		Maps: make(map[string]*picture.Picture), Snapshots: make(map[string][]control.Snapshot), Clients: []control.ClientStatus{}, Events: []control.Event{}}
	for i := range volumes {
		o.Maps[volumes[i].Name] = someMap(&volumes[i])
	}
	return o
}

// ask gets url with a value of Accept.
func ask(t testing.TB, url, accept string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

func TestThePageIsHTMLForBrowsersAndJSONForWhoAsksForIt(t *testing.T) {
	full := someStatus("mydata")
	full.FreeChunks, full.Conditions = 0, []control.Condition{control.Full}
	url, _ := startPage(t, &overseer{o: someOverview(full)})
	for accept, want := range map[string]string{
		"": "text/html; charset=utf-8", "*/*": "text/html; charset=utf-8", "text/html": "text/html; charset=utf-8",
		"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8": "text/html; charset=utf-8",
		"application/json":                    "application/json",
		"application/json, text/html;q=0.9":   "application/json",
		"application/*":                       "application/json",
		"text/html;q=0.1, application/json":   "application/json",
		"application/json;q=0.5, text/html":   "text/html; charset=utf-8",
		"application/json;q=nonsense":         "text/html; charset=utf-8",
		"APPLICATION/JSON; charset=utf-8;q=1": "application/json",
	} {
		resp, text := ask(t, url, accept)
		if got := resp.Header.Get("Content-Type"); got != want || resp.StatusCode != http.StatusOK {
			t.Errorf("Accept %q: %d, %s, want %s", accept, resp.StatusCode, got, want)
		}
		if want != "application/json" {
			continue
		}
		var o Overview
		if err := json.Unmarshal([]byte(text), &o); err != nil {
			t.Fatal(err)
		}
		if len(o.Volumes) != 1 || o.Volumes[0].Name != "mydata" || len(o.Maps["mydata"].Cells) != 384 || o.PID != 4711 || o.Time.IsZero() {
			t.Errorf("%+v", o)
		}
		if len(o.Actions) != 1 || o.Actions[0].Volume != "mydata" || !slices.Contains(o.Actions[0].Commands, "gvirstor add mydata PROV") {
			t.Errorf("actions %+v", o.Actions)
		}
	}
}

func TestABrowserMayDoNothingWithThePageButShowIt(t *testing.T) {
	url, _ := startPage(t, &overseer{o: someOverview(someStatus("mydata"))})
	outside := regexp.MustCompile(`(?i)(https?:)?//[a-z0-9]|<[^>]*\s(style|on[a-z]+)=|javascript:|@import|url\(`)
	for path, kind := range map[string]string{"/": "text/html; charset=utf-8", "/page.css": "text/css; charset=utf-8", "/page.js": "text/javascript; charset=utf-8", "/icon.svg": "image/svg+xml"} {
		resp, text := ask(t, url+path, "")
		if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != kind || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %d, %v", path, resp.StatusCode, resp.Header)
		}
		csp := resp.Header.Get("Content-Security-Policy")
		for _, rule := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"} {
			if !strings.Contains(csp, rule) {
				t.Errorf("%s: no %s in %q", path, rule, csp)
			}
		}
		if strings.Contains(csp, "unsafe") || strings.Contains(csp, "*") || strings.Contains(csp, ":") {
			t.Errorf("%s: %q", path, csp)
		}
		text = strings.ReplaceAll(text, "http://www.w3.org/2000/svg", "") // a name, and nothing is fetched
		text = strings.ReplaceAll(text, "nbd&#43;unix:///mydata", "")
		if found := outside.FindString(text); found != "" {
			t.Errorf("%s has %q", path, found)
		}
	}
	if resp, _ := ask(t, url+"/other", ""); resp.StatusCode != http.StatusNotFound {
		t.Errorf("another path: %d", resp.StatusCode)
	}
}

// hostile are names that a terminal or a browser would obey.
var hostile = []string{"a\x1b[2Jb", "<script>alert(1)</script>", "\" onload=\"alert(1)", "b\u202eexe.c", "c\xff\xfe", "line\nbreak", "&lt;", "'; DROP"}

// TestNoNameReachesThePageAsItIs: every text of an Overview that somebody else chose.
func TestNoNameReachesThePageAsItIs(t *testing.T) {
	for _, name := range hostile {
		v := someStatus(name)
		v.Conditions = []control.Condition{control.HeldWrites, control.Full}
		v.Held.Count = 1
		v.Published = []control.Publication{{Kind: control.NBD, Name: name, URI: "nbd:///" + name}, {Kind: control.Gate, Name: name}}
		v.Components[0].Name, v.Components[0].State = name, []control.Condition{control.FlushFailed}
		v.Outsiders = []control.Outsider{{Name: name, Text: name + " is stale"}}
		v.Snapshots, v.DamagedSnapshots = 2, []string{name}
		v.Spares = []control.Spare{{Name: name, Failed: name}}
		v.Job = &control.JobStatus{Kind: name, Done: 1, Total: 2, Rate: 1}
		o := someOverview(v)
		v.Volumes = []control.PoolVolume{{Name: name, Origin: name, Problem: name, Published: []control.Publication{{Kind: control.Gate, Name: name}}}}
		o.Volumes[0] = v
		o.Snapshots[name] = []control.Snapshot{{Name: name, Problem: name}}
		o.Snapshots[name+"/"+name] = o.Snapshots[name]
		o.Problems = []control.Problem{{Volume: name, Providers: []string{name}, Reason: "no " + name, Remedy: name}}
		o.Clients = []control.ClientStatus{{Address: name, Name: name, Volume: name}}
		o.Events = []control.Event{{Volume: name, Kind: name, Text: name}}
		url, _ := startPage(t, &overseer{o: o})
		for _, accept := range []string{"text/html", "application/json"} {
			_, text := ask(t, url, accept)
			for _, line := range strings.Split(text, "\n") {
				if !ondisk.IsPrintable(strings.ReplaceAll(line, "\t", "")) {
					t.Errorf("%q, %s: %q", name, accept, line)
				}
			}
			if accept == "application/json" {
				if !json.Valid([]byte(text)) {
					t.Errorf("%q: no JSON", name)
				}
				continue
			}
			if strings.Contains(text, "<script>") || strings.Contains(text, `" onload="`) || strings.Count(text, "<script") != 1 {
				t.Errorf("%q is obeyed", name)
			}
			if strings.Contains(name, "\n") && strings.Contains(text, "line\nbreak") {
				t.Errorf("%q breaks a line", name)
			}
		}
	}
}

func TestVolumesOfAPoolAreATreeWithTheirSnapshots(t *testing.T) {
	v := someStatus("mydata")
	v.Snapshots = 1
	soon := int64(7200)
	v.Volumes = []control.PoolVolume{
		{Name: "web", Size: 3 << 20, Allocated: 2 << 20, Quota: 4 << 20, SecondsToFull: &soon, Origin: "@monday", Held: control.Held{Count: 2}, Degraded: true,
			Published: []control.Publication{{Kind: control.Gate, Name: "virstor/mydata+web"}, {Kind: control.NBD, Name: "mydata/web", URI: "nbd://h/mydata/web"}}},
		{Name: "db", Problem: "the disk is gone"},
	}
	o := someOverview(v)
	o.Snapshots["mydata"] = []control.Snapshot{{Name: "monday"}}
	o.Snapshots["mydata/web"] = []control.Snapshot{{Name: "noon", Size: 1 << 20}}
	url, _ := startPage(t, &overseer{o: o})
	_, text := ask(t, url, "text/html")
	for _, want := range []string{
		`<span class="name">mydata</span>
<ul>
<li><span class="name">mydata@monday</span>`,
		`<span class="name">mydata/web</span> 3 MiB, 2 MiB allocated of a quota of 4 MiB (50%), which it has in about 2 h, a clone of @monday, 2 writes held, degraded <code>/dev/virstor/mydata&#43;web</code> <code>nbd://h/mydata/web</code>
<ul>
<li><span class="name">mydata/web@noon</span>`,
		`<span class="name">mydata/db</span> 0 B, 0 B allocated <span class="state act">cannot be used: the disk is gone</span></li>`,
		`mydata/web is degraded`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text[strings.Index(text, `class="tree"`):][:2000])
		}
	}
}

// stream reads the messages of /live.
func stream(t *testing.T, url string) func() string {
	t.Helper()
	resp, err := http.Get(url + "/live")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%d, %v", resp.StatusCode, resp.Header)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	return func() string {
		var b strings.Builder
		for lines.Scan() {
			if line, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				b.WriteString(line + "\n")
			} else if lines.Text() == "" && b.Len() > 0 {
				return b.String()
			}
		}
		return ""
	}
}

func TestWhatChangesIsSentAndTheEndOfTheServerEndsTheStream(t *testing.T) {
	s := &overseer{o: someOverview(someStatus("mydata"))}
	url, end := startPage(t, s)
	next := stream(t, url)
	if text := next(); !strings.Contains(text, "mydata is well") || !strings.Contains(text, "</main>") {
		t.Fatalf("first %q", text)
	}
	v := someStatus("mydata")
	v.Conditions = []control.Condition{control.LowSpace}
	s.set(someOverview(v))
	s.Publish(control.Event{Volume: "mydata"})
	if text := next(); !strings.Contains(text, "mydata needs a hand") {
		t.Fatalf("then %q", text)
	}
	v.Conditions = []control.Condition{}
	s.set(someOverview(v)) // of which no event tells
	if text := next(); !strings.Contains(text, "mydata is well") {
		t.Fatalf("at last %q", text)
	}
	end()
	if text := next(); text != "" {
		t.Fatalf("after the end %q", text)
	}
}

func TestSoManyBrowsersAreKeptUpToDateAndNoMore(t *testing.T) {
	s := &overseer{o: someOverview(someStatus("mydata"))}
	url, _ := startPage(t, s)
	for range maxStreams {
		stream(t, url)
	}
	resp, _ := ask(t, url+"/live", "")
	if resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("one more: %d", resp.StatusCode)
	}
	if resp, _ := ask(t, url, ""); resp.StatusCode != http.StatusOK {
		t.Errorf("the page itself: %d", resp.StatusCode)
	}
}

func TestWhatCannotBeToldIsSaid(t *testing.T) {
	url, _ := startPage(t, &overseer{err: errors.New("no \x1b such thing")})
	resp, text := ask(t, url, "")
	if resp.StatusCode != http.StatusInternalServerError || !strings.Contains(text, `no \u001b such thing`) {
		t.Errorf("%d: %q", resp.StatusCode, text)
	}
}
