// Package repo writes what package trust reads: keys, root and targets
// metadata, and the portal's published repository; and the same for a tenant's
// director. It must not decide what may be believed: everything it is given
// and everything it publishes passes through package trust.
package repo

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"livemend.dev/livemend/trust"
)

var errPending = errors.New("not built yet")

// Signer signs with one private key.
type Signer interface {
	Public() trust.PublicKey
	Sign(ctx context.Context, message []byte) ([]byte, error)
}

// KeyID is the identifier that this package gives a key.
func KeyID(k trust.PublicKey) string { return "" }

// KeyFile is an Ed25519 private key from a file. It is a Signer.
type KeyFile struct{}

// CreateKey makes a key and writes it to a new file that only its owner may read.
func CreateKey(path string) (*KeyFile, error) { return nil, errPending }

// LoadKey reads a key file.
func LoadKey(path string) (*KeyFile, error) { return nil, errPending }

// Public implements Signer.
func (k *KeyFile) Public() trust.PublicKey { return trust.PublicKey{} }

// Sign implements Signer.
func (k *KeyFile) Sign(ctx context.Context, message []byte) ([]byte, error) { return nil, errPending }

// RootSpec describes root metadata to be made.
type RootSpec struct {
	Version          int64
	Expires          time.Time
	RootKeys         []trust.PublicKey
	RootThreshold    int
	TargetsKeys      []trust.PublicKey
	TargetsThreshold int
	Snapshot         trust.PublicKey
	Timestamp        trust.PublicKey
}

// NewRoot returns unsigned root metadata.
func NewRoot(spec RootSpec) ([]byte, error) { return nil, errPending }

// NewTargets returns unsigned, empty targets metadata of version 1.
func NewTargets(expires time.Time) ([]byte, error) { return nil, errPending }

// AddTarget returns the next version of a targets document with t added or
// replaced. Signatures are gone: sign again.
func AddTarget(doc []byte, t trust.Target, expires time.Time) ([]byte, error) { return nil, errPending }

// RemoveTarget returns the next version without path.
func RemoveTarget(doc []byte, path string, expires time.Time) ([]byte, error) { return nil, errPending }

// Sign adds a signature by each signer to a document.
func Sign(ctx context.Context, doc []byte, signers ...Signer) ([]byte, error) { return nil, errPending }

// DirectorSpec describes a director root to be made.
type DirectorSpec struct {
	Version           int64
	Expires           time.Time
	RootKeys          []trust.PublicKey
	RootThreshold     int
	DirectorKeys      []trust.PublicKey
	DirectorThreshold int
	ChannelKeys       []string // X25519 public keys, lower-case hex
}

// NewDirectorRoot returns an unsigned director root.
func NewDirectorRoot(spec DirectorSpec) ([]byte, error) { return nil, errPending }

// CreateChannelKey makes an X25519 key file and returns private and public key.
func CreateChannelKey(path string) (private, public []byte, err error) { return nil, nil, errPending }

// LoadChannelKey reads an X25519 key file.
func LoadChannelKey(path string) (private, public []byte, err error) { return nil, nil, errPending }

// Repository is a published repository in a folder: metadata files at its top,
// artifacts below targets/. Safe for concurrent use, also by several processes.
type Repository struct{}

// Online signs the two roles that are renewed by machine.
type Online struct {
	Snapshot  Signer
	Timestamp Signer
}

// Open opens the repository in dir, which may be empty.
func Open(dir string, online Online) (*Repository, error) { return nil, errPending }

// Init publishes the first root and the first targets metadata. It changes
// nothing when the same root is published already.
func (r *Repository) Init(ctx context.Context, root, targets []byte, now time.Time) error {
	return errPending
}

// Publish makes signedTargets the current targets metadata. Artifacts holds the
// new files under their target paths.
func (r *Repository) Publish(ctx context.Context, signedTargets []byte, artifacts fs.FS, now time.Time) error {
	return errPending
}

// PublishRoot makes the next root version public.
func (r *Repository) PublishRoot(ctx context.Context, signedRoot []byte, now time.Time) error {
	return errPending
}

// Renew signs timestamp and snapshot again when they are past half their life;
// renewed says whether it did.
func (r *Repository) Renew(ctx context.Context, now time.Time) (renewed bool, err error) {
	return false, errPending
}

// Trusted returns the published state, verified as any client would.
func (r *Repository) Trusted(now time.Time) (*trust.Trusted, error) { return nil, errPending }
