package slim

import (
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math"

	"golang.org/x/crypto/chacha20poly1305"

	"livemend.dev/livemend/channel"
)

var errNonces = errors.New("the connection has carried all the messages that its keys allow: connect again")

// cipherState seals or opens messages with one key and a counter.
type cipherState struct {
	aead  cipher.AEAD
	nonce uint64
}

func newCipherState(key [32]byte) (*cipherState, error) {
	aead, err := chacha20poly1305.New(key[:])
	if err != nil {
		return nil, err
	}
	return &cipherState{aead: aead}, nil
}

// next returns the nonce of the next message: 32 zero bits, then the counter.
func (c *cipherState) next() ([]byte, error) {
	if c.nonce == math.MaxUint64 {
		return nil, errNonces
	}
	var n [chacha20poly1305.NonceSize]byte
	binary.LittleEndian.PutUint64(n[4:], c.nonce)
	c.nonce++
	return n[:], nil
}

// Encrypt implements channel.Cipher.
func (c *cipherState) Encrypt(out, ad, plaintext []byte) ([]byte, error) {
	nonce, err := c.next()
	if err != nil {
		return nil, err
	}
	return c.aead.Seal(out, nonce, plaintext, ad), nil
}

// Decrypt implements channel.Cipher. A message that does not open uses up its
// nonce; the connection is closed then anyway.
func (c *cipherState) Decrypt(out, ad, ciphertext []byte) ([]byte, error) {
	nonce, err := c.next()
	if err != nil {
		return nil, err
	}
	return c.aead.Open(out, nonce, ciphertext, ad)
}

// symmetricState is the running hash and key of a handshake (Noise
// specification, revision 34, section 5.2).
type symmetricState struct {
	hash   [sha256.Size]byte
	chain  [sha256.Size]byte
	cipher *cipherState // nil until the first mixKey
}

func newSymmetricState() *symmetricState {
	s := &symmetricState{}
	if len(channel.Noise) <= len(s.hash) {
		copy(s.hash[:], channel.Noise)
	} else {
		s.hash = sha256.Sum256([]byte(channel.Noise))
	}
	s.chain = s.hash
	s.mixHash([]byte(channel.Prologue))
	return s
}

func (s *symmetricState) mixHash(data []byte) {
	h := sha256.New()
	h.Write(s.hash[:])
	h.Write(data)
	h.Sum(s.hash[:0])
}

// mixKey takes the shared secret of two keys into the key.
func (s *symmetricState) mixKey(private, public [keySize]byte) error {
	secret, err := shared(private, public)
	if err != nil {
		return err
	}
	var key [32]byte
	s.chain, key = derive(s.chain, secret[:])
	s.cipher, err = newCipherState(key)
	return err
}

func (s *symmetricState) sealAndHash(out, plaintext []byte) ([]byte, error) {
	start := len(out)
	out, err := s.cipher.Encrypt(out, s.hash[:], plaintext)
	if err != nil {
		return nil, err
	}
	s.mixHash(out[start:])
	return out, nil
}

func (s *symmetricState) openAndHash(ciphertext []byte) ([]byte, error) {
	plaintext, err := s.cipher.Decrypt(nil, s.hash[:], ciphertext)
	if err != nil {
		return nil, err
	}
	s.mixHash(ciphertext)
	return plaintext, nil
}

// split returns the ciphers of both directions: the initiator's first.
func (s *symmetricState) split() (initiator, responder *cipherState, err error) {
	k1, k2 := derive(s.chain, nil)
	if initiator, err = newCipherState(k1); err != nil {
		return nil, nil, err
	}
	responder, err = newCipherState(k2)
	return initiator, responder, err
}

// derive is the specification's HKDF with two outputs.
func derive(chain [32]byte, input []byte) (first, second [32]byte) {
	var temp [32]byte
	mac(temp[:0], chain[:], input)
	mac(first[:0], temp[:], []byte{1})
	mac(second[:0], temp[:], first[:], []byte{2})
	return first, second
}

// mac is HMAC-SHA-256 with a key of at most one block. Package crypto/hmac would
// bring all the hashes that it knows.
func mac(out, key []byte, parts ...[]byte) {
	var inner, outer [sha256.BlockSize]byte
	copy(inner[:], key)
	copy(outer[:], key)
	for i := range inner {
		inner[i] ^= 0x36
		outer[i] ^= 0x5c
	}
	h := sha256.New()
	h.Write(inner[:])
	for _, p := range parts {
		h.Write(p)
	}
	sum := h.Sum(nil)
	h.Reset()
	h.Write(outer[:])
	h.Write(sum)
	h.Sum(out)
}
