package schemes_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"strings"
	"testing"

	"livemend.dev/livemend/trust/schemes"
)

var message = []byte("what is signed")

func pemOf(t testing.TB, public any) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func signECDSA(t testing.TB, curve elliptic.Curve) (public string, sig []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(message)
	if sig, err = ecdsa.SignASN1(rand.Reader, key, sum[:]); err != nil {
		t.Fatal(err)
	}
	return pemOf(t, key.Public()), sig
}

func signRSA(t testing.TB, bits, salt int) (public string, sig []byte) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(message)
	if sig, err = rsa.SignPSS(rand.Reader, key, crypto.SHA256, sum[:], &rsa.PSSOptions{SaltLength: salt}); err != nil {
		t.Fatal(err)
	}
	return pemOf(t, key.Public()), sig
}

func TestSchemes(t *testing.T) {
	ec, ecSig := signECDSA(t, elliptic.P256())
	other, otherSig := signECDSA(t, elliptic.P384())
	rsaKey, rsaSig := signRSA(t, 2048, rsa.PSSSaltLengthEqualsHash)
	long, longSig := signRSA(t, 2048, rsa.PSSSaltLengthAuto)
	weak, weakSig := signRSA(t, 1024, rsa.PSSSaltLengthEqualsHash)
	for _, tt := range []struct {
		name, scheme, public string
		sig                  []byte
		want                 bool
	}{
		{"ecdsa", "ecdsa-sha2-nistp256", ec, ecSig, true},
		{"rsa, salt as long as the hash", "rsassa-pss-sha256", rsaKey, rsaSig, true},
		{"rsa, longest salt", "rsassa-pss-sha256", long, longSig, true},
		{"another curve", "ecdsa-sha2-nistp256", other, otherSig, false},
		{"weak rsa", "rsassa-pss-sha256", weak, weakSig, false},
		{"rsa key as ecdsa", "ecdsa-sha2-nistp256", rsaKey, rsaSig, false},
		{"ecdsa key as rsa", "rsassa-pss-sha256", ec, ecSig, false},
		{"another key's signature", "rsassa-pss-sha256", rsaKey, longSig, false},
		{"no signature", "ecdsa-sha2-nistp256", ec, nil, false},
		{"no key", "ecdsa-sha2-nistp256", "", ecSig, false},
		{"without the last line's end", "ecdsa-sha2-nistp256", strings.TrimSpace(ec), ecSig, true},
		{"with other line ends", "ecdsa-sha2-nistp256", strings.ReplaceAll(ec, "\n", "\r\n"), ecSig, true},
		{"two keys", "ecdsa-sha2-nistp256", ec + other, ecSig, false},
		{"something before", "ecdsa-sha2-nistp256", "x\n" + ec, ecSig, false},
		{"a header", "ecdsa-sha2-nistp256", strings.Replace(ec, "-----\n", "-----\nA: b\n\n", 1), ecSig, false},
		{"another type", "ecdsa-sha2-nistp256", strings.ReplaceAll(ec, "PUBLIC KEY", "EC KEY"), ecSig, false},
		{"hex instead of PEM", "ecdsa-sha2-nistp256", hex.EncodeToString([]byte(ec)), ecSig, false},
	} {
		verify := schemes.All()[tt.scheme]
		if got := verify(tt.public, message, tt.sig); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
		if verify(tt.public, []byte("something else"), tt.sig) {
			t.Errorf("%s: holds for another message", tt.name)
		}
	}
}

// TestOneKeyHasOneText tries every other letter in every place of a key: none
// may give the same key in another spelling.
func TestOneKeyHasOneText(t *testing.T) {
	public, sig := signECDSA(t, elliptic.P256())
	verify := schemes.All()["ecdsa-sha2-nistp256"]
	for i := range public {
		for c := byte(' '); c < 0x7f; c++ {
			changed := []byte(public)
			changed[i] = c
			same := strings.Join(strings.Fields(string(changed)), "") == strings.Join(strings.Fields(public), "")
			if !same && verify(string(changed), message, sig) {
				t.Errorf("byte %d as %q still is the key", i, c)
			}
		}
	}
}

func TestEveryFlippedBitOfASignature(t *testing.T) {
	ec, ecSig := signECDSA(t, elliptic.P256())
	rsaKey, rsaSig := signRSA(t, 2048, rsa.PSSSaltLengthEqualsHash)
	for _, tt := range []struct {
		scheme, public string
		sig            []byte
	}{{"ecdsa-sha2-nistp256", ec, ecSig}, {"rsassa-pss-sha256", rsaKey, rsaSig}} {
		verify := schemes.All()[tt.scheme]
		for bit := range 8 * len(tt.sig) {
			changed := bytes.Clone(tt.sig)
			changed[bit/8] ^= 1 << (bit % 8)
			if verify(tt.public, message, changed) {
				t.Errorf("%s: bit %d flipped and it holds", tt.scheme, bit)
			}
		}
		for n := range tt.sig {
			if verify(tt.public, message, tt.sig[:n]) {
				t.Errorf("%s: the first %d bytes hold", tt.scheme, n)
			}
		}
	}
}

// FuzzVerify looks for a panic, and for a signature that nobody made.
func FuzzVerify(f *testing.F) {
	public, sig := signECDSA(f, elliptic.P256())
	f.Add(public, sig)
	f.Add("-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n-----END PUBLIC KEY-----\n", []byte{0x30, 6, 2, 1, 1, 2, 1, 1})
	f.Fuzz(func(t *testing.T, key string, sig []byte) {
		nobody := []byte("a message that no test signs: " + key)
		for name, verify := range schemes.All() {
			if verify(key, nobody, sig) {
				t.Errorf("%s holds without anybody's signature", name)
			}
		}
	})
}
