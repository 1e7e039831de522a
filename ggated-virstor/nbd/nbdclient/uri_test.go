package nbdclient

import (
	"errors"
	"strings"
	"testing"
)

func TestURIsAreReadAsTheirDocumentSays(t *testing.T) {
	for s, want := range map[string]URI{
		// The table of doc/uri.md.
		"nbd://example.com/disk":                 {Network: "tcp", Addr: "example.com:10809", Export: "disk"},
		"nbd+unix:///disk?socket=sock":           {Network: "unix", Addr: "sock", Export: "disk"},
		"nbd://example.com/":                     {Network: "tcp", Addr: "example.com:10809"},
		"nbd://example.com":                      {Network: "tcp", Addr: "example.com:10809"},
		"nbd://example.com//disk":                {Network: "tcp", Addr: "example.com:10809", Export: "/disk"},
		"nbd://example.com/hello%20world":        {Network: "tcp", Addr: "example.com:10809", Export: "hello world"},
		"nbd+unix:///?socket=%00/abstract":       {Network: "unix", Addr: "\x00/abstract"},
		"nbd+unix:///export?socket=nbd.sock":     {Network: "unix", Addr: "nbd.sock", Export: "export"},
		"nbd://example.com:10809/export":         {Network: "tcp", Addr: "example.com:10809", Export: "export"},
		"NBD://Example.COM:7/a%2fb":              {Network: "tcp", Addr: "example.com:7", Export: "a/b"},
		"nbd://[fe80::1]:5/x":                    {Network: "tcp", Addr: "[fe80::1]:5", Export: "x"},
		"nbd://[::1]/x":                          {Network: "tcp", Addr: "[::1]:10809", Export: "x"},
		"nbd+unix:///a+b?socket=/tmp/a+b%2Bc&":   {Network: "unix", Addr: "/tmp/a+b+c", Export: "a+b"},
		"nbds://h/x":                             {Network: "tcp", Addr: "h:10809", Export: "x", TLS: true},
		"nbds://h/x?tls-type=x509":               {Network: "tcp", Addr: "h:10809", Export: "x", TLS: true},
		"nbds+unix:///x?tls-hostname=h&socket=s": {Network: "unix", Addr: "s", Export: "x", TLS: true, ServerName: "h"},
		"nbds://h/?tls-verify-peer=0&tls-certificates=/etc/a": {Network: "tcp", Addr: "h:10809", TLS: true,
			Unverified: true, Certificates: "/etc/a"},
	} {
		u, err := ParseURI(s)
		if err != nil || u != want {
			t.Errorf("%s: %+v, %v, want %+v", s, u, err, want)
		}
		if again, err := ParseURI(u.String()); err != nil || again != u || again.String() != u.String() {
			t.Errorf("%s is %s, which is %+v, %v", s, u, again, err)
		}
	}
}

func TestWhatIsNoURIOfNBDIsRefusedInWords(t *testing.T) {
	for s, word := range map[string]string{
		"http://h/x":                           "scheme",
		"nbd:h":                                "SCHEME://",
		"/dev/da0":                             "SCHEME://",
		"nbd:///x":                             "host",
		"nbd://h:0/x":                          "port",
		"nbd://h:99999/x":                      "port",
		"nbd://h/x#y":                          "#",
		"nbd://h/x?y=1":                        `"y"`,
		"nbd://h/x?x-y=1":                      `"x-y"`,
		"nbd://h/x?socket=s":                   "socket=",
		"nbd://h/%00":                          "zero",
		"nbd+unix:///x":                        "socket=PATH",
		"nbd+unix:///x?socket=":                "path",
		"nbd+unix://h/x?socket=s":              "three slashes",
		"nbd+unix:///x?socket=s&socket=s":      "twice",
		"nbd+unix:///x?socket=%zz":             "escape",
		"nbd://h/x?tls-type=x509":              "nbds",
		"nbds://h/x?tls-type=psk":              "x509",
		"nbds://h/x?tls-type=anon":             "x509",
		"nbds://h/x?tls-verify-peer=yes":       "0 or 1",
		"nbds://me:hush@h/x?tls-type=psk":      "certificates",
		"nbds://me:hush@h:x/x":                 "port",
		"nbd://h/" + strings.Repeat("x", 4097): "4096",
	} {
		_, err := ParseURI(s)
		if !errors.Is(err, ErrURI) || !strings.Contains(err.Error(), word) {
			t.Errorf("%.60s: %.200v", s, err)
		}
		if err != nil && strings.Contains(err.Error(), "hush") {
			t.Errorf("what may be a secret is repeated: %v", err)
		}
	}
}

// FuzzParseURI: what is taken for a URI is spelled in one way, which is read as the same.
func FuzzParseURI(f *testing.F) {
	f.Add("nbd://example.com/disk")
	f.Add("nbds+unix:///a%2fb?socket=%00x&tls-hostname=h&tls-verify-peer=0&tls-certificates=/a")
	f.Add("nbd://[fe80::1%25x]:5//x")
	f.Add("nBd://::1")
	f.Fuzz(func(t *testing.T, s string) {
		u, err := ParseURI(s)
		if err != nil {
			return
		}
		if again, err := ParseURI(u.String()); err != nil || again != u || again.String() != u.String() {
			t.Errorf("%q is %q, which is %+v, %v", s, u, again, err)
		}
	})
}
