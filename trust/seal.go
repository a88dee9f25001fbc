package trust

import (
	"crypto/ed25519"

	"livemend.dev/livemend/internal/cjson"
	"livemend.dev/livemend/internal/hextext"
)

// MaxSealed bounds a sealed document, in bytes.
const MaxSealed = 1 << 20

const sealedWhat = "sealed report"

// Seal signs value, under the name keyid of the key, and returns the envelope.
// Sign gets the canonical form of value and returns an Ed25519 signature.
func Seal(value cjson.Value, keyid string, sign func(message []byte) []byte) []byte {
	e := Envelope{Signed: value}
	e.Signatures = []Signature{{KeyID: keyid, Sig: sign(e.Message())}}
	return e.Encode()
}

// Open returns the value of an envelope that holds exactly one signature, by
// public. The keyid in it is not looked at: the caller knows whose key it is.
func Open(envelope []byte, public ed25519.PublicKey) (cjson.Value, error) {
	e, err := parseEnvelope(sealedWhat, envelope, MaxSealed)
	if err != nil {
		return cjson.Value{}, err
	}
	if len(e.Signatures) != 1 {
		return cjson.Value{}, refuse(sealedWhat, ErrMalformed, "it does not hold exactly one signature")
	}
	if !verifyEd25519(hextext.Encode(public), e.Message(), e.Signatures[0].Sig) {
		return cjson.Value{}, refuse(sealedWhat, ErrThreshold, "the signature is not by this system's key")
	}
	return e.Signed, nil
}
