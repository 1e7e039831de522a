package control

import "testing"

func TestTheHeadlineNamesFirstWhatNeedsAHand(t *testing.T) {
	volume := func(name string, cs ...Condition) VolumeStatus {
		return VolumeStatus{Name: name, PhysicalChunks: 100, FreeChunks: 40, Conditions: cs}
	}
	for _, c := range []struct {
		status Status
		want   string
	}{
		{Status{}, "No volumes"},
		{Status{Volumes: []VolumeStatus{volume("mydata")}}, "mydata 40% physical free"},
		{Status{Volumes: []VolumeStatus{volume("a"), volume("b\x1b", LowSpace)}}, `"b\x1b" 40% physical free, low on space; a 40% physical free`},
		{Status{Volumes: []VolumeStatus{volume("a"), volume("b"), volume("c"), volume("d"), volume("e", Degraded)}},
			"e 40% physical free, degraded; a 40% physical free; b 40% physical free; 2 more volumes"},
		{Status{Problems: []Problem{{Volume: "x"}}}, "1 not served, see gvirstor status"},
		{Status{Volumes: []VolumeStatus{volume("a")}, Problems: []Problem{{}, {}}}, "2 not served, see gvirstor status; a 40% physical free"},
	} {
		if got := c.status.Headline(); got != c.want {
			t.Errorf("%+v: %q, want %q", c.status, got, c.want)
		}
	}
}
