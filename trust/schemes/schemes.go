// Package schemes has the signature schemes of the TUF specification beside
// Ed25519: ecdsa-sha2-nistp256 and rsassa-pss-sha256.
//
// They are for readers of other people's repositories. Livemend's own documents
// are signed with Ed25519 alone, and the agent must never link this package: it
// would accept more, and its package would grow by a quarter. Like package
// trust it is pure, and nothing in it may panic on any input.
package schemes

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"strings"

	"livemend.dev/livemend/trust"
)

// The sizes of an RSA modulus that are taken, in bits. Below are keys that can
// be broken, above are keys that only cost time.
const (
	MinRSA = 2048
	MaxRSA = 8192
)

// All returns every scheme that the TUF specification names.
func All() trust.Schemes {
	all := trust.Ed25519()
	all["ecdsa-sha2-nistp256"] = verifyECDSA
	all["rsassa-pss-sha256"] = verifyRSAPSS
	return all
}

func verifyECDSA(public string, message, sig []byte) bool {
	key, ok := parse(public).(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return false
	}
	sum := sha256.Sum256(message)
	return ecdsa.VerifyASN1(key, sum[:], sig)
}

func verifyRSAPSS(public string, message, sig []byte) bool {
	key, ok := parse(public).(*rsa.PublicKey)
	if !ok || key.N.BitLen() < MinRSA || key.N.BitLen() > MaxRSA {
		return false
	}
	sum := sha256.Sum256(message)
	// The specification leaves the length of the salt to the signer.
	return rsa.VerifyPSS(key, crypto.SHA256, sum[:], sig, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthAuto}) == nil
}

// parse reads a public key in PEM, nil when it is none. Keys are counted by
// their text, so one key may have one text only: what would be written in
// another way is refused. White space may differ.
func parse(public string) crypto.PublicKey {
	block, rest := pem.Decode([]byte(public))
	if block == nil || len(bytes.TrimSpace(rest)) > 0 {
		return nil
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil
	}
	once := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	if squeeze(string(once)) != squeeze(public) {
		return nil
	}
	return key
}

func squeeze(s string) string { return strings.Join(strings.Fields(s), "") }
