package nbd

import "io"

// inputSize is the read buffer of a connection, bytes: many requests a read.
const inputSize = 128 << 10

// input is a read buffer.
type input struct {
	buf  []byte
	r, w int // buf[r:w] is read and not used
}

// grow makes the buffer at least n bytes large.
func (in *input) grow(n int) {
	if len(in.buf) >= n {
		return
	}
	buf := make([]byte, n)
	in.w = copy(buf, in.bytes())
	in.r = 0
	in.buf = buf
}

func (in *input) bytes() []byte { return in.buf[in.r:in.w] }
func (in *input) buffered() int { return in.w - in.r }

// take uses up n buffered bytes and returns them; they are valid until the
// next read.
func (in *input) take(n int) []byte {
	b := in.buf[in.r : in.r+n]
	in.r += n
	return b
}

// read reads once from r behind what is buffered. The buffer must not be full
// of unused bytes.
func (in *input) read(r io.Reader) error {
	if in.r > 0 { // little or nothing is left, see the callers
		in.w = copy(in.buf, in.bytes())
		in.r = 0
	}
	n, err := r.Read(in.buf[in.w:])
	in.w += n
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}
