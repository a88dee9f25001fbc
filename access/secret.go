package access

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
)

// Sizes of passwords, in characters, and of the secrets made here, in bytes.
const (
	MinPassword   = 12
	MaxPassword   = 200
	secretBytes   = 32 // session secrets and API tokens
	oneTimeBytes  = 15 // one-time passwords: 120 bits, 24 characters
	saltBytes     = 16
	passwordBytes = 32
)

// The cost of argon2id: 19 MiB and two passes, about 30 ms. The values travel
// with each hash, so that they can be raised.
const (
	argonMemory  = 19 << 10 // KiB
	argonPasses  = 2
	argonThreads = 1
)

// Bounds of what a stored hash may ask for, so that a manipulated one cannot
// eat the machine.
const (
	maxArgonMemory = 256 << 10
	maxArgonPasses = 10
)

// TokenPrefix starts every API token, so that leaked ones can be searched for.
const TokenPrefix = "lmapi_"

// readable has no letters that look alike.
var readable = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// CheckPassword returns ErrWeak when a new password is too short or too long.
func CheckPassword(password string) error {
	if n := utf8.RuneCountInString(password); n < MinPassword || n > MaxPassword {
		return ErrWeak
	}
	return nil
}

// HashPassword returns what to store for a password: argon2id with a salt from
// random, in the PHC text form.
func HashPassword(password string, random io.Reader) (string, error) {
	salt := make([]byte, saltBytes)
	if _, err := io.ReadFull(random, salt); err != nil {
		return "", fmt.Errorf("reading randomness: %w", err)
	}
	sum := argon2.IDKey([]byte(password), salt, argonPasses, argonMemory, argonThreads, passwordBytes)
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonPasses, argonThreads,
		base64.RawStdEncoding.EncodeToString(salt), base64.RawStdEncoding.EncodeToString(sum)), nil
}

// VerifyPassword reports whether a password fits a stored hash. The error says
// that the hash itself cannot be read. The time it takes tells nothing about
// where the two differ.
func VerifyPassword(hash, password string) (bool, error) {
	parts := strings.Split(hash, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" {
		return false, errors.New("the stored password hash is of an unknown kind")
	}
	var version, memory, passes, threads int
	if _, err := fmt.Sscanf(parts[2]+" "+parts[3], "v=%d m=%d,t=%d,p=%d", &version, &memory, &passes, &threads); err != nil {
		return false, fmt.Errorf("the stored password hash cannot be read: %w", err)
	}
	if version != argon2.Version || memory < 1 || memory > maxArgonMemory || passes < 1 || passes > maxArgonPasses || threads < 1 || threads > 16 {
		return false, errors.New("the stored password hash asks for a cost that is not allowed")
	}
	salt, err := base64.RawStdEncoding.DecodeString(parts[4])
	if err != nil {
		return false, fmt.Errorf("the salt of the stored password hash cannot be read: %w", err)
	}
	want, err := base64.RawStdEncoding.DecodeString(parts[5])
	if err != nil || len(want) != passwordBytes {
		return false, errors.New("the sum of the stored password hash cannot be read")
	}
	if utf8.RuneCountInString(password) > MaxPassword {
		return false, nil
	}
	got := argon2.IDKey([]byte(password), salt, uint32(passes), uint32(memory), uint8(threads), passwordBytes)
	return subtle.ConstantTimeCompare(got, want) == 1, nil
}

// OneTimePassword makes a password for a first sign-in, in groups that people
// can type.
func OneTimePassword(random io.Reader) (string, error) {
	raw := make([]byte, oneTimeBytes)
	if _, err := io.ReadFull(random, raw); err != nil {
		return "", fmt.Errorf("reading randomness: %w", err)
	}
	text := readable.EncodeToString(raw)
	var groups []string
	for ; len(text) > 0; text = text[min(6, len(text)):] {
		groups = append(groups, text[:min(6, len(text))])
	}
	return strings.Join(groups, "-"), nil
}

// NewSecret makes a session's secret. Store HashSecret of it.
func NewSecret(random io.Reader) (string, error) {
	raw := make([]byte, secretBytes)
	if _, err := io.ReadFull(random, raw); err != nil {
		return "", fmt.Errorf("reading randomness: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(raw), nil
}

// NewToken makes an API token. Store HashSecret of it.
func NewToken(random io.Reader) (string, error) {
	secret, err := NewSecret(random)
	return TokenPrefix + secret, err
}

// HashSecret returns what to store for a secret that was made here. It has 256
// random bits, so a plain hash cannot be turned round.
func HashSecret(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}
