package blackbox

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"image/png"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/ggated-virstor/web"
	"github.com/gvirstor/gvirstor/tests/browser"
)

var drawReadme = flag.Bool("draw", false, "draw the picture of the README anew")

// readmePicture is what the README shows of the page.
const readmePicture = "../../.github/page.png"

// pageSources is a sum over what the page is made of.
func pageSources(t *testing.T) string {
	t.Helper()
	sum := sha256.New()
	for _, name := range []string{"ggated-virstor/web/page.html", "ggated-virstor/web/page.css", "ggated-virstor/web/view.go", "geomlib/virstor/picture/style.css", "geomlib/virstor/picture/svg.go"} {
		text, err := os.ReadFile(filepath.Join("../..", name))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(sum, "%s %d\n%s", name, len(text), text)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// httpURL is where --http answers.
func (s *site) httpURL() string {
	s.t.Helper()
	s.said(" http=")
	return "http://" + httpAddr.FindStringSubmatch(s.log.String())[1] + "/"
}

// overview is what the page answers to who asks for JSON.
func (s *site) overview() web.Overview {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.httpURL(), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Accept", "application/json")
	resp, err := (&http.Client{Timeout: time.Minute}).Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	var o web.Overview
	if err := json.Unmarshal(b, &o); err != nil {
		s.t.Fatalf("%v in %q", err, b)
	}
	return o
}

// TestThePageOfARealDaemonFollowsAVolumeThatFillsUp at both fronts, and draws what the
// README shows on the way.
func TestThePageOfARealDaemonFollowsAVolumeThatFillsUp(t *testing.T) {
	atBothFronts(t, func(t *testing.T, begin func(*site, ...string)) {
		s := newSite(t)
		s.name = "mydata"
		s.files = []string{s.file("disk0", 1200*mib), s.file("disk1", 800*mib)}
		s.gvirstor("label", "-s", "16g", "mydata", s.files[0], s.files[1])
		begin(s, "--http", "127.0.0.1:0", "--alert-chunks", "0", "--reserve", "20")
		p := browser.New(t)
		p.As(browser.Look{Width: 1000, Height: 900})
		p.Open(s.httpURL())
		p.Until("the page is live", `document.getElementById("live").textContent === "Live."`)
		p.Until("all is well", `document.title === "gvirstor: mydata is well."`)
		s.gvirstor("snapshot", "mydata@monday")
		p.Until("the snapshot is a leaf of its volume", `(document.querySelector(".tree li li")?.innerText ?? "").startsWith("mydata@monday ")`)
		s.gvirstor("delete", "-f", "mydata@monday")
		p.Until("it is none any more", `document.querySelector(".tree") === null`)

		c := s.dial()
		sector := bytes.Repeat([]byte{1}, 4096)
		write := func(chunk int64) error { _, err := c.WriteAt(sector, chunk*4*mib); return err }
		var chunk int64
		for free := s.status().FreeChunks - 20; free > 0; free-- { // a stretch, a gap, and then here and there
			if err := write(chunk); err != nil {
				t.Fatal(err)
			}
			switch {
			case chunk < 200 || chunk > 1000 && chunk < 1150:
				chunk++
			case chunk == 200:
				chunk = 1001
			default:
				chunk += 13
			}
		}
		held := make(chan error, 3)
		for i := range int64(3) {
			go func() { held <- write(3000 + i) }()
		}
		p.Until("the page says that writes wait", `document.body.innerText.includes("3 writes wait for space")`)
		text := p.Text()
		for _, want := range []string{"full, held", "gvirstor add mydata PROV", "gvirstor reserve --release mydata", "80 MiB kept in reserve", "0 B free", "3, 3 held", s.files[1]} {
			if !strings.Contains(text, want) {
				t.Errorf("no %q in\n%s", want, text)
			}
		}
		p.Until("both components are on the map", `document.querySelectorAll(".gv-map .gv-0").length > 1 && document.querySelectorAll(".gv-map .gv-1").length > 1`)
		var o web.Overview // whose drawing is of a second ago, or more
		s.until("the map as JSON has what is allocated", func() bool {
			o = s.overview()
			return o.Maps["mydata"].Allocated == uint64(o.Volumes[0].AllocatedChunks)
		})
		if len(o.Actions) != 1 || o.Volumes[0].Held.Count != 3 || len(o.Clients) != 1 {
			t.Errorf("as JSON %+v", o)
		}
		if *drawReadme {
			drawPicture(t, p.Picture())
		}
		s.gvirstor("reserve", "--release", "mydata")
		for range 3 {
			if err := <-held; err != nil {
				t.Error(err)
			}
		}
		p.Until("the page says that nothing waits", `!document.body.innerText.includes("wait for space,")`)
		if complaints := p.Complaints(); complaints != nil {
			t.Errorf("the browser complains: %q", complaints)
		}
	})
}

// drawPicture keeps a picture for the README, with the sum of what it was drawn from.
func drawPicture(t *testing.T, picture []byte) {
	t.Helper()
	if _, err := png.Decode(bytes.NewReader(picture)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(readmePicture, picture, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(readmePicture+".sum", []byte(pageSources(t)+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestTheREADMEShowsThePageAsItIs: who changes the page draws the picture anew.
func TestTheREADMEShowsThePageAsItIs(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(readme, []byte("](.github/page.png)")) {
		t.Error("the README shows no picture of the page")
	}
	f, err := os.Open(readmePicture)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := png.Decode(f); err != nil {
		t.Error(err)
	}
	sum, err := os.ReadFile(readmePicture + ".sum")
	if err != nil || strings.TrimSpace(string(sum)) != pageSources(t) {
		t.Errorf("the page has changed since its picture was drawn: go test -run RealDaemon ./tests/blackbox -draw")
	}
}
