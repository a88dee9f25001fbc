// Package portal is the patch vendor's service: partners and their customers,
// registration keys, registered systems, and the publication of signed patches.
//
// This package holds the use cases. Whoever calls one is an Actor, made by
// Authenticate from a credential and by nothing else, so the tenant never comes
// from a request. It must not know HTTP (package portal/api) or SQL (package
// store/portaldb), and it never holds a private key: the repository's online
// keys are in a process of their own.
package portal

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"livemend.dev/livemend/blob"
	"livemend.dev/livemend/enrol"
	"livemend.dev/livemend/store"
	"livemend.dev/livemend/store/portaldb"
	"livemend.dev/livemend/trust/repo"
)

// Limits on what is taken. Lengths are bytes.
const (
	MaxName     = 200
	MaxServers  = 1_000_000 // of one registration key
	MaxArtifact = 64 << 20  // one file of the repository
	maxProof    = 1024      // a challenge, handshake hash or proof
)

// Kind says what is wrong, for programs.
type Kind string

// The kinds of refusal.
const (
	Invalid         Kind = "invalid"         // the request breaks a rule; it will not work unchanged
	Unauthenticated Kind = "unauthenticated" // no credential, or an unknown one
	Forbidden       Kind = "forbidden"       // the credential is not for this
	NotFound        Kind = "not-found"       // not there, or not the caller's: both look the same
	KeyRefused      Kind = "key-refused"     // the registration key does not register this server
	Conflict        Kind = "conflict"        // clashes with what is stored
)

// Error is a refusal. Detail is for people: what happened, what is safe, what
// to do next. Internal reasons are in the log only.
type Error struct {
	Kind   Kind
	Detail string
}

func (e *Error) Error() string { return e.Detail }

func refuse(kind Kind, detail string) error { return &Error{Kind: kind, Detail: detail} }

var (
	errNotFound = refuse(NotFound, "nothing of this name belongs to your account; list what does and use an id from there")
	// One text for every reason: whoever guesses keys learns nothing.
	errKeyRefused = refuse(KeyRefused, "the registration key does not register this server: it is unknown, disabled, expired or used up, or its proof does not fit; nothing was changed, check the key in the platform")
)

// Config is what a Service works with.
type Config struct {
	DB         *store.DB        // migrated
	Repository *repo.Repository // the published one
	Staging    *blob.Dir        // files that wait for their release
	Log        *slog.Logger
	Now        func() time.Time
}

// Service holds the portal's use cases. It is safe for concurrent use.
type Service struct {
	db      *store.DB
	repo    *repo.Repository
	staging *blob.Dir
	log     *slog.Logger
	now     func() time.Time
	nobody  ed25519.PublicKey // a key nobody has: an unknown registration key takes as long as a known one
}

// New makes the service.
func New(cfg Config) (*Service, error) {
	nobody, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	return &Service{db: cfg.DB, repo: cfg.Repository, staging: cfg.Staging, log: cfg.Log, now: cfg.Now, nobody: nobody}, nil
}

// alphabet is Crockford's base 32: no letters that look alike.
const alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// newID returns prefix and n random characters, 5 bits each.
func newID(prefix string, n int) (string, error) {
	raw := make([]byte, n)
	if _, err := rand.Read(raw); err != nil {
		return "", fmt.Errorf("reading random bytes: %w", err)
	}
	for i := range raw {
		raw[i] = alphabet[raw[i]&31]
	}
	return prefix + string(raw), nil
}

// Characters in the random part of each kind of id.
const (
	customerChars   = 8
	systemChars     = 12
	partnerChars    = 8
	credentialChars = 10
	auditChars      = 16
	maxCollisions   = 10 // ids drawn before something must be wrong
)

// insertNew draws ids until insert takes one.
func insertNew(prefix string, n int, insert func(id string) (bool, error)) error {
	for range maxCollisions {
		id, err := newID(prefix, n)
		if err != nil {
			return err
		}
		if taken, err := insert(id); err != nil || taken {
			return err
		}
	}
	return errors.New("no free id was found")
}

// record writes the audit entry of a deed into its transaction.
func (s *Service) record(ctx context.Context, tx *store.Tx, a Actor, action, object, detail string) error {
	id, err := newID("", auditChars)
	if err != nil {
		return err
	}
	return a.tenant.AddEntry(ctx, tx, portaldb.Entry{
		ID: id, At: s.now(), Actor: a.credential, Action: action, Object: object, Detail: detail,
	})
}

// validText reports whether s can be stored and shown: valid UTF-8 of at most
// max bytes without control characters.
func validText(s string, max int) bool {
	return len(s) <= max && utf8.ValidString(s) && strings.IndexFunc(s, unicode.IsControl) < 0
}

// newKey makes a registration key.
func newKey() (enrol.Credential, error) {
	c, err := enrol.Generate(enrol.Key, rand.Reader)
	if err != nil {
		return c, fmt.Errorf("making a registration key: %w", err)
	}
	return c, nil
}
