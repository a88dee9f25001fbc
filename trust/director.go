package trust

import (
	"time"

	"livemend.dev/livemend/internal/cjson"
	"livemend.dev/livemend/internal/hextext"
)

// MaxChannelKeys bounds how many server keys a director root may list.
const MaxChannelKeys = 64

const directorRootWhat = "director root"

// DirectorRoot names a tenant's director keys and the channel keys of the
// servers that may speak for it. It is signed offline. The caller must not
// change it.
type DirectorRoot struct {
	Version     int64
	Expires     time.Time
	Keys        map[string]PublicKey
	Root        Role
	Director    Role
	ChannelKeys []string // X25519 public keys, lower-case hex
	schemes     Schemes
}

// ParseDirectorRoot reads a director root and verifies it with its own keys.
// Whether it is to be trusted is for the caller to know: a bundle pins it.
func ParseDirectorRoot(b []byte, schemes Schemes) (*DirectorRoot, error) {
	e, r, err := parseDirectorRoot(b, schemes)
	if err != nil {
		return nil, err
	}
	if err := e.verify(r.Keys, r.Root, schemes); err != nil {
		return nil, err
	}
	return r, nil
}

func parseDirectorRoot(b []byte, schemes Schemes) (*Envelope, *DirectorRoot, error) {
	const what = directorRootWhat
	e, err := parseEnvelope(what, b, MaxRoot)
	if err != nil {
		return nil, nil, err
	}
	c := cjson.Fields(e.Signed)
	h, err := readHead(what, c, "director-root")
	if err != nil {
		return nil, nil, err
	}
	roles := c.Object("roles")
	r := &DirectorRoot{
		Version:     h.version,
		Expires:     h.expires,
		Keys:        parseKeys(c),
		Root:        parseRole(roles, "root"),
		Director:    parseRole(roles, "director"),
		ChannelKeys: c.Texts("channel_keys", MaxChannelKeys, maxPublic),
		schemes:     schemes,
	}
	for _, k := range r.ChannelKeys {
		if !hextext.Is(k, 32) {
			c.Fail("channel_keys", cjson.ErrField)
		}
	}
	if err := c.Err(); err != nil {
		return nil, nil, refuse(what, ErrMalformed, err.Error())
	}
	return e, r, nil
}

// UpdateDirectorRoot verifies b as the director root that follows old: signed
// by enough of the old root keys and of the new ones, one version higher. Its
// expiry is not looked at, since it may be followed by another; VerifyManifest
// looks.
func UpdateDirectorRoot(old *DirectorRoot, b []byte) (*DirectorRoot, error) {
	e, r, err := parseDirectorRoot(b, old.schemes)
	if err != nil {
		return nil, err
	}
	if err := e.verify(old.Keys, old.Root, old.schemes); err != nil {
		return nil, err
	}
	if err := e.verify(r.Keys, r.Root, old.schemes); err != nil {
		return nil, err
	}
	if err := follows(directorRootWhat, old.Version, r.Version); err != nil {
		return nil, err
	}
	return r, nil
}

// AllowsServer reports whether the server with this X25519 public key, in
// lower-case hex, may speak for the director.
func (r *DirectorRoot) AllowsServer(channelKey string) bool {
	return contains(r.ChannelKeys, channelKey)
}

// Value returns the director root as its signed value.
func (r *DirectorRoot) Value() cjson.Value {
	return cjson.Object(
		cjson.F("_type", cjson.String("director-root")),
		cjson.F("spec_version", cjson.String(SpecVersion)),
		cjson.F("version", cjson.Int(r.Version)),
		cjson.F("expires", cjson.String(FormatTime(r.Expires))),
		cjson.F("keys", keysValue(r.Keys)),
		cjson.F("roles", cjson.Object(
			cjson.F("root", r.Root.value()),
			cjson.F("director", r.Director.value()))),
		cjson.F("channel_keys", cjson.Strings(r.ChannelKeys)))
}
