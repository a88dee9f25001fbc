// Package enrol holds the credentials with which a machine asks for a System
// ID: registration keys and one-use tokens. Both are an id and a secret; an
// Ed25519 pair is derived from the secret, and only its public half is stored
// by those who check it, so a stolen database enrols nobody and the secret
// never travels.
//
// The agent links this package: no fmt. Pure, except that Generate takes its
// randomness from the reader it is given.
package enrol

import (
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"io"
	"strings"
)

// Kind says what a credential is for.
type Kind string

// The kinds. The text of a credential starts with its kind.
const (
	Key   Kind = "lmk1" // registration key: for many machines, within its limits
	Token Kind = "lmt1" // for one machine, once
)

// Sizes of a credential's parts.
const (
	idChars     = 10
	secretBytes = 32
	sumBytes    = 4
	// MaxText bounds a credential's text, generously: kind, id, secret and sum are shorter.
	MaxText = 128
)

// Errors of this package. None of them holds any part of a secret.
var (
	ErrFormat = errors.New("this is no registration key or token: check that it was copied whole")
	ErrSum    = errors.New("the key or token was mistyped: its checksum does not fit")
	ErrProof  = errors.New("the proof does not fit the credential and this connection")
)

// alphabet is Crockford's base 32: no letters that look alike.
const alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// Credential is a registration key or a token with its secret. Its zero value
// is not usable. String deliberately leaves the secret out.
type Credential struct {
	kind   Kind
	id     string
	secret [secretBytes]byte
}

// Generate makes a new credential from random.
func Generate(kind Kind, random io.Reader) (Credential, error) {
	c := Credential{kind: kind}
	raw := make([]byte, idChars)
	if _, err := io.ReadFull(random, raw); err != nil {
		return Credential{}, err
	}
	if _, err := io.ReadFull(random, c.secret[:]); err != nil {
		return Credential{}, err
	}
	for i := range raw {
		raw[i] = alphabet[raw[i]&31]
	}
	c.id = string(raw)
	return c, nil
}

// Parse reads the text that Text wrote. Case does not matter and surrounding
// white space is ignored.
func Parse(text string) (Credential, error) {
	text = strings.TrimSpace(text)
	if len(text) > MaxText {
		return Credential{}, ErrFormat
	}
	kind, rest, ok := strings.Cut(text, "_")
	id, rest, ok2 := strings.Cut(rest, "_")
	secret, sum, ok3 := strings.Cut(rest, "_")
	c := Credential{kind: Kind(strings.ToLower(kind)), id: strings.ToUpper(id)}
	if !ok || !ok2 || !ok3 || c.kind != Key && c.kind != Token || !ValidID(c.id) {
		return Credential{}, ErrFormat
	}
	raw, ok := decode(strings.ToUpper(secret), secretBytes)
	if !ok {
		return Credential{}, ErrFormat
	}
	copy(c.secret[:], raw)
	if strings.ToUpper(sum) != c.sum() {
		return Credential{}, ErrSum
	}
	return c, nil
}

// ValidID reports whether id has the form of a credential's id.
func ValidID(id string) bool {
	if len(id) != idChars {
		return false
	}
	for i := 0; i < len(id); i++ {
		if strings.IndexByte(alphabet, id[i]) < 0 {
			return false
		}
	}
	return true
}

// Kind returns what the credential is for.
func (c Credential) Kind() Kind { return c.kind }

// ID returns the public name of the credential.
func (c Credential) ID() string { return c.id }

// Text returns the whole credential, secret included: show it once.
func (c Credential) Text() string {
	return string(c.kind) + "_" + c.id + "_" + encode(c.secret[:]) + "_" + c.sum()
}

// String returns the credential without its secret, so that a log line cannot
// leak it.
func (c Credential) String() string { return string(c.kind) + "_" + c.id + "_…" }

func (c Credential) sum() string {
	h := sha256.New()
	h.Write([]byte("livemend credential sum\n" + string(c.kind) + "\n" + c.id + "\n"))
	h.Write(c.secret[:])
	return encode(h.Sum(nil)[:sumBytes])
}

// private derives the Ed25519 key. The secret has 256 random bits, so one hash
// with a domain of its own is enough.
func (c Credential) private() ed25519.PrivateKey {
	h := sha256.New()
	h.Write([]byte("livemend credential key\n" + string(c.kind) + "\n" + c.id + "\n"))
	h.Write(c.secret[:])
	return ed25519.NewKeyFromSeed(h.Sum(nil))
}

// Public returns the half that a verifier stores.
func (c Credential) Public() ed25519.PublicKey {
	return c.private().Public().(ed25519.PublicKey)
}

// Binding is what an enrolment proof speaks about: this connection, these keys,
// this credential. A proof is worth nothing anywhere else.
type Binding struct {
	Challenge   []byte // the server's nonce
	Handshake   []byte // Noise handshake hash of the connection
	Credential  string // id of key or token, or a Customer ID
	IdentityKey []byte // the agent's Ed25519 public key
	ChannelKey  []byte // the agent's X25519 public key
}

// Bytes returns what is signed: every part with its length in front.
func (b Binding) Bytes() []byte {
	out := []byte("livemend enrolment 1\n")
	for _, part := range [][]byte{b.Challenge, b.Handshake, []byte(b.Credential), b.IdentityKey, b.ChannelKey} {
		n := len(part)
		out = append(out, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
		out = append(out, part...)
	}
	return out
}

// Prove signs b with the credential's derived key.
func (c Credential) Prove(b Binding) []byte { return ed25519.Sign(c.private(), b.Bytes()) }

// Verify checks a proof, by a credential or by an identity key, over b. It
// returns ErrProof when it does not fit.
func Verify(public ed25519.PublicKey, b Binding, proof []byte) error {
	if len(public) != ed25519.PublicKeySize || len(proof) != ed25519.SignatureSize ||
		!ed25519.Verify(public, b.Bytes(), proof) {
		return ErrProof
	}
	return nil
}

func encode(b []byte) string {
	out := make([]byte, 0, len(b)*8/5+1)
	acc, bits := uint(0), 0
	for _, c := range b {
		acc, bits = acc<<8|uint(c), bits+8
		for bits >= 5 {
			bits -= 5
			out = append(out, alphabet[acc>>bits&31])
		}
	}
	if bits > 0 {
		out = append(out, alphabet[acc<<(5-bits)&31])
	}
	return string(out)
}

func decode(s string, want int) ([]byte, bool) {
	if len(s) != (want*8+4)/5 {
		return nil, false
	}
	out := make([]byte, 0, want)
	acc, bits := uint(0), 0
	for i := 0; i < len(s); i++ {
		n := strings.IndexByte(alphabet, s[i])
		if n < 0 {
			return nil, false
		}
		acc, bits = acc<<5|uint(n), bits+5
		if bits >= 8 {
			bits -= 8
			out = append(out, byte(acc>>bits))
		}
	}
	return out, acc&(1<<bits-1) == 0 && len(out) == want
}
