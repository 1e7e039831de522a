package nbd

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Grant lets some clients use an export, or all exports.
type Grant struct {
	export   string // "*" for every one
	readOnly bool
	who      whoKind
	name     string // of the certificate, for whoTLS; "*" for any
	uid      uint32 // for whoUID
}

// whoKind says which clients a grant is for.
type whoKind int

const (
	whoAny  whoKind = iota
	whoUnix         // of a Unix socket
	whoUID          // of a Unix socket, running as a user
	whoTLS          // with a certificate that the authority has signed
)

// anyName stands for every export, and for every certificate.
const anyName = "*"

// ParseGrant reads EXPORT=MODE:WHO. EXPORT is an export's name, or "*" for every
// export. MODE is "rw" or "ro". WHO is
//
//	any       every client that may connect
//	unix      the clients of Unix sockets
//	uid:N     of these, the processes of user N
//	tls:NAME  clients with a certificate that the authority for clients has
//	          signed, and that bears NAME as its common name or as one of its
//	          alternative names (DNS, mail, URI); tls:* is any such certificate
//
// NAME is all that follows, and is compared byte by byte.
func ParseGrant(s string) (Grant, error) {
	wrong := func(why string) (Grant, error) {
		return Grant{}, fmt.Errorf("%q: EXPORT=ro:WHO or EXPORT=rw:WHO is needed: %s", s, why)
	}
	export, mode, who := cutGrant(s)
	switch {
	case mode == "":
		return wrong("there is neither =ro: nor =rw:")
	case export == "":
		return wrong("the export has no name (* is every export)")
	case len(export) > maxExportName || !utf8.ValidString(export) || containsNUL(export):
		return wrong(fmt.Sprintf("an export's name is at most %d bytes of UTF-8 without NUL", maxExportName))
	}
	g := Grant{export: export, readOnly: mode == "ro"}
	kind, arg, hasArg := strings.Cut(who, ":")
	switch {
	case who == "any":
		g.who = whoAny
	case who == "unix":
		g.who = whoUnix
	case kind == "uid" && hasArg:
		n, err := strconv.ParseUint(arg, 10, 32)
		if err != nil {
			return wrong("uid: takes the number of a user")
		}
		g.who, g.uid = whoUID, uint32(n)
	case kind == "tls" && arg != "":
		g.who, g.name = whoTLS, arg
	default:
		return wrong("WHO is any, unix, uid:N or tls:NAME")
	}
	return g, nil
}

// cutGrant cuts at the first "=ro:" or "=rw:". mode is empty where there is none.
func cutGrant(s string) (export, mode, who string) {
	for i := 0; i+4 <= len(s); i++ {
		switch s[i : i+4] {
		case "=ro:", "=rw:":
			return s[:i], s[i+1 : i+3], s[i+4:]
		}
	}
	return "", "", ""
}

// String is what ParseGrant reads.
func (g Grant) String() string {
	mode := "rw"
	if g.readOnly {
		mode = "ro"
	}
	who := "any"
	switch g.who {
	case whoUnix:
		who = "unix"
	case whoUID:
		who = "uid:" + strconv.FormatUint(uint64(g.uid), 10)
	case whoTLS:
		who = "tls:" + g.name
	}
	return g.export + "=" + mode + ":" + who
}

// NeedsAuthority says whether the grant is for clients with certificates, which
// there are only where Config.TLS verifies them.
func (g Grant) NeedsAuthority() bool { return g.who == whoTLS }

// permits says whether the grant is for that client and export.
func (g Grant) permits(id *identity, export string) bool {
	if g.export != anyName && g.export != export {
		return false
	}
	switch g.who {
	case whoAny:
		return true
	case whoUnix:
		return id.unix
	case whoUID:
		return id.unix && id.known && id.uid == g.uid
	case whoTLS:
		return id.cert != nil && (g.name == anyName || bears(id.cert, g.name))
	}
	return false
}

// bears says whether a certificate has that name.
func bears(cert *x509.Certificate, name string) bool {
	return name != "" && (cert.Subject.CommonName == name || slices.Contains(alternativeNames(cert), name))
}

func alternativeNames(cert *x509.Certificate) []string {
	names := append([]string(nil), cert.DNSNames...)
	names = append(names, cert.EmailAddresses...)
	for _, u := range cert.URIs {
		names = append(names, u.String())
	}
	return names
}

// errForbidden is what a client finds that no grant is for. It looks as if there
// were no such export, so that nobody learns names by trying.
var errForbidden = errors.New("no export of that name for this client")

// access is what a client may do with an export.
type access int

const (
	noAccess access = iota
	mayRead
	mayWrite
)

// accessOf is the widest that grants give. Without any grant all is given.
func accessOf(grants []Grant, id *identity, export string) access {
	if len(grants) == 0 {
		return mayWrite
	}
	best := noAccess
	for _, g := range grants {
		if !g.permits(id, export) {
			continue
		}
		if !g.readOnly {
			return mayWrite
		}
		best = mayRead
	}
	return best
}
