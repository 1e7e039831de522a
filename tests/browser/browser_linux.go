// Package browser drives Debian's chromium, for tests of what a browser shows.
package browser

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// Page is a tab of a browser that ends with the test.
type Page struct {
	t   testing.TB
	ctx context.Context

	mu       sync.Mutex
	asked    []string // for which URLs
	complain []string
}

// patience is how long a browser may take for anything, on a machine that is busy.
const patience = 2 * time.Minute

// New starts a browser. Without one the test is skipped, but fails where
// GVIRSTOR_REQUIRE_TOOLS=1 says that everything is installed.
func New(t testing.TB) *Page {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		if os.Getenv("GVIRSTOR_REQUIRE_TOOLS") == "1" {
			t.Fatal("chromium is not installed")
		}
		t.Skip("chromium is not installed")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.WSURLReadTimeout(patience), chromedp.DisableGPU)
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // which chromium refuses to have as root
	}
	allocator, end := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(end)
	ctx, cancel := chromedp.NewContext(allocator)
	t.Cleanup(cancel)
	p := &Page{t: t, ctx: ctx}
	// The first action starts the browser, which ends with the context that it has.
	if err := chromedp.Listen(ctx, p.listen); err != nil {
		t.Fatalf("start chromium: %v", err)
	}
	for _, enable := range []func() error{
		func() error { return tell(ctx, network.Enable, network.EnableParams{}) },
		func() error { return tell(ctx, log.Enable, cdp.Empty{}) },
		func() error { return tell(ctx, runtime.Enable, cdp.Empty{}) },
	} {
		if err := enable(); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// tell has the browser carry out a command that answers nothing.
func tell[P any](ctx context.Context, command cdp.Command[P, cdp.Empty], params P) error {
	_, err := chromedp.Call(ctx, command, params)
	return err
}

// listen notes what the page asks for, and what the browser complains of.
func (p *Page) listen(event any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		p.asked = append(p.asked, e.Request.URL)
	case *log.EventEntryAdded:
		p.complain = append(p.complain, e.Entry.Text+" "+e.Entry.URL)
	case *runtime.EventExceptionThrown:
		p.complain = append(p.complain, e.ExceptionDetails.Text)
	}
}

// Asked are the URLs that were asked for, and forgets them.
func (p *Page) Asked() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	asked := p.asked
	p.asked = nil
	return asked
}

// Complaints are what the browser found wrong, and forgets it: errors of scripts, what a
// policy did not let pass, what could not be loaded.
func (p *Page) Complaints() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	complaints := p.complain
	p.complain = nil
	return complaints
}

// Do has the browser act.
func (p *Page) Do(actions ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		p.t.Fatal(err)
	}
}

// Open opens a URL.
func (p *Page) Open(url string) {
	p.t.Helper()
	p.Do(chromedp.Navigate(url))
}

// Look is how the page is looked at.
type Look struct {
	Width, Height int64 // pixels of CSS
	Dark          bool
	NoScript      bool
}

// As has the page looked at so from now on.
func (p *Page) As(l Look) {
	p.t.Helper()
	scheme := "light"
	if l.Dark {
		scheme = "dark"
	}
	p.Do(chromedp.EmulateViewport(l.Width, l.Height))
	media := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}}
	err := errors.Join(tell(p.ctx, emulation.SetEmulatedMedia, media),
		tell(p.ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: l.NoScript}))
	if err != nil {
		p.t.Fatal(err)
	}
}

// Eval is what an expression of JavaScript is in the page.
func Eval[T any](p *Page, expression string) T {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		p.t.Fatalf("%s: %v", expression, err)
	}
	return value
}

// Text is what of the page people can read.
func (p *Page) Text() string {
	p.t.Helper()
	return Eval[string](p, "document.body.innerText")
}

// Until waits until an expression of JavaScript is true in the page.
func (p *Page) Until(what, expression string) {
	p.t.Helper()
	for end := time.Now().Add(patience); !Eval[bool](p, expression); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			p.t.Fatalf("%s: not in %v; the page says\n%s", what, patience, p.Text())
		}
	}
}

// Picture is the whole page as PNG.
func (p *Page) Picture() []byte {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	png, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err != nil {
		p.t.Fatal(err)
	}
	return png
}
