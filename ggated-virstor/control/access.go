package control

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
)

// Access is what a request has the daemon open, and what it is done with.
type Access struct {
	Open []string // while the request lasts
	Keep []string // until a request drops them
	Drop []string
}

// AccessOf tells which providers a request names, and for what. A request that it
// does not know, or that is malformed, names none.
func AccessOf(method, escapedPath string, body []byte) Access {
	if method != http.MethodPost {
		return Access{}
	}
	in := func(q any) bool { return decode(bytes.NewReader(body), q) == nil }
	parts := strings.Split(escapedPath, "/")
	switch {
	case len(parts) == 3 && parts[0] == "" && parts[1] == "v1":
		return daemonAccess(parts[2], in)
	case len(parts) == 5 && parts[0] == "" && parts[1] == "v1" && parts[2] == "volumes":
		return volumeAccess(parts[4], in)
	}
	return Access{}
}

func daemonAccess(verb string, in func(any) bool) Access {
	switch verb {
	case "serve":
		if q := (ServeRequest{}); in(&q) {
			return Access{Open: q.Providers}
		}
	case "release":
		if q := (ReleaseRequest{}); in(&q) {
			return Access{Drop: q.Providers}
		}
	}
	return Access{}
}

func volumeAccess(verb string, in func(any) bool) Access {
	switch verb {
	case "add":
		if q := (AddRequest{}); in(&q) {
			return Access{Open: q.Providers}
		}
	case "identify":
		if q := (IdentifyRequest{}); in(&q) {
			return Access{Open: q.Providers}
		}
	case "remove":
		if q := (RemoveRequest{}); in(&q) {
			return Access{Drop: q.Providers}
		}
	case "spare":
		q := SpareRequest{}
		switch {
		case !in(&q):
		case q.Remove:
			return Access{Drop: q.Providers}
		default:
			// A spare that fails is tried again later.
			return Access{Open: q.Providers, Keep: q.Providers}
		}
	case "jobs":
		q := JobRequest{}
		var a JobArgs
		if in(&q) && q.Kind == "replace" && json.Unmarshal(q.Args, &a) == nil && a.Target != "" {
			return Access{Open: []string{a.Target}}
		}
	}
	return Access{}
}
