package enrol_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"strings"
	"testing"

	"livemend.dev/livemend/enrol"
)

func generate(t *testing.T, kind enrol.Kind) enrol.Credential {
	t.Helper()
	c, err := enrol.Generate(kind, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestTextRoundTrip(t *testing.T) {
	for _, kind := range []enrol.Kind{enrol.Key, enrol.Token} {
		for range 100 {
			c := generate(t, kind)
			for _, text := range []string{c.Text(), " " + strings.ToLower(c.Text()) + "\n"} {
				got, err := enrol.Parse(text)
				if err != nil {
					t.Fatalf("Parse(%q): %v", text, err)
				}
				if got != c || got.Kind() != kind || !enrol.ValidID(got.ID()) {
					t.Fatalf("Parse(%q) = %v, want %v", text, got, c)
				}
			}
		}
	}
}

func TestParseRefusesEveryMistypedCharacter(t *testing.T) {
	text := generate(t, enrol.Key).Text()
	for i := range text {
		wrong := []byte(text)
		wrong[i]++
		if strings.EqualFold(string(wrong), text) {
			continue
		}
		if c, err := enrol.Parse(string(wrong)); err == nil {
			t.Errorf("character %d changed: Parse accepted %v", i, c)
		}
		if _, err := enrol.Parse(text[:i]); err == nil {
			t.Errorf("Parse accepted the first %d characters", i)
		}
	}
	if _, err := enrol.Parse(strings.Repeat("A", 1<<20)); !errors.Is(err, enrol.ErrFormat) {
		t.Errorf("a megabyte of text: %v", err)
	}
}

func TestStringHidesTheSecret(t *testing.T) {
	c := generate(t, enrol.Key)
	if secret := strings.Split(c.Text(), "_")[2]; strings.Contains(c.String(), secret) {
		t.Error("String shows the secret")
	}
}

func TestProofIsBoundToEverything(t *testing.T) {
	c := generate(t, enrol.Key)
	b := enrol.Binding{
		Challenge: []byte("challenge"), Handshake: []byte("handshake"), Credential: c.ID(),
		IdentityKey: bytes.Repeat([]byte{1}, 32), ChannelKey: bytes.Repeat([]byte{2}, 32),
	}
	proof := c.Prove(b)
	if err := enrol.Verify(c.Public(), b, proof); err != nil {
		t.Fatalf("a good proof is refused: %v", err)
	}
	for name, change := range map[string]func(*enrol.Binding){
		"challenge":    func(b *enrol.Binding) { b.Challenge = []byte("other") },
		"handshake":    func(b *enrol.Binding) { b.Handshake = nil },
		"credential":   func(b *enrol.Binding) { b.Credential = "other" },
		"identity key": func(b *enrol.Binding) { b.IdentityKey = bytes.Repeat([]byte{3}, 32) },
		"channel key":  func(b *enrol.Binding) { b.ChannelKey = bytes.Repeat([]byte{3}, 32) },
		"moved border": func(b *enrol.Binding) { b.Challenge, b.Handshake = []byte("challengeh"), []byte("andshake") },
	} {
		other := b
		change(&other)
		if err := enrol.Verify(c.Public(), other, proof); !errors.Is(err, enrol.ErrProof) {
			t.Errorf("%s changed: %v, want ErrProof", name, err)
		}
	}
	if err := enrol.Verify(generate(t, enrol.Key).Public(), b, proof); !errors.Is(err, enrol.ErrProof) {
		t.Errorf("another key's proof: %v, want ErrProof", err)
	}
	for _, bad := range []ed25519.PublicKey{nil, make([]byte, 31)} {
		if err := enrol.Verify(bad, b, proof); !errors.Is(err, enrol.ErrProof) {
			t.Errorf("public key of %d bytes: %v, want ErrProof", len(bad), err)
		}
	}
}
