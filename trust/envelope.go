package trust

import (
	"crypto/ed25519"
	"strconv"
	"strings"

	"livemend.dev/livemend/internal/cjson"
	"livemend.dev/livemend/internal/hextext"
)

// Limits on the parts of an envelope.
const (
	maxKeyID     = 256   // bytes
	maxSignature = 4096  // hexadecimal characters
	maxPublic    = 8192  // bytes; PEM of a large RSA key fits
	maxWord      = 64    // bytes of a type or scheme
	maxThreshold = 1_000 // far above MaxKeys: such a role can simply never be satisfied
)

// VerifyFunc reports whether sig is a signature by public over message. It must
// accept one spelling of a public key only, apart from white space: keys are
// counted by their text. It must not panic on any input.
type VerifyFunc func(public string, message, sig []byte) bool

// Schemes maps the name of a TUF signature scheme to its verification. A key of
// a scheme that is not in the map never counts.
type Schemes map[string]VerifyFunc

// Ed25519 returns the one scheme that the agent links.
func Ed25519() Schemes { return Schemes{"ed25519": verifyEd25519} }

func verifyEd25519(public string, message, sig []byte) bool {
	key, ok := hextext.Decode(public)
	return ok && len(key) == ed25519.PublicKeySize && len(sig) == ed25519.SignatureSize &&
		ed25519.Verify(key, message, sig)
}

// Signature is one signature of an Envelope.
type Signature struct {
	KeyID string
	Sig   []byte // nil when it is not hexadecimal; such a signature never counts
}

// Envelope is a signed document: {"signatures": […], "signed": …}. Signatures
// are over the canonical form of the value that was parsed, so what is verified
// and what is read can not differ.
type Envelope struct {
	Signed     cjson.Value
	Signatures []Signature
	what       string
}

// ParseEnvelope reads an envelope of at most max bytes. It verifies nothing.
func ParseEnvelope(b []byte, max int) (*Envelope, error) {
	return parseEnvelope("signed document", b, max)
}

func parseEnvelope(what string, b []byte, max int) (*Envelope, error) {
	if len(b) > max {
		return nil, refuse(what, ErrMalformed, "more than "+strconv.Itoa(max)+" bytes")
	}
	v, err := cjson.Parse(b)
	if err != nil {
		return nil, refuse(what, ErrMalformed, err.Error())
	}
	c := cjson.Fields(v)
	e := &Envelope{Signed: c.Value("signed"), what: what}
	seen := make(map[string]bool)
	for _, item := range c.Items("signatures", MaxSignatures) {
		s := c.Nested("signatures", item)
		sig := Signature{KeyID: s.Text("keyid", maxKeyID)}
		text := s.Text("sig", maxSignature)
		if seen[sig.KeyID] && c.Err() == nil {
			return nil, refuse(what, ErrMalformed, "two signatures with the same keyid")
		}
		seen[sig.KeyID] = true
		sig.Sig, _ = hextext.Decode(text)
		e.Signatures = append(e.Signatures, sig)
	}
	if err := c.Err(); err != nil {
		return nil, refuse(what, ErrMalformed, err.Error())
	}
	if e.Signed.Kind() != cjson.Map {
		return nil, refuse(what, ErrMalformed, "signed is not an object")
	}
	return e, nil
}

// Message returns the bytes that signatures are made over.
func (e *Envelope) Message() []byte { return e.Signed.Canonical() }

// Encode writes the envelope as JSON.
func (e *Envelope) Encode() []byte { return e.value().JSON() }

func (e *Envelope) value() cjson.Value {
	sigs := make([]cjson.Value, len(e.Signatures))
	for i, s := range e.Signatures {
		sigs[i] = cjson.Object(
			cjson.F("keyid", cjson.String(s.KeyID)),
			cjson.F("sig", cjson.String(hextext.Encode(s.Sig))))
	}
	return cjson.Object(
		cjson.F("signatures", cjson.Array(sigs...)),
		cjson.F("signed", e.Signed))
}

// Role is the keys of a role and how many of them must sign.
type Role struct {
	KeyIDs    []string
	Threshold int
}

// verify returns nil when at least the threshold of different keys of the role
// signed. Keys are told apart by themselves, not by their identifiers: two
// identifiers of one key count once.
func (e *Envelope) verify(keys map[string]PublicKey, role Role, schemes Schemes) error {
	message := e.Message()
	counted := make(map[string]bool)
	foreign := false
	for _, s := range e.Signatures {
		if !contains(role.KeyIDs, s.KeyID) {
			continue
		}
		key, ok := keys[s.KeyID]
		if !ok {
			continue
		}
		check, ok := schemes[key.Scheme]
		if !ok {
			foreign = true
			continue
		}
		if s.Sig != nil && check(key.Public, message, s.Sig) {
			counted[key.identity()] = true
		}
	}
	if role.Threshold >= 1 && len(counted) >= role.Threshold {
		return nil
	}
	detail := strconv.Itoa(len(counted)) + " of " + strconv.Itoa(role.Threshold)
	if foreign {
		return refuse(e.what, ErrScheme, detail+" signatures count without it")
	}
	return refuse(e.what, ErrThreshold, detail)
}

// identity is what makes a key the same key, whatever it is called and whatever
// scheme it is used with.
func (k PublicKey) identity() string { return strings.Join(strings.Fields(k.Public), "") }

// Value returns the key as a TUF key object.
func (k PublicKey) Value() cjson.Value {
	return cjson.Object(
		cjson.F("keytype", cjson.String(k.Type)),
		cjson.F("keyval", cjson.Object(cjson.F("public", cjson.String(k.Public)))),
		cjson.F("scheme", cjson.String(k.Scheme)))
}

func parseKeys(c cjson.Cursor) map[string]PublicKey {
	members := c.Value("keys").Members()
	if len(members) > MaxKeys {
		c.Fail("keys", cjson.ErrSize)
		return nil
	}
	keys := make(map[string]PublicKey, len(members))
	for _, m := range members {
		k := c.Nested("keys", m.Value)
		key := PublicKey{
			Type:   k.Text("keytype", maxWord),
			Scheme: k.Text("scheme", maxWord),
			Public: k.Object("keyval").OptText("public", maxPublic),
		}
		// Keys of schemes that are not known here may have other fields. They
		// are no mistake, and never count.
		if key.Public == "" && key.Scheme == "ed25519" {
			c.Fail("public", cjson.ErrField)
		}
		keys[m.Name] = key
	}
	return keys
}

func parseRole(c cjson.Cursor, name string) Role { return readRole(c.Object(name), name) }

// readRole reads the keys and the threshold that stand in the object of a role.
func readRole(c cjson.Cursor, name string) Role {
	role := Role{KeyIDs: c.Texts("keyids", MaxKeys, maxKeyID)}
	n := c.Int("threshold")
	if n < 1 || n > maxThreshold {
		c.Fail(name+" threshold", cjson.ErrField)
		return role
	}
	role.Threshold = int(n)
	for i, id := range role.KeyIDs {
		if contains(role.KeyIDs[:i], id) {
			c.Fail(name+" keyids", cjson.ErrDuplicate)
		}
	}
	return role
}

func contains(list []string, s string) bool {
	for _, have := range list {
		if have == s {
			return true
		}
	}
	return false
}
