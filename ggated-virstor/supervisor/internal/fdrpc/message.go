package fdrpc

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxMessage = 16 << 20 // bytes
	maxFiles   = 64       // beside one message
)

// message is a question (with a Method) or the answer to one.
type message struct {
	ID     uint64          `json:"id"`
	Method string          `json:"method,omitempty"`
	Body   json.RawMessage `json:"body,omitempty"`
	Error  *remoteError    `json:"error,omitempty"`
	Files  int             `json:"files,omitempty"`

	files []*os.File
}

// remoteError is an error that crossed the connection: its text, and which of the
// sentinels it wraps.
type remoteError struct {
	Text  string   `json:"text"`
	Kinds []string `json:"kinds,omitempty"`

	sentinels map[string]error
}

func (p *Peer) toWire(err error) *remoteError {
	if err == nil {
		return nil
	}
	w := &remoteError{Text: err.Error()}
	for kind, s := range p.cfg.Sentinels {
		if errors.Is(err, s) {
			w.Kinds = append(w.Kinds, kind)
		}
	}
	return w
}

func (e *remoteError) Error() string { return e.Text }

// Is makes errors.Is work across the connection.
func (e *remoteError) Is(target error) bool {
	for _, k := range e.Kinds {
		if e.sentinels[k] == target {
			return true
		}
	}
	return false
}

func (p *Peer) send(m message) error {
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

func (p *Peer) receive() (m message, err error) {
	var head [4]byte
	oob := make([]byte, unix.CmsgSpace(4*maxFiles))
	n, oobn, _, _, err := p.conn.ReadMsgUnix(head[:], oob)
	if err != nil {
		return m, err
	}
	if n == 0 {
		return m, io.EOF
	}
	if m.files, err = FilesOf(oob[:oobn]); err != nil {
		return m, err
	}
	defer func() {
		if err != nil {
			CloseFiles(m.files)
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
	if m.Error != nil {
		m.Error.sentinels = p.cfg.Sentinels
	}
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
