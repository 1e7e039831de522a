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

func TestTheLimitOfHeldDataCanChange(t *testing.T) {
	const chunk = 128 << 10
	a := newMem("a", 1<<20, 512)
	label(t, 4<<20, chunk, a)
	v := open(t, Config{HeldLimit: 8 * chunk}, a)
	data := make([]byte, chunk)
	var held *toldRequest
	for off := int64(0); held == nil; off += chunk {
		q := newToldRequest(OpWrite, off, data)
		v.Submit(&q.r)
		select {
		case <-q.done:
		case <-q.held:
			held = q
		}
	}
	if v.HeldFull() != nil {
		t.Fatal("one chunk of eight fills the limit")
	}
	v.SetHeldLimit(chunk)
	room := v.HeldFull()
	if room == nil {
		t.Fatal("there is room above the new limit")
	}
	v.SetHeldLimit(2 * chunk)
	<-room
	if v.HeldFull() != nil {
		t.Fatal("no room below the new limit")
	}
	v.SetFull(Fail, 0)
	<-held.done
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
}
