package virstor

import "testing"

func TestARunIsTheSameEachTimeForASeed(t *testing.T) {
	trace := func() string {
		var counts crashCounts
		w, err := newWorld(5, Config{serial: true}, &counts)
		if err != nil {
			t.Fatal(err)
		}
		w.jobs = true
		if err := w.run(60, 1); err != nil {
			t.Fatal(err)
		}
		var s string
		for _, o := range w.rec.Log() {
			s += o.String() + "\n"
		}
		if err := w.vol.Close(); err != nil {
			t.Fatal(err)
		}
		return s
	}
	if a, b := trace(), trace(); a != b {
		t.Error("two runs of one seed ask different things of the disks")
	}
}

func TestAVerbAsksTheSameOfTheDisksEachTimeForASeed(t *testing.T) {
	trace := func(v *verb) (s string) {
		var counts crashCounts
		w, err := newVerbWorld(v, 3, Config{}, &counts)
		if err == nil {
			err = w.wholeLife()
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range w.rec.Log() {
			s += o.String() + "\n"
		}
		return s
	}
	for _, v := range verbs {
		if first, second := trace(v), trace(v); first != second {
			t.Errorf("%s: two runs of one seed ask different things of the disks", v.name)
		}
	}
}
