package state

import (
	"crypto/ed25519"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"livemend.dev/livemend/channel"
	"livemend.dev/livemend/channel/slim"
	"livemend.dev/livemend/internal/cjson"
	"livemend.dev/livemend/internal/entropy"
	"livemend.dev/livemend/internal/hextext"
	"livemend.dev/livemend/wire"
)

// Keys are the system's own: Identity signs, Channel makes connections. They
// never leave the state folder.
type Keys struct {
	Identity ed25519.PrivateKey
	Channel  [channel.KeySize]byte
}

// IdentityPublic returns the key that is the system's identity.
func (k Keys) IdentityPublic() ed25519.PublicKey { return k.Identity.Public().(ed25519.PublicKey) }

// ChannelPublic returns the key that the platform sees on a connection.
func (k Keys) ChannelPublic() [channel.KeySize]byte { return slim.Public(k.Channel) }

const keysFile = "keys.json"

// Keys returns the system's keys, ErrAbsent before MakeKeys.
func (s *Store) Keys() (Keys, error) {
	v, err := s.readJSON(keysFile)
	if err != nil {
		return Keys{}, err
	}
	c := cjson.Fields(v)
	identity, ok1 := hextext.Decode(c.Text("identity", 2*ed25519.SeedSize))
	secret, ok2 := hextext.Decode(c.Text("channel", 2*channel.KeySize))
	if err := c.Err(); err != nil {
		return Keys{}, damaged(keysFile, err)
	}
	if !ok1 || !ok2 || len(identity) != ed25519.SeedSize || len(secret) != channel.KeySize {
		return Keys{}, damaged(keysFile, errors.New("a key has the wrong length"))
	}
	return Keys{ed25519.NewKeyFromSeed(identity), [channel.KeySize]byte(secret)}, nil
}

// MakeKeys returns the system's keys and makes them when there are none yet.
func (s *Store) MakeKeys() (Keys, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k, err := s.Keys(); !errors.Is(err, ErrAbsent) {
		return k, err
	}
	var k Keys
	seed := make([]byte, ed25519.SeedSize)
	if err := entropy.Read(seed); err != nil {
		return Keys{}, err
	}
	if err := entropy.Read(k.Channel[:]); err != nil {
		return Keys{}, err
	}
	k.Identity = ed25519.NewKeyFromSeed(seed)
	return k, s.writeJSON(keysFile, cjson.Object(
		cjson.F("identity", cjson.String(hextext.Encode(seed))),
		cjson.F("channel", cjson.String(hextext.Encode(k.Channel[:])))))
}

// Enrolment is where this system belongs.
type Enrolment struct {
	Server   string // http://name:port
	SystemID string
	Customer string // display name
}

const enrolmentFile = "enrolment.json"

// Enrolment returns where the system belongs, ErrAbsent before SetEnrolment.
func (s *Store) Enrolment() (Enrolment, error) {
	v, err := s.readJSON(enrolmentFile)
	if err != nil {
		return Enrolment{}, err
	}
	c := cjson.Fields(v)
	e := Enrolment{Server: c.Text("server", wire.MaxMessage), SystemID: c.Text("system_id", wire.MaxID), Customer: c.Text("customer", wire.MaxMessage)}
	return e, damaged(enrolmentFile, c.Err())
}

// SetEnrolment records where the system belongs.
func (s *Store) SetEnrolment(e Enrolment) error {
	return s.writeJSON(enrolmentFile, cjson.Object(
		cjson.F("server", cjson.String(e.Server)),
		cjson.F("system_id", cjson.String(e.SystemID)),
		cjson.F("customer", cjson.String(e.Customer))))
}

// Files that package trust reads and writes; see Trusted and SetTrusted.
const (
	Bundle       = "bundle.json"
	DirectorRoot = "director-root.json"
)

// Trusted returns the file Bundle or DirectorRoot as it was stored, ErrAbsent
// when it was not. Its content verifies itself.
func (s *Store) Trusted(name string) ([]byte, error) { return s.read(name) }

// ForgetTrusted removes Bundle, DirectorRoot and the portal's metadata, durably.
// It is for a system that belongs nowhere yet.
func (s *Store) ForgetTrusted() error {
	var err error
	for _, name := range []string{Bundle, DirectorRoot} {
		if gone := os.Remove(filepath.Join(s.dir, name)); !errors.Is(gone, fs.ErrNotExist) {
			err = errors.Join(err, gone)
		}
	}
	return errors.Join(err, os.RemoveAll(s.RepositoryDir()), syncDir(s.dir))
}

// SetTrusted stores the file Bundle or DirectorRoot.
func (s *Store) SetTrusted(name string, b []byte) error { return s.write(name, b) }
