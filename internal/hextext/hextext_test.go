package hextext_test

import (
	"bytes"
	"encoding/hex"
	"testing"

	"livemend.dev/livemend/internal/hextext"
)

func TestAgainstTheStandardLibrary(t *testing.T) {
	for n := range 300 {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(i * 7)
		}
		text := hextext.Encode(b)
		if text != hex.EncodeToString(b) {
			t.Fatalf("Encode of %d bytes = %s", n, text)
		}
		if got, ok := hextext.Decode(text); !ok || !bytes.Equal(got, b) {
			t.Fatalf("Decode(%s) = %x, %v", text, got, ok)
		}
		if !hextext.Is(text, n) || hextext.Is(text, n+1) {
			t.Fatalf("Is is wrong for %d bytes", n)
		}
	}
}

func TestRefusesOtherSpellings(t *testing.T) {
	for _, s := range []string{"a", "AB", "0g", "0x12", " ab", "a\x00"} {
		if b, ok := hextext.Decode(s); ok {
			t.Errorf("Decode(%q) = %x", s, b)
		}
		if hextext.Is(s, len(s)/2) {
			t.Errorf("Is(%q)", s)
		}
	}
}
