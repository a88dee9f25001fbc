package platform

import (
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"
)

// vault encrypts the texts of registration keys. Each is bound to its
// organisation and id, so rows cannot be swapped.
type vault struct{ aead cipher.AEAD }

func newVault(key []byte) (*vault, error) {
	if len(key) != MasterKeySize {
		return nil, fmt.Errorf("the master key has %d bytes instead of %d", len(key), MasterKeySize)
	}
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		return nil, fmt.Errorf("using the master key: %w", err)
	}
	return &vault{aead}, nil
}

func (v *vault) seal(org, id, text string) []byte {
	nonce := make([]byte, v.aead.NonceSize(), v.aead.NonceSize()+len(text)+v.aead.Overhead())
	rand.Read(nonce) // never fails: it ends the program when the system has no randomness
	return v.aead.Seal(nonce, nonce, []byte(text), boundTo(org, id))
}

func (v *vault) open(org, id string, sealed []byte) (string, error) {
	n := v.aead.NonceSize()
	if len(sealed) < n {
		return "", errors.New("the stored key is too short")
	}
	text, err := v.aead.Open(nil, sealed[:n], sealed[n:], boundTo(org, id))
	if err != nil {
		return "", errors.New("the stored key does not open with this master key: the key file or the row is another")
	}
	return string(text), nil
}

func boundTo(org, id string) []byte { return []byte("livemend registration key\n" + org + "\n" + id) }
