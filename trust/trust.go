// Package trust decides what may be believed: the TUF client rules (The Update
// Framework specification 1.0) over the portal's repository, the director's
// signed manifests, and the agreement of both (after Uptane).
//
// Every function is a function of (state, bytes, time): no files, no network,
// no clock, no randomness. It uses the standard library only, because it runs
// as root on every server. Signature schemes are plugged in by the caller.
// It must not know where bytes came from, and never believes them for it.
package trust

import (
	"errors"
	"time"

	"livemend.dev/livemend/internal/cjson"
)

// Limits on metadata. Sizes are bytes.
const (
	MaxRoot       = 512 << 10
	MaxTimestamp  = 16 << 10
	MaxSnapshot   = 2 << 20
	MaxTargets    = 16 << 20
	MaxManifest   = 64 << 10
	MaxSignatures = 64
	MaxKeys       = 256
	MaxRotations  = 256 // root versions followed in one refresh
)

// Errors with a documented meaning. Every refusal wraps exactly one of them;
// Class gives its short name for reports.
var (
	ErrMalformed   = errors.New("metadata is not well formed")                       // not JSON, wrong type, over a limit
	ErrThreshold   = errors.New("not enough valid signatures")                       // fewer unique keys than the role's threshold
	ErrExpired     = errors.New("metadata has expired")                              // a freeze, or a publisher that stopped renewing
	ErrRollback    = errors.New("older than what was seen before")                   // version went back
	ErrVersion     = errors.New("not the version that was announced")                // file and its announcement disagree
	ErrHash        = errors.New("content differs from what was signed")              // same length, other bytes
	ErrLength      = errors.New("length differs from what was signed")               // too short or too long
	ErrNoTarget    = errors.New("the repository does not name this target")          // unknown or withdrawn
	ErrWrongSystem = errors.New("the manifest is for another system")                // System ID or key differs
	ErrReplay      = errors.New("the manifest was used already")                     // counter not above the last one
	ErrDisagree    = errors.New("director and repository do not name the same file") // any shared field differs
	ErrNotFresh    = errors.New("the manifest is past its time or lasts too long")   // not-after
	ErrScheme      = errors.New("signature scheme is not allowed here")
	ErrOrder       = errors.New("metadata was given out of order") // a mistake of the caller, not of the repository
)

// PublicKey is a TUF key object. Scheme decides how signatures are verified;
// Type is informative.
type PublicKey struct {
	Type   string // ed25519
	Scheme string // ed25519
	Public string // lower-case hex for ed25519, PEM for others
}

// Target is what signed targets metadata says of one file.
type Target struct {
	Path   string
	Length int64
	SHA256 string // lower-case hex
	SHA512 string // may be empty
	Custom cjson.Value
}

// Action is what a manifest orders.
type Action string

// The actions.
const (
	Apply  Action = "apply"
	Revert Action = "revert"
	Scan   Action = "scan"
)

// Manifest is a director's order to one system. It carries names and hashes,
// never addresses or commands.
type Manifest struct {
	SystemID string
	KeyHash  string // SHA-256 of the agent's identity public key, lower-case hex
	Counter  int64  // per system, always higher than the last
	Job      string
	Task     string
	Action   Action
	Path     string // target
	Length   int64
	SHA256   string
	Level    int64  // patches only
	BuildID  string // target identity, patches only
	Scanner  string // scan only: a name that the local policy allows
	NotAfter int64  // seconds since 1970; at most MaxManifestLife after issue
	Issued   int64  // seconds since 1970
}

// MaxManifestLife bounds how long a manifest may be admitted.
const MaxManifestLife = time.Hour
