package slim

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"testing"
)

func key(t *testing.T, text string) [keySize]byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != keySize {
		t.Fatalf("%q is no key", text)
	}
	return [keySize]byte(b)
}

// Vectors of RFC 7748, section 5.2.
func TestX25519Vectors(t *testing.T) {
	for _, tt := range []struct{ scalar, point, want string }{
		{"a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4", "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c", "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"},
		{"4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d", "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493", "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957"},
	} {
		if got := x25519(key(t, tt.scalar), key(t, tt.point)); got != key(t, tt.want) {
			t.Errorf("x25519(%s, %s) = %x, want %s", tt.scalar, tt.point, got, tt.want)
		}
	}
	k, u := basePoint, basePoint
	for i := 1; i <= 1000; i++ {
		k, u = x25519(k, u), k
		want := map[int]string{
			1:    "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079",
			1000: "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51",
		}[i]
		if want != "" && k != key(t, want) {
			t.Errorf("after %d rounds: %x, want %s", i, k, want)
		}
	}
}

// The standard library's X25519 is the judge for random keys and random
// points, canonical or not.
func TestX25519AgainstTheStandardLibrary(t *testing.T) {
	for range 300 {
		var scalar, point [keySize]byte
		for _, b := range [][]byte{scalar[:], point[:]} {
			if _, err := rand.Read(b); err != nil {
				t.Fatal(err)
			}
		}
		private, err := ecdh.X25519().NewPrivateKey(scalar[:])
		if err != nil {
			t.Fatal(err)
		}
		if own := Public(scalar); !bytes.Equal(own[:], private.PublicKey().Bytes()) {
			t.Fatalf("Public(%x) = %x, want %x", scalar, own, private.PublicKey().Bytes())
		}
		public, err := ecdh.X25519().NewPublicKey(point[:])
		if err != nil {
			t.Fatal(err)
		}
		want, err := private.ECDH(public)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := shared(scalar, point); err != nil || !bytes.Equal(got[:], want) {
			t.Fatalf("shared(%x, %x) = %x, %v, want %x", scalar, point, got, err, want)
		}
	}
}

// lowOrder lists the points whose order is small, in every encoding of 32
// bytes whose top bit is clear.
var lowOrder = []string{
	"0000000000000000000000000000000000000000000000000000000000000000",
	"0100000000000000000000000000000000000000000000000000000000000000",
	"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
	"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
}

func TestSharedRefusesLowOrderPoints(t *testing.T) {
	var private [keySize]byte
	if _, err := rand.Read(private[:]); err != nil {
		t.Fatal(err)
	}
	for _, text := range lowOrder {
		for _, top := range []byte{0, 0x80} {
			point := key(t, text)
			point[31] |= top
			if got, err := shared(private, point); !errors.Is(err, errLowOrder) {
				t.Errorf("shared(…, %x) = %x, %v, want errLowOrder", point, got, err)
			}
		}
	}
}
