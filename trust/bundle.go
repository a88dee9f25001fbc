package trust

import (
	"crypto/sha256"

	"livemend.dev/livemend/internal/cjson"
	"livemend.dev/livemend/internal/hextext"
)

// MaxBundle bounds a bundle, in bytes: both roots and the server keys.
const MaxBundle = 2*MaxRoot + 64<<10

// digestPrefix starts the text that pins a bundle.
const digestPrefix = "lmd1-"

const bundleWhat = "trust bundle"

// Bundle is everything that a new agent has to believe, pinned by one digest:
// the director's root, the portal's root and the keys of the servers to talk
// to. The caller must not change it.
type Bundle struct {
	Director      *DirectorRoot
	DirectorBytes []byte // the director root as a document of its own
	Portal        *Root
	PortalBytes   []byte   // the portal's root as a document of its own
	ServerKeys    []string // X25519 public keys, lower-case hex; each is one of the director root's
	value         cjson.Value
}

// NewBundle joins the parts and checks them as ParseBundle does.
func NewBundle(directorRoot, portalRoot []byte, serverKeys []string, schemes Schemes) (*Bundle, error) {
	director, err := parseEnvelope(directorRootWhat, directorRoot, MaxRoot)
	if err != nil {
		return nil, err
	}
	portal, err := parseEnvelope("root metadata", portalRoot, MaxRoot)
	if err != nil {
		return nil, err
	}
	return readBundle(cjson.Object(
		cjson.F("_type", cjson.String("trust-bundle")),
		cjson.F("director_root", director.value()),
		cjson.F("portal_root", portal.value()),
		cjson.F("server_keys", cjson.Strings(serverKeys))), schemes)
}

// ParseBundle reads what Encode wrote. Both roots must verify with their own
// keys and every server key must be one that the director root lists. The
// caller compares Digest with what it was given from a trusted side.
func ParseBundle(b []byte, schemes Schemes) (*Bundle, error) {
	if len(b) > MaxBundle {
		return nil, refuse(bundleWhat, ErrMalformed, "it is too long")
	}
	v, err := cjson.Parse(b)
	if err != nil {
		return nil, refuse(bundleWhat, ErrMalformed, err.Error())
	}
	return readBundle(v, schemes)
}

func readBundle(v cjson.Value, schemes Schemes) (*Bundle, error) {
	c := cjson.Fields(v)
	docType := c.Text("_type", maxWord)
	b := &Bundle{
		DirectorBytes: c.Value("director_root").JSON(),
		PortalBytes:   c.Value("portal_root").JSON(),
		ServerKeys:    c.Texts("server_keys", MaxChannelKeys, maxPublic),
		value:         v,
	}
	if err := c.Err(); err != nil {
		return nil, refuse(bundleWhat, ErrMalformed, err.Error())
	}
	if docType != "trust-bundle" || len(b.ServerKeys) == 0 {
		return nil, refuse(bundleWhat, ErrMalformed, "it is of another type or names no server")
	}
	var err error
	if b.Director, err = ParseDirectorRoot(b.DirectorBytes, schemes); err != nil {
		return nil, err
	}
	if b.Portal, err = ParseRoot(b.PortalBytes, schemes); err != nil {
		return nil, err
	}
	for _, k := range b.ServerKeys {
		if !b.Director.AllowsServer(k) {
			return nil, refuse(bundleWhat, ErrDisagree, "a server key is not in the director root")
		}
	}
	return b, nil
}

// Encode writes the bundle as JSON.
func (b *Bundle) Encode() []byte { return b.value.JSON() }

// Digest returns the text that pins the bundle: lmd1- and the SHA-256 of its
// canonical form in hex. Any other bundle has another digest.
func (b *Bundle) Digest() string {
	sum := sha256.Sum256(b.value.Canonical())
	return digestPrefix + hextext.Encode(sum[:])
}
