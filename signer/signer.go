// Package signer keeps private keys in a process of its own. The parent starts
// the child and asks it over its standard input and output; the child parses
// what it signs and refuses everything outside its role, so that whoever takes
// over the parent gets at most the signatures that its role allows, and never a
// key.
//
// The child must not open a network connection or a file other than its keys.
// Neither side may log a message it signs or any part of a key.
package signer

import (
	"errors"
	"time"
)

// Role says what a signer child signs.
type Role string

// The roles.
const (
	Online   Role = "online"   // snapshot and timestamp metadata
	Director Role = "director" // manifests
)

// Limits of what a child signs.
const (
	MaxKeys          = 16
	MaxTimestampLife = 7 * 24 * time.Hour  // from now to expires
	MaxSnapshotLife  = 60 * 24 * time.Hour // from now to expires
	MaxPerMinute     = 100_000             // highest value of Config.PerMinute
	DefaultPerMinute = 600                 // manifests per minute when Config says 0
)

// Errors with a documented meaning.
var (
	ErrRefused = errors.New("the signer refused to sign")                          // outside its role or over its limits
	ErrGone    = errors.New("the signer process ended; ask again")                 // ask again
	ErrClosed  = errors.New("the signer was closed")                               // nothing will be signed any more
	ErrConfig  = errors.New("the signer can not start with this configuration")    // wrong role, keys or limits
	errFrame   = errors.New("the other side of the signer's pipe broke the rules") // never with this package on both sides
)

// Config is what a child is started with.
type Config struct {
	Role      Role
	Keys      []string         // key files of package trust/repo
	PerMinute int              // manifests per minute; 0 for DefaultPerMinute
	Now       func() time.Time // the clock
}
