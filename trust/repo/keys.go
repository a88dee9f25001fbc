package repo

import (
	"context"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"livemend.dev/livemend/trust"
)

// The types of key in a key file.
const (
	typeEd25519 = "ed25519"
	typeX25519  = "x25519"
)

// maxKeyFile bounds a key file, in bytes.
const maxKeyFile = 4096

// keyFile is the JSON of a key file. Private is the 32-byte seed or scalar.
type keyFile struct {
	Type    string `json:"keytype"`
	Public  string `json:"public"`
	Private string `json:"private"`
}

// KeyID is the identifier that this package gives a key: the SHA-256 of its
// canonical TUF key object. Readers must not rely on that.
func KeyID(k trust.PublicKey) string {
	sum := sha256.Sum256(k.Value().Canonical())
	return hex.EncodeToString(sum[:])
}

// KeyFile is an Ed25519 private key from a file. It is a Signer. Formatting it
// does not show the private half.
type KeyFile struct {
	private ed25519.PrivateKey
}

// CreateKey makes a key and writes it durably to a new file that only its owner
// may read. It never replaces a file.
func CreateKey(path string) (*KeyFile, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	if err := writeKey(path, typeEd25519, public, private.Seed()); err != nil {
		return nil, err
	}
	return &KeyFile{private}, nil
}

// LoadKey reads a key file. It refuses one that others than its owner may read
// or write.
func LoadKey(path string) (*KeyFile, error) {
	seed, public, err := readKey(path, typeEd25519, ed25519.SeedSize)
	if err != nil {
		return nil, err
	}
	private := ed25519.NewKeyFromSeed(seed)
	if !private.Public().(ed25519.PublicKey).Equal(ed25519.PublicKey(public)) {
		return nil, fmt.Errorf("%w: %s: the two halves do not belong together", ErrKeyFile, path)
	}
	return &KeyFile{private}, nil
}

// Public implements Signer.
func (k *KeyFile) Public() trust.PublicKey {
	return ed25519Key(k.private.Public().(ed25519.PublicKey))
}

// Sign implements Signer.
func (k *KeyFile) Sign(_ context.Context, message []byte) ([]byte, error) {
	return ed25519.Sign(k.private, message), nil
}

// String names the key by its public half.
func (k *KeyFile) String() string { return "ed25519 key " + k.Public().Public }

// GoString is String, so that no format shows the private half.
func (k *KeyFile) GoString() string { return k.String() }

func ed25519Key(public ed25519.PublicKey) trust.PublicKey {
	return trust.PublicKey{Type: typeEd25519, Scheme: typeEd25519, Public: hex.EncodeToString(public)}
}

// CreateChannelKey makes an X25519 key, writes it like CreateKey and returns
// both halves, 32 bytes each.
func CreateChannelKey(path string) (private, public []byte, err error) {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("making a channel key: %w", err)
	}
	private, public = key.Bytes(), key.PublicKey().Bytes()
	if err := writeKey(path, typeX25519, public, private); err != nil {
		return nil, nil, err
	}
	return private, public, nil
}

// LoadChannelKey reads a file that CreateChannelKey wrote.
func LoadChannelKey(path string) (private, public []byte, err error) {
	private, public, err = readKey(path, typeX25519, 32)
	if err != nil {
		return nil, nil, err
	}
	key, err := ecdh.X25519().NewPrivateKey(private)
	if err != nil || hex.EncodeToString(key.PublicKey().Bytes()) != hex.EncodeToString(public) {
		return nil, nil, fmt.Errorf("%w: %s: the two halves do not belong together", ErrKeyFile, path)
	}
	return private, public, nil
}

func writeKey(path, keyType string, public, private []byte) error {
	text, err := json.MarshalIndent(keyFile{keyType, hex.EncodeToString(public), hex.EncodeToString(private)}, "", "  ")
	if err != nil {
		return fmt.Errorf("writing a key file: %w", err)
	}
	return writeNew(path, append(text, '\n'), 0o600)
}

// writeNew writes a new file durably; it fails when there is one already.
func writeNew(path string, b []byte, mode os.FileMode) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return fmt.Errorf("writing a new file: %w", err)
	}
	_, err = file.Write(b)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", path, errors.Join(err, os.Remove(path)))
	}
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("making %s durable: %w", path, err)
	}
	if err := errors.Join(folder.Sync(), folder.Close()); err != nil {
		return fmt.Errorf("making %s durable: %w", path, err)
	}
	return nil
}

func readKey(path, keyType string, size int) (private, public []byte, err error) {
	bad := func(why string) error { return fmt.Errorf("%w: %s: %s", ErrKeyFile, path, why) }
	file, err := os.Open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("reading a key file: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	info, err := file.Stat()
	if err != nil {
		return nil, nil, fmt.Errorf("reading a key file: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, nil, bad("others than its owner have rights on it; run chmod 600 on it, and replace the key if somebody could have read it")
	}
	text, err := io.ReadAll(io.LimitReader(file, maxKeyFile))
	if err != nil {
		return nil, nil, fmt.Errorf("reading a key file: %w", err)
	}
	var k keyFile
	if err := json.Unmarshal(text, &k); err != nil {
		return nil, nil, bad("it is not JSON") // the parser's error could quote the key
	}
	if k.Type != keyType {
		return nil, nil, bad("it holds no " + keyType + " key")
	}
	private, err1 := hex.DecodeString(k.Private)
	public, err2 := hex.DecodeString(k.Public)
	if err1 != nil || err2 != nil || len(private) != size || len(public) != 32 {
		return nil, nil, bad("a half of the key has the wrong size")
	}
	return private, public, nil
}
