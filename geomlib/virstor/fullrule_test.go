package virstor

import (
	"errors"
	"testing"
	"time"
)

func TestHeldWritesObeyAChangedPolicy(t *testing.T) {
	const chunk = 128 << 10
	for name, change := range map[string]func(*Volume){
		"error":   func(v *Volume) { v.SetFull(Fail, 0) },
		"timeout": func(v *Volume) { v.SetFull(Wait, time.Millisecond) },
	} {
		t.Run(name, func(t *testing.T) {
			a := newMem("a", 1<<20, 512)
			label(t, 4<<20, chunk, a)
			v := open(t, Config{}, a)
			data := make([]byte, chunk)
			var last *toldRequest
			for off := int64(0); last == nil; off += chunk {
				q := newToldRequest(OpWrite, off, data)
				v.Submit(&q.r)
				select {
				case <-q.done:
				case <-q.held:
					last = q
				}
			}
			change(v)
			<-last.done
			if !errors.Is(last.r.Err, ErrNoSpace) {
				t.Errorf("held write: %v, want ErrNoSpace", last.r.Err)
			}
			if err := v.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}
