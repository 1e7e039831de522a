package supervisor

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ErrPeerGone: the other process is dead, or has closed the connection.
var ErrPeerGone = errors.New("the other process is gone")

const (
	maxMessage = 16 << 20
	maxFiles   = 64 // beside one message

	// sendPatience is how long the other process may leave a message where it is.
	sendPatience = 30 * time.Second

	// What the other process can have this one do at the same time.
	maxQuestions     = 256
	maxQuestionBytes = 4 * maxMessage
)

// errManyQuestions is what the other process is told beyond that.
var errManyQuestions = errors.New("too many questions at once")

// message is a question (with a Method) or the answer to one.
type message struct {
	ID     uint64          `json:"id"`
	Method string          `json:"method,omitempty"`
	Body   json.RawMessage `json:"body,omitempty"`
	Error  *wireError      `json:"error,omitempty"`
	Files  int             `json:"files,omitempty"`

	files []*os.File
}

// handler answers a question. The files stay its own, but for those in
// reply.once, which are closed when they are sent.
type handler func(ctx context.Context, method string, body json.RawMessage) (reply, error)

type reply struct {
	body  any
	files []*os.File
	once  []*os.File // sent after files
}

// peer is one end of the connection.
type peer struct {
	conn   *net.UnixConn
	handle handler

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

// socketPair makes the two ends of a connection.
func socketPair() (ours *net.UnixConn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("connect supervisor and worker: %w", err)
	}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
	theirs = os.NewFile(uintptr(fds[1]), "supervisor")
	ours, err = connOf(os.NewFile(uintptr(fds[0]), "worker"))
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return ours, theirs, nil
}

// connOf makes a connection of a socket's file, which it closes.
func connOf(f *os.File) (*net.UnixConn, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("connect supervisor and worker: %w", err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, errors.New("connect supervisor and worker: not a Unix socket")
	}
	return u, nil
}

func newPeer(c *net.UnixConn, h handler) *peer {
	p := &peer{conn: c, handle: h, patience: sendPatience, waiting: make(map[uint64]chan message)}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// run receives until the connection ends, and then returns when all handlers
// have.
func (p *peer) run() error {
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
			closeFiles(m.files)
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
func (p *peer) take(m message) {
	closeFiles(m.files) // questions carry none
	p.mu.Lock()
	ok := p.asked < maxQuestions && p.bytes+len(m.Body) <= maxQuestionBytes
	if ok {
		p.asked++
		p.bytes += len(m.Body)
	}
	p.mu.Unlock()
	if !ok {
		p.reply(m.ID, reply{}, errManyQuestions)
		return
	}
	p.wg.Go(func() {
		r, err := p.handle(p.ctx, m.Method, m.Body)
		p.mu.Lock()
		p.asked--
		p.bytes -= len(m.Body)
		p.mu.Unlock()
		p.reply(m.ID, r, err)
	})
}

// close ends the connection, upon which run returns.
func (p *peer) close() { p.conn.Close() }

// reply answers the question with that id.
func (p *peer) reply(id uint64, r reply, err error) {
	defer closeFiles(r.once)
	a := message{ID: id, Error: toWire(err), files: append(r.files[:len(r.files):len(r.files)], r.once...)}
	if err == nil && r.body != nil {
		if a.Body, err = json.Marshal(r.body); err != nil {
			a.Error = toWire(err)
		}
	}
	if err := p.send(a); err != nil {
		p.conn.Close() // run notices
	}
}

// call asks the other process, and waits for the answer until ctx ends.
func (p *peer) call(ctx context.Context, method string, body, answer any) ([]*os.File, error) {
	b, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	ch := make(chan message, 1)
	p.mu.Lock()
	if p.gone {
		p.mu.Unlock()
		return nil, fmt.Errorf("%s: %w", method, ErrPeerGone)
	}
	p.next++
	id := p.next
	p.waiting[id] = ch
	p.mu.Unlock()
	if err := p.send(message{ID: id, Method: method, Body: b}); err != nil {
		p.conn.Close() // part of a message may be on its way
		return nil, p.giveUp(id, ch, fmt.Errorf("%s: %w: %w", method, ErrPeerGone, err))
	}
	select {
	case m, ok := <-ch:
		if !ok {
			return nil, fmt.Errorf("%s: %w", method, ErrPeerGone)
		}
		if m.Error != nil {
			closeFiles(m.files)
			return nil, m.Error
		}
		if answer != nil {
			if err := json.Unmarshal(m.Body, answer); err != nil {
				closeFiles(m.files)
				return nil, fmt.Errorf("%s: answer: %w", method, err)
			}
		}
		return m.files, nil
	case <-ctx.Done():
		return nil, p.giveUp(id, ch, fmt.Errorf("%s: %w", method, ctx.Err()))
	}
}

// giveUp forgets a question. An answer that came meanwhile is dropped.
func (p *peer) giveUp(id uint64, ch chan message, err error) error {
	p.mu.Lock()
	delete(p.waiting, id)
	p.mu.Unlock()
	select {
	case m, ok := <-ch:
		if ok {
			closeFiles(m.files)
		}
	default:
	}
	return err
}

func (p *peer) send(m message) error {
	m.Files = len(m.files)
	if m.Files > maxFiles {
		return fmt.Errorf("%d descriptors beside one message: at most %d", m.Files, maxFiles)
	}
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if len(b) > maxMessage {
		return fmt.Errorf("message of %d bytes: at most %d", len(b), maxMessage)
	}
	var rights []byte
	if m.Files > 0 {
		var fds []int
		for _, f := range m.files {
			fds = append(fds, int(f.Fd()))
		}
		rights = unix.UnixRights(fds...)
	}
	p.sending.Lock()
	defer p.sending.Unlock()
	head := binary.BigEndian.AppendUint32(nil, uint32(len(b)))
	if err := p.conn.SetWriteDeadline(time.Now().Add(p.patience)); err != nil {
		return err
	}
	n, _, err := p.conn.WriteMsgUnix(head, rights, nil)
	if err == nil && n < len(head) {
		_, err = p.conn.Write(head[n:])
	}
	if err == nil {
		_, err = p.conn.Write(b)
	}
	return err
}

func (p *peer) receive() (m message, err error) {
	var head [4]byte
	oob := make([]byte, unix.CmsgSpace(4*maxFiles))
	n, oobn, _, _, err := p.conn.ReadMsgUnix(head[:], oob)
	if err != nil {
		return m, err
	}
	if n == 0 {
		return m, io.EOF
	}
	if m.files, err = filesOf(oob[:oobn]); err != nil {
		return m, err
	}
	defer func() {
		if err != nil {
			closeFiles(m.files)
		}
	}()
	if _, err := io.ReadFull(p.conn, head[n:]); err != nil {
		return m, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > maxMessage {
		return m, fmt.Errorf("message of %d bytes: at most %d", size, maxMessage)
	}
	b, err := readN(p.conn, int(size))
	if err != nil {
		return m, err
	}
	files := m.files
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("message: %w", err)
	}
	m.files = files
	if m.Files != len(files) {
		return m, fmt.Errorf("message with %d descriptors, of which %d came: too many open files?", m.Files, len(files))
	}
	return m, nil
}

// readN reads n bytes, for which memory is taken as they come and not as they are
// announced.
func readN(r io.Reader, n int) ([]byte, error) {
	var b bytes.Buffer
	got, err := io.CopyN(&b, r, int64(n))
	if err == io.EOF && got < int64(n) {
		err = io.ErrUnexpectedEOF
	}
	return b.Bytes(), err
}

func filesOf(oob []byte) ([]*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	cs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("receive descriptors: %w", err)
	}
	var fs []*os.File
	for i := range cs {
		fds, err := unix.ParseUnixRights(&cs[i])
		if err != nil {
			closeFiles(fs)
			return nil, fmt.Errorf("receive descriptors: %w", err)
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			fs = append(fs, os.NewFile(uintptr(fd), "received"))
		}
	}
	return fs, nil
}

func closeFiles(fs []*os.File) {
	for _, f := range fs {
		f.Close()
	}
}
