package gather

import "io"

// Stage gathers small slices for a writer that makes a record of each write, as that of TLS
// does. Its zero value is ready.
type Stage struct{ buf []byte }

// Write writes the slices of vec to w, size bytes at a time, which is the same in each call.
func (s *Stage) Write(w io.Writer, vec [][]byte, size int) error {
	if s.buf == nil {
		s.buf = make([]byte, 0, size)
	}
	s.buf = s.buf[:0]
	for _, b := range vec {
		for len(b) > 0 {
			n := min(len(b), size-len(s.buf))
			s.buf, b = append(s.buf, b[:n]...), b[n:]
			if len(s.buf) < size {
				continue
			}
			if _, err := w.Write(s.buf); err != nil {
				return err
			}
			s.buf = s.buf[:0]
		}
	}
	if len(s.buf) == 0 {
		return nil
	}
	_, err := w.Write(s.buf)
	return err
}
