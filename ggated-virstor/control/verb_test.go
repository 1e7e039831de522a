package control

import (
	"context"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

// types are the names of Q and A, empty for None.
func (v *verb[Q, A]) types() (request, answer string) {
	name := func(t reflect.Type) string {
		if t == reflect.TypeFor[None]() {
			return ""
		}
		return t.Name()
	}
	return name(reflect.TypeFor[Q]()), name(reflect.TypeFor[A]())
}

// page is the table as the page of the API shows it.
func page() string {
	var b strings.Builder
	for _, r := range rows() {
		method, path, _ := strings.Cut(r.pattern(), " ")
		request, answer := r.(interface{ types() (string, string) }).types()
		if answer != "" {
			answer = " -> " + answer
		}
		line := fmt.Sprintf("%-6s %-28s %s", method, strings.ReplaceAll(path, "{name}", "NAME"), strings.TrimSpace(request+answer))
		b.WriteString("//\t" + strings.TrimRight(line, " ") + "\n")
	}
	return b.String()
}

func TestThePageOfTheAPIShowsTheTable(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	if want := page(); !strings.Contains(string(doc), "\n//\n"+want+"//\n") {
		t.Errorf("doc.go shows another table than:\n%s", want)
	}
}

func TestEachVerbIsARowOfTheTable(t *testing.T) {
	seen := make(map[string]bool)
	for _, r := range rows() {
		if seen[r.pattern()] {
			t.Errorf("%s is there twice", r.pattern())
		}
		seen[r.pattern()] = true
	}
	if verbs := reflect.TypeFor[Verbs]().NumMethod(); verbs != len(seen) {
		t.Errorf("%d verbs, %d rows", verbs, len(seen))
	}
}

// askedOf is a Backend whose verbs tell which row they went through.
type askedOf struct {
	*Client
	Hub
}

// ask calls a verb of c by its name, with a request that makes sense.
func ask(t *testing.T, c *Client, verb string) {
	t.Helper()
	method := reflect.ValueOf(c).MethodByName(verb)
	args := []reflect.Value{reflect.ValueOf(t.Context())}
	for i := 1; i < method.Type().NumIn(); i++ {
		arg := reflect.New(method.Type().In(i)).Elem()
		switch arg.Kind() {
		case reflect.String:
			arg.SetString("vol")
		case reflect.Struct:
			if f := arg.FieldByName("Providers"); f.IsValid() {
				f.Set(reflect.ValueOf([]string{"ada4"}))
			}
			if f := arg.FieldByName("Kind"); f.IsValid() {
				f.SetString("pack")
			}
		}
		args = append(args, arg)
	}
	results := method.Call(args)
	if err, failed := results[len(results)-1].Interface().(error); failed {
		t.Errorf("%s: %v", verb, err)
	}
}

func TestEachVerbOfAClientReachesTheSameOfTheBackend(t *testing.T) {
	var there, here Call
	b := &askedOf{Client: NewClient(func(_ context.Context, c Call) error {
		there = c
		return nil
	})}
	c, err := Dial(startServer(t, b, limits{read: time.Minute, write: time.Minute, idle: time.Minute, heartbeat: time.Minute}))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	wire := c.do
	c.do = func(ctx context.Context, call Call) error {
		here = call
		return wire(ctx, call)
	}
	seen := make(map[string]string)
	verbs := reflect.TypeFor[Verbs]()
	for i := range verbs.NumMethod() {
		verb := verbs.Method(i).Name
		there, here = Call{}, Call{}
		ask(t, c, verb)
		if here.Verb != there.Verb || here.Name != there.Name || !reflect.DeepEqual(here.Request, there.Request) {
			t.Errorf("%s asks %+v, and %+v arrives", verb, here, there)
		}
		if other, twice := seen[here.Verb]; twice {
			t.Errorf("%s and %s go through one row, %s", other, verb, here.Verb)
		}
		seen[here.Verb] = verb
	}
}
