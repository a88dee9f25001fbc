package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"sync"
	"testing"

	"livemend.dev/livemend/trust"
	"livemend.dev/livemend/trust/repo"
)

// signer is a key of the simulated repository.
type signer struct {
	id     string
	public trust.PublicKey
	sign   func(message []byte) []byte
}

func newSigner(t *testing.T, scheme string) signer {
	t.Helper()
	s := signer{}
	var key crypto.Signer
	var err error
	switch scheme {
	case "ed25519":
		_, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		s.public = trust.PublicKey{Type: "ed25519", Scheme: scheme, Public: hex.EncodeToString(private.Public().(ed25519.PublicKey))}
		s.sign = func(m []byte) []byte { return ed25519.Sign(private, m) }
		s.id = repo.KeyID(s.public)
		return s
	case "ecdsa-sha2-nistp256":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		s.public.Type = "ecdsa"
	case "rsassa-pss-sha256":
		key, err = oneRSA()
		s.public.Type = "rsa"
	default:
		t.Fatalf("no such scheme: %s", scheme)
	}
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	s.public.Scheme = scheme
	s.public.Public = string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	s.id = repo.KeyID(s.public)
	var options crypto.SignerOpts = crypto.SHA256
	if scheme == "rsassa-pss-sha256" {
		options = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
	}
	s.sign = func(m []byte) []byte {
		sum := sha256.Sum256(m)
		sig, err := key.Sign(rand.Reader, sum[:], options)
		if err != nil {
			t.Fatal(err)
		}
		return sig
	}
	return s
}

// oneRSA is the only RSA key, because making one takes long.
var oneRSA = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

// newKey is a key of the scheme that most repositories use.
func newKey(t *testing.T) signer {
	t.Helper()
	return newSigner(t, "ecdsa-sha2-nistp256")
}
