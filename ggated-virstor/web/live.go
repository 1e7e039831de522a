package web

import (
	"bytes"
	"net/http"
	"time"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

// Times of a stream.
const (
	liveEvery = 2 * time.Second  // it looks, whatever happens
	liveRest  = 15 * time.Second // it says something, so that both sides notice a dead peer
	liveWrite = 10 * time.Second // one message may take
)

// stream answers /live: the body of the page each time that it has become another, as
// events that a server sends.
func (p *page) stream(w http.ResponseWriter, r *http.Request) {
	select {
	case p.streams <- struct{}{}:
		defer func() { <-p.streams }()
	default:
		http.Error(w, "too many browsers are kept up to date already", http.StatusServiceUnavailable)
		return
	}
	events, err := p.overseer.Subscribe(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	setHeaders(w, "text/event-stream")
	s := &liveStream{w: w, rc: http.NewResponseController(w)}
	look := time.NewTicker(liveEvery)
	defer look.Stop()
	for {
		o, err := p.overview(r.Context())
		if err != nil {
			return
		}
		body, err := p.render("main", o)
		if err != nil || s.send(body) != nil {
			return
		}
		if !p.next(r, events, look.C) {
			return
		}
	}
}

// next waits until there may be something new; false: the stream is over.
func (p *page) next(r *http.Request, events <-chan control.Event, look <-chan time.Time) bool {
	select {
	case <-r.Context().Done():
		return false
	case <-p.ended:
		return false
	case <-look:
		return true
	case _, ok := <-events:
		return ok && p.settle(r, events)
	}
}

// settle lets the events that come together come, and what was known before them get old.
func (p *page) settle(r *http.Request, events <-chan control.Event) bool {
	enough := time.NewTimer(freshness)
	defer enough.Stop()
	for {
		select {
		case <-r.Context().Done():
			return false
		case <-p.ended:
			return false
		case <-enough.C:
			return true
		case _, ok := <-events:
			if !ok {
				return false
			}
		}
	}
}

// liveStream is one browser's.
type liveStream struct {
	w    http.ResponseWriter
	rc   *http.ResponseController
	last []byte    // body that was sent
	said time.Time // when anything was
}

// send sends body, or nothing if it was sent before and that is not long ago.
func (s *liveStream) send(body []byte) error {
	message := []byte(":\n\n") // a comment
	switch {
	case !bytes.Equal(body, s.last):
		s.last = body
		message = []byte("data: " + string(bytes.ReplaceAll(body, []byte("\n"), []byte("\ndata: "))) + "\n\n")
	case time.Since(s.said) < liveRest:
		return nil
	}
	s.said = time.Now()
	_ = s.rc.SetWriteDeadline(s.said.Add(liveWrite)) // without it the write is only not timed
	if _, err := s.w.Write(message); err != nil {
		return err
	}
	return s.rc.Flush()
}
