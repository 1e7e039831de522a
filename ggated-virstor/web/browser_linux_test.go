//go:build !race

package web

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/tests/browser"
)

var screens = flag.String("screens", "", "keep pictures of what the browser shows in this folder")

// state is what a volume can be in, and what the page says of it.
type state struct {
	name    string
	o       Overview
	class   class
	verdict string
	says    []string // all that must be read
}

// with is someStatus changed.
func with(name string, change func(v *control.VolumeStatus)) control.VolumeStatus {
	v := someStatus(name)
	change(&v)
	return v
}

func states() []state {
	soon := int64(3 * 60 * 60)
	full := someOverview(with("mydata", func(v *control.VolumeStatus) {
		v.AllocatedChunks, v.FreeChunks, v.ReservedChunks = 252, 4, 4
		v.Conditions = []control.Condition{control.Full, control.HeldWrites}
		v.Held = control.Held{Count: 3, Bytes: 3 << 20, OldestSeconds: 12}
		v.Components[0].ChunksUsed, v.Components[0].ChunksFree = 130, 0
		v.Components[1].ChunksUsed, v.Components[1].ChunksFree = 124, 4
	}))
	uid := uint32(1000)
	full.Clients = []control.ClientStatus{
		{ID: 1, Address: "192.0.2.7:51234", Volume: "mydata", TLS: "TLS 1.3", Name: "web.example", InFlight: 3, Held: 3, BytesRead: 5 << 30, BytesWritten: 1 << 30, IdleSeconds: 2},
		{ID: 2, PID: 4712, UID: &uid, Volume: "mydata", ReadOnly: true, IdleSeconds: 300},
	}
	full.Events = []control.Event{{Time: time.Date(2026, 1, 2, 3, 4, 9, 0, time.UTC), Volume: "mydata", Kind: "full", Text: "All physical space allocated for mydata"}}
	two := someOverview(someStatus("archive"), with("mydata", func(v *control.VolumeStatus) { v.Conditions = []control.Condition{control.LowSpace} }))
	two.Problems = []control.Problem{{Volume: "old", Providers: []string{"/dev/sdx"}, Reason: "component 1 of 2 of old is missing", Remedy: "name it behind the options"}}
	kept := someOverview(with("mydata", func(v *control.VolumeStatus) { v.Snapshots = 30 }))
	kept.Snapshots["mydata"] = []control.Snapshot{
		{Name: "tuesday", Created: time.Date(2026, 1, 6, 4, 0, 0, 0, time.UTC), Size: 1 << 40},
		{Name: "monday", Created: time.Date(2026, 1, 5, 4, 0, 0, 0, time.UTC), Size: 1 << 39, Problem: "chunk 7 of its map has a wrong checksum"},
	}
	kept.Clients = []control.ClientStatus{{ID: 1, Address: "192.0.2.7:51234", Volume: "mydata@tuesday", ReadOnly: true}}
	lease := func(left float64, fencing bool) *control.Lease {
		return &control.Lease{Host: "alpha", Since: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), IntervalSeconds: 5, SettleSeconds: 60, LeftSeconds: left, Fencing: fencing}
	}
	waits, lost := someOverview(), someOverview()
	waits.Problems = []control.Problem{{Volume: "mydata", ID: 7, Reason: "waiting for the lease of beta, 91 s"}}
	lost.Problems = []control.Problem{{Volume: "mydata", ID: 7, Reason: "the lease of the volume is lost: beta has it: it was closed here at once"}}
	return []state{
		{"leased", someOverview(with("mydata", func(v *control.VolumeStatus) { v.Lease = lease(13.7, true) })), well, "mydata is well.",
			[]string{"Lease", "of this host, alpha, since 2026-01-02 03:04:05 UTC, for 13 s unless it is renewed; another host is fenced off"}},
		{"leased and not fenced", someOverview(with("mydata", func(v *control.VolumeStatus) { v.Lease = lease(13.7, false) })), well, "mydata is well.",
			[]string{"for 13 s unless it is renewed; not fenced: see LEASES in gvirstor(8)"}},
		{"lease run out", someOverview(with("mydata", func(v *control.VolumeStatus) {
			v.Lease, v.Conditions = lease(0, false), []control.Condition{control.Unleased}
		})), act, "mydata needs a hand.", []string{"no lease", "since 2026-01-02 03:04:05 UTC, run out; not fenced", "the lease cannot be renewed: nothing is sent to any component", "see to what component 0 is on"}},
		{"lease waited for", waits, act, "Not everything is served.", []string{"mydata: waiting for the lease of beta, 91 s"}},
		{"lease lost", lost, act, "Not everything is served.", []string{"mydata: the lease of the volume is lost: beta has it: it was closed here at once"}},
		{"snapshots", kept, well, "mydata is well.", []string{"Snapshots", "30", "mydata@tuesday", "2026-01-06 04:00:00 UTC", "1 TiB, read by 1 client",
			"mydata@monday", "512 GiB", "cannot be read: chunk 7 of its map has a wrong checksum", "and older ones: gvirstor list -t snapshot"}},
		{"healthy", someOverview(someStatus("mydata")), well, "mydata is well.",
			[]string{"1 TiB, in chunks of 4 MiB", "384 MiB allocated (37%)", "640 MiB free", "1 GiB in all", "nbd+unix:///mydata?socket=/run/nbd", "/dev/sdb", "344 MiB of 512 MiB, 67%", "None is connected.", "Nothing has happened"}},
		{"low", someOverview(with("mydata", func(v *control.VolumeStatus) {
			v.AllocatedChunks, v.FreeChunks, v.SecondsToFull = 240, 16, &soon
			v.Conditions = []control.Condition{control.LowSpace}
		})), look, "mydata needs a hand.", []string{"low on space", "gvirstor add mydata PROV", "about 3 h at the present rate", "960 MiB allocated (93%)"}},
		{"full and held", full, act, "mydata needs a hand.",
			[]string{"3 writes wait for space, the oldest for 12 s", "gvirstor add mydata PROV", "gvirstor reserve --release mydata", "16 MiB kept in reserve", "0 B free",
				"web.example at 192.0.2.7:51234", "3, 3 held", "process 4712 of user 1000", "mydata, to read", "5 min", "2026-01-02 03:04:09 UTC", "All physical space allocated"}},
		{"degraded", someOverview(with("mydata", func(v *control.VolumeStatus) { v.Conditions = []control.Condition{control.Degraded} })), act, "mydata needs a hand.",
			[]string{"degraded, nothing is allocated", "a sector of the allocation map could not be written"}},
		{"component failed", someOverview(with("mydata", func(v *control.VolumeStatus) {
			v.Conditions = []control.Condition{control.WriteErrors}
			v.Components[1].State = []control.Condition{control.FlushFailed, control.WriteErrors}
		})), act, "mydata needs a hand.", []string{"component /dev/sdc: flush failed", "it lost data that it had accepted", "gvirstor replace mydata /dev/sdc NEW", "flush failed, write errors"}},
		{"stale disk", someOverview(with("mydata", func(v *control.VolumeStatus) {
			v.Outsiders = []control.Outsider{{Name: "/dev/sdd", Kind: "stale", Text: "/dev/sdd is a stale component of mydata: it missed generations 5 to 9"}}
		})), look, "mydata needs a hand.", []string{"mydata needs a hand\n", "left alone: /dev/sdd is a stale component of mydata", "Others that name this volume"}},
		{"snapshot damaged", someOverview(with("mydata", func(v *control.VolumeStatus) {
			v.Snapshots, v.DamagedSnapshots, v.Conditions = 3, []string{"monday"}, []control.Condition{control.SnapshotDamaged}
		})), act, "mydata needs a hand.", []string{"snapshot damaged", "3, of which cannot be read: monday"}},
		{"job running", someOverview(with("mydata", func(v *control.VolumeStatus) {
			v.Job = &control.JobStatus{ID: "mydata", Kind: "evacuate", Done: 430 << 20, Total: 1000 << 20, Rate: 10 << 20}
		})), well, "mydata is well.", []string{"evacuate: 430 MiB of 1000 MiB, 43%, 10 MiB a second, done in about 57 s"}},
		{"two volumes", two, act, "mydata needs a hand. Not everything is served.",
			[]string{"archive", "component 1 of 2 of old is missing", "(/dev/sdx)", "name it behind the options", "low on space"}},
	}
}

// keep keeps a picture of the page where -screens says.
func keep(t *testing.T, p *browser.Page, name string) {
	t.Helper()
	if *screens == "" {
		return
	}
	if err := os.WriteFile(filepath.Join(*screens, strings.ReplaceAll(name, " ", "-")+".png"), p.Picture(), 0o666); err != nil {
		t.Fatal(err)
	}
}

// contrast lists the texts of the page that stand out from what is behind them by less
// than 4.5, and what is drawn by less than 3, as WCAG 2 measures it.
const contrast = `(() => {
	const rgb = (c) => c.match(/[\d.]+/g).map(Number);
	const luminance = (c) => {
		const [r, g, b] = rgb(c).map((v) => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
		return .2126 * r + .7152 * g + .0722 * b;
	};
	const ratio = (a, b) => { const [x, y] = [luminance(a), luminance(b)].sort((p, q) => q - p); return (x + .05) / (y + .05); };
	const behind = (e) => {
		for (; e; e = e.parentElement) {
			const c = getComputedStyle(e).backgroundColor;
			if ((rgb(c)[3] ?? 1) > 0) return c;
		}
		return "rgb(255, 255, 255)";
	};
	const poor = [];
	const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	while (texts.nextNode()) {
		const e = texts.currentNode.parentElement;
		if (!texts.currentNode.data.trim() || ["TITLE", "title", "SCRIPT"].includes(e.tagName)) continue;
		const style = getComputedStyle(e);
		const r = ratio(e.namespaceURI.endsWith("svg") ? style.fill : style.color, behind(e));
		if (!(r >= 4.5)) poor.push(texts.currentNode.data.trim() + " " + r.toFixed(2));
	}
	const empty = document.querySelector("rect.gv-empty");
	for (const e of document.querySelectorAll("rect")) {
		if (e.classList.contains("gv-empty")) continue;
		const r = ratio(getComputedStyle(e).fill, getComputedStyle(empty).fill);
		if (!(r >= 3)) poor.push(e.getAttribute("class") + " " + r.toFixed(2));
	}
	return poor;
})()`

var looks = map[string]browser.Look{
	"light":     {Width: 1100, Height: 900},
	"dark":      {Width: 1100, Height: 900, Dark: true},
	"telephone": {Width: 360, Height: 740},
	"noscript":  {Width: 1100, Height: 900, NoScript: true},
}

func TestEveryStateIsShownInABrowserByDayByNightAndOnATelephone(t *testing.T) {
	p := browser.New(t)
	for _, s := range states() {
		url, _ := startPage(t, &overseer{o: s.o})
		for name, look := range looks {
			what := s.name + " " + name
			p.As(look)
			p.Open(url)
			text := p.Text()
			if want := string(s.verdict); !strings.Contains(text, want) {
				t.Errorf("%s: no %q in\n%s", what, want, text)
			}
			for _, want := range s.says {
				if !strings.Contains(text, want) {
					t.Errorf("%s: no %q in\n%s", what, want, text)
				}
			}
			keep(t, p, what)
			asked := p.Asked()
			if len(asked) < 2 {
				t.Errorf("%s: only %q were asked for", what, asked)
			}
			for _, a := range asked {
				if !strings.HasPrefix(a, url+"/") {
					t.Errorf("%s: %s was asked for", what, a)
				}
			}
			if complaints := p.Complaints(); complaints != nil {
				t.Errorf("%s: the browser complains: %q", what, complaints)
			}
			if look.NoScript {
				continue // what follows asks the page by scripts
			}
			if poor := browser.Eval[[]string](p, contrast); len(poor) > 0 {
				t.Errorf("%s: what hardly shows: %q", what, poor)
			}
			if wide := browser.Eval[int](p, "document.documentElement.scrollWidth - innerWidth"); wide > 0 {
				t.Errorf("%s: the page is %d pixels wider than the screen", what, wide)
			}
			if class := browser.Eval[string](p, `document.getElementById("verdict").classList[1]`); class != string(s.class) {
				t.Errorf("%s: the verdict is %s, want %s", what, class, s.class)
			}
		}
	}
}

func TestTheMapIsDrawnInTheColoursOfItsComponents(t *testing.T) {
	p := browser.New(t)
	p.As(looks["light"])
	url, _ := startPage(t, &overseer{o: someOverview(someStatus("mydata"))})
	p.Open(url)
	for what, expression := range map[string]string{
		"a title for each part":     `[...document.querySelectorAll(".gv-map g")].every((g) => /^[\d.]+ \w+ to [\d.]+ \w+: (nothing allocated|\d+ of \d+ chunks allocated, .*\d+ on \/dev\/sd[bc])$/.test(g.querySelector("title").textContent))`,
		"an offset for each row":    `[...document.querySelectorAll(".gv-map > text")].map((e) => e.textContent).join() === "0 B,128 GiB,256 GiB,384 GiB,512 GiB,640 GiB,768 GiB,896 GiB"`,
		"a name":                    `document.querySelector(".gv-map > title").textContent === "Allocation map of mydata: 96 of 262144 chunks allocated"`,
		"both components":           `document.querySelectorAll(".gv-map .gv-0").length > 1 && document.querySelectorAll(".gv-map .gv-1").length > 1`,
		"a legend":                  `document.querySelectorAll("tbody th .swatch rect.gv-0, tbody th .swatch rect.gv-1").length === 2`,
		"colours that differ":       `getComputedStyle(document.querySelector(".gv-map .gv-0")).fill !== getComputedStyle(document.querySelector(".gv-map .gv-1")).fill`,
		"the legend's colours":      `getComputedStyle(document.querySelector(".swatch .gv-1")).fill === getComputedStyle(document.querySelector(".gv-map .gv-1")).fill`,
		"what is shared in one bar": `[...document.querySelectorAll(".gv-map g")].some((g) => g.querySelector(".gv-0") && g.querySelector(".gv-1"))`,
	} {
		if !browser.Eval[bool](p, expression) {
			t.Errorf("not: %s", what)
		}
	}
}

func TestThePageKeepsItselfUpToDateAndTellsWhenItIsCutOff(t *testing.T) {
	p := browser.New(t)
	p.As(looks["light"])
	v := with("mydata", func(v *control.VolumeStatus) { v.Conditions = []control.Condition{control.LowSpace} })
	s := &overseer{o: someOverview(v)}
	url, end := startPage(t, s)
	p.Open(url)
	p.Until("the page is live", `document.getElementById("live").textContent === "Live."`)
	p.Do(chromedp.Focus(chromedp.CSS(".hands a")))
	v.Conditions, v.FreeChunks = []control.Condition{control.Full}, 0
	s.set(someOverview(v))
	s.Publish(control.Event{Volume: "mydata"})
	p.Until("what has changed shows", `document.body.innerText.includes("the next write that needs space will wait")`)
	if focus := browser.Eval[string](p, `document.activeElement.getAttribute("href")`); focus != "#volume-0" {
		t.Errorf("the focus is on %q", focus)
	}
	s.set(someOverview(someStatus("mydata")))
	p.Until("all is well", `document.title === "gvirstor: mydata is well." && document.getElementById("said").textContent === "mydata is well."`)
	end()
	p.Until("the page says that it is cut off", `/^Cut off at \d\d:\d\d:\d\d UTC/.test(document.getElementById("live").textContent)`)
	if color := browser.Eval[string](p, `getComputedStyle(document.getElementById("live")).color`); color != "rgb(176, 30, 46)" {
		t.Errorf("that the page is cut off is said in %s, not in what urges", color)
	}
	keep(t, p, "cut off")
}

func TestWhoMarksACommandKeepsTheMarkWhilePageChanges(t *testing.T) {
	p := browser.New(t)
	p.As(looks["light"])
	v := with("mydata", func(v *control.VolumeStatus) { v.Conditions = []control.Condition{control.LowSpace} })
	s := &overseer{o: someOverview(v)}
	url, _ := startPage(t, s)
	p.Open(url)
	p.Until("the page is live", `document.getElementById("live").textContent === "Live."`)
	p.Do(chromedp.Click(chromedp.CSS(".hands .command")))
	const marks = "getSelection().toString()"
	if marked := browser.Eval[string](p, marks); marked != "gvirstor add mydata PROV" {
		t.Errorf("a click marks %q", marked)
	}
	s.set(someOverview(someStatus("mydata")))
	p.Until("the change has come", "waiting !== null")
	if marked := browser.Eval[string](p, marks); marked != "gvirstor add mydata PROV" {
		t.Errorf("the change leaves %q marked", marked)
	}
	browser.Eval[chromedp.Void](p, "getSelection().removeAllRanges()")
	p.Until("the change shows", `document.title === "gvirstor: mydata is well."`)
}

func TestEveryLinkIsReachedByTheKeyboardAndSeenThen(t *testing.T) {
	p := browser.New(t)
	p.As(browser.Look{Width: 1100, Height: 900, NoScript: true})
	all := states()
	url, _ := startPage(t, &overseer{o: all[len(all)-1].o})
	p.Open(url)
	links := browser.Eval[int](p, `document.querySelectorAll("a").length`)
	if links < 2 {
		t.Fatalf("%d links", links)
	}
	for i := range links {
		p.Do(chromedp.KeyEvent(kb.Tab))
		at := browser.Eval[string](p, fmt.Sprintf(`(() => { const a = document.querySelectorAll("a")[%d]; const s = getComputedStyle(a);
			return document.activeElement === a && s.outlineStyle === "solid" && parseFloat(s.outlineWidth) >= 2 ? "" : document.activeElement.outerHTML; })()`, i))
		if at != "" {
			t.Errorf("link %d: the focus is on %s", i, at)
		}
	}
}
