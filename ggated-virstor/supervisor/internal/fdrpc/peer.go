package fdrpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// ErrGone is wrapped by Call: the other process is dead, or has closed the connection.
var ErrGone = errors.New("the other process is gone")

const (
	// sendPatience is how long the other process may leave a message where it is.
	sendPatience = 30 * time.Second

	// What the other process can have this one do at the same time.
	maxQuestions     = 256
	maxQuestionBytes = 4 * maxMessage
)

// errManyQuestions is what the other process is told beyond that.
var errManyQuestions = errors.New("too many questions at once")

// Config is what one end knows.
type Config struct {
	// Self is who this end is, as it says when it does not know a method.
	Self    string
	Methods Methods
	// Sentinels are the errors that errors.Is finds on the other side, too, by the
	// names that they have on the way. Both ends need the same.
	Sentinels map[string]error
}

// Peer is one end of the connection. Both ends may ask. Its methods may be called by many
// goroutines, but Run by one.
type Peer struct {
	conn *net.UnixConn
	cfg  Config

	sending  sync.Mutex    // of one message
	patience time.Duration // sendPatience

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan message
	gone    bool
	asked   int // questions that are being answered
	bytes   int // of them

	ctx    context.Context // ends with the connection
	cancel context.CancelFunc
	wg     sync.WaitGroup // handlers
}

// New makes an end of c, which it owns. Nothing is received before Run.
func New(c *net.UnixConn, cfg Config) *Peer {
	p := &Peer{conn: c, cfg: cfg, patience: sendPatience, waiting: make(map[uint64]chan message)}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// Run receives until the connection ends, and then returns when all handlers
// have.
func (p *Peer) Run() error {
	var err error
	for {
		var m message
		if m, err = p.receive(); err != nil {
			break
		}
		if m.Method != "" {
			p.take(m)
			continue
		}
		p.mu.Lock()
		ch := p.waiting[m.ID]
		delete(p.waiting, m.ID)
		p.mu.Unlock()
		if ch == nil { // nobody waits any more
			CloseFiles(m.files)
			continue
		}
		ch <- m
	}
	p.mu.Lock()
	p.gone = true
	for id, ch := range p.waiting {
		delete(p.waiting, id)
		close(ch)
	}
	p.mu.Unlock()
	p.cancel()
	p.conn.Close()
	p.wg.Wait()
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// take has a question answered, or refuses it when there are too many.
func (p *Peer) take(m message) {
	CloseFiles(m.files) // questions carry none
	p.mu.Lock()
	ok := p.asked < maxQuestions && p.bytes+len(m.Body) <= maxQuestionBytes
	if ok {
		p.asked++
		p.bytes += len(m.Body)
	}
	p.mu.Unlock()
	if !ok {
		p.reply(m.ID, Reply{}, errManyQuestions)
		return
	}
	p.wg.Go(func() {
		r, err := p.answer(m.Method, m.Body)
		p.mu.Lock()
		p.asked--
		p.bytes -= len(m.Body)
		p.mu.Unlock()
		p.reply(m.ID, r, err)
	})
}

// Close ends the connection, upon which Run returns.
func (p *Peer) Close() { p.conn.Close() }

// Context ends with the connection.
func (p *Peer) Context() context.Context { return p.ctx }

// answer asks the method.
func (p *Peer) answer(method string, body json.RawMessage) (Reply, error) {
	h := p.cfg.Methods[method]
	if h == nil {
		return Reply{}, fmt.Errorf("the %s does not know %.40q: supervisor and worker must be of one version", p.cfg.Self, method)
	}
	return h(p.ctx, body)
}

// reply answers the question with that id.
func (p *Peer) reply(id uint64, r Reply, err error) {
	defer CloseFiles(r.Once)
	a := message{ID: id, Error: p.toWire(err), files: append(r.Files[:len(r.Files):len(r.Files)], r.Once...)}
	if err == nil && r.Body != nil {
		if a.Body, err = json.Marshal(r.Body); err != nil {
			a.Error = p.toWire(err)
		}
	}
	if err := p.send(a); err != nil {
		p.conn.Close() // Run notices
	}
}

// Call asks the other process, and waits for the answer until ctx ends. body is made JSON
// of, and the answer's stored in answer unless that is nil. The files are the caller's.
// An error of the other side's has its text, and is its Sentinels.
func (p *Peer) Call(ctx context.Context, method string, body, answer any) ([]*os.File, error) {
	b, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	ch := make(chan message, 1)
	p.mu.Lock()
	if p.gone {
		p.mu.Unlock()
		return nil, fmt.Errorf("%s: %w", method, ErrGone)
	}
	p.next++
	id := p.next
	p.waiting[id] = ch
	p.mu.Unlock()
	if err := p.send(message{ID: id, Method: method, Body: b}); err != nil {
		p.conn.Close() // part of a message may be on its way
		return nil, p.giveUp(id, ch, fmt.Errorf("%s: %w: %w", method, ErrGone, err))
	}
	select {
	case m, ok := <-ch:
		if !ok {
			return nil, fmt.Errorf("%s: %w", method, ErrGone)
		}
		if m.Error != nil {
			CloseFiles(m.files)
			return nil, m.Error
		}
		if answer != nil {
			if err := json.Unmarshal(m.Body, answer); err != nil {
				CloseFiles(m.files)
				return nil, fmt.Errorf("%s: answer: %w", method, err)
			}
		}
		return m.files, nil
	case <-ctx.Done():
		return nil, p.giveUp(id, ch, fmt.Errorf("%s: %w", method, ctx.Err()))
	}
}

// giveUp forgets a question. An answer that came meanwhile is dropped.
func (p *Peer) giveUp(id uint64, ch chan message, err error) error {
	p.mu.Lock()
	delete(p.waiting, id)
	p.mu.Unlock()
	select {
	case m, ok := <-ch:
		if ok {
			CloseFiles(m.files)
		}
	default:
	}
	return err
}
