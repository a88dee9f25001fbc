// Package access says who may do what: roles, passwords, API tokens, session
// secrets and the lockout of somebody who guesses. It holds rules and
// arithmetic only; it must not store anything, read the clock or know HTTP.
package access

import "errors"

// Errors of this package and of sign-in.
var (
	// ErrForbidden: the subject's role does not allow it. Nothing was changed.
	ErrForbidden = errors.New("your role does not allow this")
	// ErrChangePassword: a one-time password must be changed first.
	ErrChangePassword = errors.New("set a password of your own first")
	// ErrCredentials: name or password (or token) is wrong. One text for all causes.
	ErrCredentials = errors.New("name or password is wrong")
	// ErrLocked: too many wrong attempts; try again later.
	ErrLocked = errors.New("too many wrong attempts: wait a few minutes and try again")
	// ErrWeak: a new password is too short or too long.
	ErrWeak = errors.New("a password has 12 to 200 characters")
)

// Role says what a person may do.
type Role string

// The roles, each holding the rights of the ones before it.
const (
	Viewer   Role = "viewer"   // sees everything but keys' texts
	Operator Role = "operator" // scans, refreshes, makes and stops jobs, adds servers
	Admin    Role = "admin"    // keys, users, settings
)

// Valid reports whether r is a role.
func (r Role) Valid() bool { return r.rank() > 0 }

func (r Role) rank() int {
	switch r {
	case Viewer:
		return 1
	case Operator:
		return 2
	case Admin:
		return 3
	}
	return 0
}

// Subject is somebody who proved who they are: a signed-in person or the
// bearer of an API token. The organisation always comes from here.
type Subject struct {
	Organisation string `json:"-"`
	UserID       string `json:"user_id"`
	Name         string `json:"name"`
	Role         Role   `json:"role"`
	MustChange   bool   `json:"must_change"` // signed in with a one-time password
}

// Require returns nil when s may act with the rights of role, ErrChangePassword
// when s has to set a password first, and ErrForbidden otherwise.
func (s Subject) Require(role Role) error {
	switch {
	case s.MustChange:
		return ErrChangePassword
	case !role.Valid() || s.Role.rank() < role.rank() || s.Organisation == "":
		return ErrForbidden
	}
	return nil
}
