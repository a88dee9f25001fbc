package trust

import (
	"crypto/ed25519"
	"errors"
	"io"
	"iter"
	"time"

	"livemend.dev/livemend/internal/cjson"
	"livemend.dev/livemend/patch"
)

var errPending = errors.New("not built yet")

// VerifyFunc reports whether sig is a signature by public over message.
type VerifyFunc func(public string, message, sig []byte) bool

// Schemes maps a TUF scheme name to its verification.
type Schemes map[string]VerifyFunc

// Ed25519 returns the one scheme that the agent links.
func Ed25519() Schemes { return nil }

// Signature is one signature of an Envelope.
type Signature struct {
	KeyID string
	Sig   []byte
}

// Envelope is a signed document.
type Envelope struct {
	Signed     cjson.Value
	Signatures []Signature
}

// ParseEnvelope reads an envelope of at most max bytes. It verifies nothing.
func ParseEnvelope(b []byte, max int) (*Envelope, error) { return nil, errPending }

// Message returns the bytes that are signed.
func (e *Envelope) Message() []byte { return nil }

// Encode writes the envelope as JSON.
func (e *Envelope) Encode() []byte { return nil }

// Role is the keys of a role and how many of them must sign.
type Role struct {
	KeyIDs    []string
	Threshold int
}

// Root is TUF root metadata that verified itself.
type Root struct {
	Version            int64
	Expires            time.Time
	ConsistentSnapshot bool
	Keys               map[string]PublicKey
	Roles              map[string]Role
}

// ParseRoot reads root metadata and verifies it with its own keys.
func ParseRoot(b []byte, schemes Schemes) (*Root, error) { return nil, errPending }

// Trusted is the state of a TUF client. Not for concurrent use while updating.
type Trusted struct{}

// NewTrusted starts from a root that is trusted already.
func NewTrusted(root []byte, schemes Schemes) (*Trusted, error) { return nil, errPending }

// UpdateRoot accepts the next root version.
func (t *Trusted) UpdateRoot(b []byte) error { return errPending }

// CheckRoot returns ErrExpired when the root is too old at now.
func (t *Trusted) CheckRoot(now time.Time) error { return errPending }

// RecallTimestamp takes a stored timestamp as the floor below which none is accepted.
func (t *Trusted) RecallTimestamp(b []byte) error { return errPending }

// UpdateTimestamp accepts a timestamp; changed is false when it is the one recalled.
func (t *Trusted) UpdateTimestamp(b []byte, now time.Time) (changed bool, err error) {
	return false, errPending
}

// RecallSnapshot takes a stored snapshot as a floor.
func (t *Trusted) RecallSnapshot(b []byte) error { return errPending }

// UpdateSnapshot accepts the snapshot that the timestamp announces.
func (t *Trusted) UpdateSnapshot(b []byte, now time.Time) error { return errPending }

// UpdateTargets accepts the targets metadata that the snapshot announces.
func (t *Trusted) UpdateTargets(b []byte, now time.Time) error { return errPending }

// RecallTargets takes stored targets metadata, verified by signature only: for
// what was admitted before.
func (t *Trusted) RecallTargets(b []byte) error { return errPending }

// Root returns the root in force.
func (t *Trusted) Root() *Root { return nil }

// SnapshotName returns the file name of the announced snapshot.
func (t *Trusted) SnapshotName() string { return "" }

// TargetsName returns the file name of the announced targets metadata.
func (t *Trusted) TargetsName() string { return "" }

// TargetsVersion returns the version of the targets metadata in force, 0 before.
func (t *Trusted) TargetsVersion() int64 { return 0 }

// Target returns what the repository says of path, or ErrNoTarget.
func (t *Trusted) Target(path string) (Target, error) { return Target{}, errPending }

// Targets iterates over all targets in order of their paths.
func (t *Trusted) Targets() iter.Seq[Target] { return func(func(Target) bool) {} }

// StorageName is the consistent-snapshot name of the target below the targets folder.
func (t Target) StorageName() string { return "" }

// CheckContent reads r to its end and compares with the target.
func CheckContent(t Target, r io.Reader) error { return errPending }

// Content verifies a target's bytes as they arrive: Write them in order, then Close.
type Content struct{}

// NewContent starts verifying.
func NewContent(t Target) *Content { return nil }

// Write refuses the byte that is one too many.
func (c *Content) Write(p []byte) (int, error) { return 0, errPending }

// Close returns ErrLength or ErrHash unless exactly the signed bytes were written.
func (c *Content) Close() error { return errPending }

// DirectorRoot names a tenant's director keys and its servers' channel keys.
type DirectorRoot struct {
	Version     int64
	Expires     time.Time
	Keys        map[string]PublicKey
	Root        Role
	Director    Role
	ChannelKeys []string // X25519 public keys, lower-case hex
}

// ParseDirectorRoot reads a director root and verifies it with its own keys.
func ParseDirectorRoot(b []byte, schemes Schemes) (*DirectorRoot, error) { return nil, errPending }

// UpdateDirectorRoot accepts the next version, signed by both old and new keys.
func UpdateDirectorRoot(old *DirectorRoot, b []byte) (*DirectorRoot, error) { return nil, errPending }

// Identity is the system that a manifest must be for.
type Identity struct {
	SystemID string
	KeyHash  string // SHA-256 of the identity public key, lower-case hex
}

// HashKey returns the KeyHash of an identity public key.
func HashKey(public ed25519.PublicKey) string { return "" }

// Value returns the manifest as the value that is signed.
func (m *Manifest) Value() cjson.Value { return cjson.Value{} }

// Check returns ErrMalformed or ErrNotFresh when the manifest may never be signed.
func (m *Manifest) Check() error { return errPending }

// ParseManifest reads a manifest's signed value; it verifies no signature.
func ParseManifest(v cjson.Value) (*Manifest, error) { return nil, errPending }

// VerifyManifest decides whether a manifest may be carried out by who at now.
func VerifyManifest(envelope []byte, root *DirectorRoot, who Identity, lastCounter int64, now time.Time) (*Manifest, error) {
	return nil, errPending
}

// RecallManifest verifies a manifest that was admitted before: signatures and
// system, neither counter nor time.
func RecallManifest(envelope []byte, root *DirectorRoot, who Identity) (*Manifest, error) {
	return nil, errPending
}

// Agree returns ErrDisagree unless manifest and repository name the same file.
// md is the target's patch metadata; nil for a scan. A revert needs no target.
func Agree(m *Manifest, t Target, md *patch.Metadata) error { return errPending }

// Bundle is everything a new agent has to believe, pinned by one digest.
type Bundle struct {
	Director      *DirectorRoot
	DirectorBytes []byte // the director root's file
	Portal        *Root
	PortalBytes   []byte   // the portal root's file
	ServerKeys    []string // X25519 public keys of the servers to connect to, lower-case hex
}

// NewBundle checks and joins the parts.
func NewBundle(directorRoot, portalRoot []byte, serverKeys []string, schemes Schemes) (*Bundle, error) {
	return nil, errPending
}

// ParseBundle reads what Encode wrote and verifies both roots by their own keys.
func ParseBundle(b []byte, schemes Schemes) (*Bundle, error) { return nil, errPending }

// Encode writes the bundle as JSON.
func (b *Bundle) Encode() []byte { return nil }

// Digest returns the text that pins the bundle: lmt1- and SHA-256 in hex.
func (b *Bundle) Digest() string { return "" }

// Seal signs value and returns the envelope.
func Seal(value cjson.Value, keyid string, sign func(message []byte) []byte) []byte { return nil }

// Open returns the value of an envelope that public signed.
func Open(envelope []byte, public ed25519.PublicKey) (cjson.Value, error) {
	return cjson.Value{}, errPending
}

// Class returns a short stable name of why err refused, "" for nil.
func Class(err error) string { return "" }
