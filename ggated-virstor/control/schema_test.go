package control

import (
	"encoding/json"
	"errors"
	"testing"
)

func TestEveryObjectSaysItsSchemaFirst(t *testing.T) {
	for want, a := range map[string]any{
		`{"schema":1}`:                struct{}{},
		`{"schema":1,"clients":null}`: Clients{},
		`{"schema":1,"level":"<&>","since":"0001-01-01T00:00:00Z","text":""}`: Alert{Level: "<&>"},
	} {
		b, err := MarshalJSON(a)
		if err != nil || string(b) != want || !json.Valid(b) {
			t.Errorf("%+v is %s, %v", a, b, err)
		}
	}
	for _, a := range []any{[]int{}, nil, 7, "x"} {
		if b, err := MarshalJSON(a); !errors.Is(err, errNoObject) {
			t.Errorf("%v is %s, %v", a, b, err)
		}
	}
	if b, err := MarshalJSON(make(chan int)); err == nil {
		t.Errorf("a channel is %s", b)
	}
}
