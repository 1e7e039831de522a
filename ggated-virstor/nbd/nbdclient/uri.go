package nbdclient

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/internal/proto"
)

// Schemes are those of NBD URIs.
func Schemes() []string { return []string{"nbd", "nbds", "nbd+unix", "nbds+unix"} }

// URI is where an export is, as an NBD URI says it (doc/uri.md of the
// NetworkBlockDevice/nbd project).
type URI struct {
	Network string // tcp or unix
	Addr    string // HOST:PORT, or the path of a socket
	Export  string
	TLS     bool // TLS must be turned on

	// The rest is about TLS. ServerName is whom the server's certificate must be
	// for; empty: the host, which is localhost at the other end of a Unix socket.
	ServerName string
	// Unverified believes any certificate.
	Unverified bool
	// Certificates is a folder of this client's own certificate and of those that
	// sign servers' (tls-certificates, as libnbd has it), or empty.
	Certificates string
}

// ErrURI means that a name is no NBD URI, or one that asks for what is not to be had
// here.
var ErrURI = errors.New("not an NBD URI that can be used")

// ParseURI reads an NBD URI. Its errors (ErrURI) do not repeat what may be a secret.
func ParseURI(s string) (URI, error) {
	u, err := parseURI(s)
	if err != nil {
		return URI{}, fmt.Errorf("%s: %w: %w", withoutUser(s), ErrURI, err)
	}
	return u, nil
}

// withoutUser is a URI without what is said of a user in it.
func withoutUser(s string) string {
	scheme, rest, found := strings.Cut(s, "://")
	end := strings.IndexAny(rest+"/", "/?#")
	at := strings.LastIndexByte(rest[:end], '@')
	if !found || at < 0 {
		return s
	}
	return scheme + "://" + rest[at+1:]
}

func parseURI(s string) (u URI, err error) {
	p, err := url.Parse(s)
	var inner *url.Error
	if errors.As(err, &inner) { // which has all of s in it
		return u, inner.Err
	}
	switch {
	case err != nil:
		return u, err
	case p.Opaque != "" || !strings.Contains(s, "://"):
		return u, errors.New("SCHEME:// is needed")
	case p.User != nil:
		return u, errors.New("a user's name is for TLS with keys that both sides have (PSK), which is not offered: use certificates")
	case p.Fragment != "" || strings.HasSuffix(s, "#"):
		return u, errors.New("nothing can follow a #: write %23")
	}
	u.Network, u.TLS = "tcp", p.Scheme == "nbds" || p.Scheme == "nbds+unix"
	u.Export = strings.TrimPrefix(p.Path, "/")
	if strings.Contains(u.Export, "\x00") || len(u.Export) > proto.MaxString {
		return u, fmt.Errorf("an export's name has no zero byte, and at most %d bytes", proto.MaxString)
	}
	switch p.Scheme {
	case "nbd+unix", "nbds+unix":
		u.Network = "unix"
		if p.Host != "" {
			return u, errors.New("a Unix socket is on no host: three slashes are needed, SCHEME:///EXPORT?socket=PATH")
		}
	case "nbd", "nbds":
		if u.Addr, err = hostPort(p); err != nil {
			return u, err
		}
	default:
		return u, errors.New("the scheme must be one of " + strings.Join(Schemes(), ", "))
	}
	if err := u.query(p.RawQuery); err != nil {
		return u, err
	}
	if u.Network == "unix" && u.Addr == "" {
		return u, errors.New("?socket=PATH is needed")
	}
	return u, nil
}

// hostPort is the address that a URI names.
func hostPort(p *url.URL) (string, error) {
	host, port := p.Hostname(), p.Port()
	if host == "" {
		return "", errors.New("a host is needed")
	}
	if strings.Contains(host, ":") && p.Host[0] != '[' {
		return "", errors.New("an address with colons is written in brackets")
	}
	if strings.ContainsFunc(host, func(c rune) bool { return c <= ' ' || c >= 0x7f || strings.ContainsRune(`"/<>?#@\^`+"`{|}", c) }) {
		return "", errors.New("a host has neither spaces nor signs that mean something in a URI")
	}
	if strings.HasSuffix(p.Host, ":") || port == "" {
		port = proto.DefaultPort
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("port %s: a number from 1 to 65535 is needed", port)
	}
	return net.JoinHostPort(strings.ToLower(host), port), nil
}

// query takes the parameters of a URI. In one a + is a +, and no space (RFC 3986).
func (u *URI) query(raw string) error {
	seen := make(map[string]bool)
	for pair := range strings.SplitSeq(raw, "&") {
		if pair == "" {
			continue
		}
		k, v, _ := strings.Cut(pair, "=")
		key, err := url.PathUnescape(k)
		if err != nil {
			return err
		}
		value, err := url.PathUnescape(v)
		if err != nil {
			return err
		}
		if seen[key] {
			return fmt.Errorf("parameter %s is there twice", strconv.Quote(key))
		}
		seen[key] = true
		if err := u.parameter(key, value); err != nil {
			return err
		}
	}
	return nil
}

func (u *URI) parameter(key, value string) error {
	switch key {
	case "socket":
		if u.Network != "unix" {
			return errors.New("socket= is for nbd+unix and nbds+unix")
		}
		if value == "" || strings.Contains(value[1:], "\x00") {
			return errors.New("socket= needs a path without zero bytes")
		}
		u.Addr = value
		return nil
	case "tls-type", "tls-hostname", "tls-verify-peer", "tls-certificates":
		if !u.TLS {
			return fmt.Errorf("%s= is for nbds and nbds+unix", key)
		}
	default:
		return fmt.Errorf("parameter %s is not known", strconv.Quote(key))
	}
	switch {
	case key == "tls-type" && value != "x509":
		return fmt.Errorf("tls-type=%s is not offered: x509 is", value)
	case key == "tls-verify-peer" && value != "0" && value != "1":
		return fmt.Errorf("tls-verify-peer=%s: 0 or 1 is needed", value)
	case key == "tls-verify-peer":
		u.Unverified = value == "0"
	case key == "tls-hostname":
		u.ServerName = value
	case key == "tls-certificates":
		u.Certificates = value
	}
	return nil
}

// String is the one spelling of the URI: what means the same is spelled the same.
func (u URI) String() string {
	var b strings.Builder
	b.WriteString("nbd")
	if u.TLS {
		b.WriteString("s")
	}
	query := []string{}
	if u.Network == "unix" {
		b.WriteString("+unix:///")
		query = append(query, "socket="+Escape(u.Addr))
	} else {
		b.WriteString("://" + strings.ReplaceAll(strings.TrimSuffix(u.Addr, ":"+proto.DefaultPort), "%", "%25") + "/")
	}
	b.WriteString(Escape(u.Export))
	if u.Certificates != "" {
		query = append(query, "tls-certificates="+Escape(u.Certificates))
	}
	if u.ServerName != "" {
		query = append(query, "tls-hostname="+Escape(u.ServerName))
	}
	if u.Unverified {
		query = append(query, "tls-verify-peer=0")
	}
	if len(query) > 0 {
		b.WriteString("?" + strings.Join(query, "&"))
	}
	return b.String()
}

// Escape escapes all that could mean something in a URI, but for slashes.
func Escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-._~/", c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
