package trust

import "errors"

// Refusal is the error of this package: what was refused, why, and the numbers
// that show it. Unwrap gives the documented error.
type Refusal struct {
	What   string // timestamp metadata, manifest, target user/…
	Err    error  // one of the package's errors
	Detail string // may be empty
}

func (e *Refusal) Error() string {
	s := e.What + ": " + e.Err.Error()
	if e.Detail != "" {
		s += " (" + e.Detail + ")"
	}
	return s
}

// Unwrap returns the documented error.
func (e *Refusal) Unwrap() error { return e.Err }

func refuse(what string, err error, detail string) error {
	return &Refusal{What: what, Err: err, Detail: detail}
}

// Class returns a short stable name of why err refused, for reports and
// counters: "" for nil, "other" for an error that is not of this package.
func Class(err error) string {
	if err == nil {
		return ""
	}
	for _, c := range []struct {
		err  error
		name string
	}{
		{ErrMalformed, "malformed"},
		{ErrThreshold, "threshold"},
		{ErrExpired, "expired"},
		{ErrRollback, "rollback"},
		{ErrVersion, "version"},
		{ErrHash, "hash"},
		{ErrLength, "length"},
		{ErrNoTarget, "no-target"},
		{ErrWrongSystem, "wrong-system"},
		{ErrReplay, "replay"},
		{ErrDisagree, "disagree"},
		{ErrNotFresh, "not-fresh"},
		{ErrScheme, "scheme"},
		{ErrOrder, "order"},
	} {
		if errors.Is(err, c.err) {
			return c.name
		}
	}
	return "other"
}
