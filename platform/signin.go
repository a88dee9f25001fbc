package platform

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"time"

	"livemend.dev/livemend/access"
	"livemend.dev/livemend/store"
	"livemend.dev/livemend/store/platformdb"
)

// Times of sign-in.
const (
	sessionLife  = 12 * time.Hour
	forgetAfter  = 24 * time.Hour // wrong attempts
	touchAfter   = time.Minute    // between two notes of when a token was used
	maxUserName  = 100
	maxTokenText = 200
)

// nobody is the hash that a wrong name is checked against, so that it takes as
// long as a wrong password. No password fits.
const nobody = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

// lockout is what wrong attempts are counted of, and how many are free.
type lockout struct {
	subject string
	free    int
}

// userName brings a name to the form in which it is stored.
func userName(name string) string { return strings.ToLower(strings.TrimSpace(name)) }

// SignIn checks name and password. address is where the attempt came from; it
// and the name are locked out for a while after too many wrong attempts.
func (s *Service) SignIn(ctx context.Context, name, password, address string) (Session, access.Subject, error) {
	name = userName(name)
	if len(name) > maxUserName {
		return Session{}, access.Subject{}, access.ErrCredentials
	}
	buckets := []lockout{{"name " + name + " address " + address, access.FreeAttempts}, {"name " + name, access.FreeOfOne}, {"address " + address, access.FreeOfOne}}
	// Held until a wrong attempt is counted: else many at the same moment would
	// all be let through before the first counts.
	if err := s.passwords.Acquire(ctx, 1); err != nil {
		return Session{}, access.Subject{}, err
	}
	defer s.passwords.Release(1)
	if err := s.locked(ctx, buckets); err != nil {
		return Session{}, access.Subject{}, err
	}
	user, ok, err := s.checkPassword(ctx, name, password)
	if err != nil {
		return Session{}, access.Subject{}, err
	}
	if !ok {
		return Session{}, access.Subject{}, s.wrongAttempt(ctx, user, buckets, address)
	}
	secret, err := access.NewSecret(rand.Reader)
	if err != nil {
		return Session{}, access.Subject{}, err
	}
	session := Session{Secret: secret, ExpiresAt: s.now().Add(sessionLife)}
	subject := subjectOf(user)
	err = s.db.InTx(ctx, func(tx *store.Tx) error {
		if err := platformdb.SetLockout(ctx, tx, buckets[0].subject, access.Bucket{}, s.now().Add(-forgetAfter)); err != nil {
			return err
		}
		if err := platformdb.InsertSession(ctx, tx, access.HashSecret(secret), user.ID, s.now(), session.ExpiresAt); err != nil {
			return err
		}
		if err := platformdb.SetSignedIn(ctx, tx, user.ID, s.now()); err != nil {
			return err
		}
		return s.audited(ctx, tx, subject, "sign-in", user.ID, "from "+address)
	})
	return session, subject, err
}

// locked returns access.ErrLocked when one of the buckets is full.
func (s *Service) locked(ctx context.Context, buckets []lockout) error {
	for _, b := range buckets {
		bucket, err := platformdb.Lockout(ctx, s.db, b.subject)
		if err != nil {
			return err
		}
		if bucket.Locked(s.now(), b.free) {
			return access.ErrLocked
		}
	}
	return nil
}

// checkPassword returns the account of that name and whether the password fits
// and the account is open. The caller holds one of s.passwords.
func (s *Service) checkPassword(ctx context.Context, name, password string) (platformdb.User, bool, error) {
	user, err := platformdb.UserByName(ctx, s.db, name)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return user, false, err
	}
	hash := user.PasswordHash
	if hash == "" {
		hash = nobody
	}
	fits, err := access.VerifyPassword(hash, password)
	return user, fits && user.ID != "" && !user.Disabled, err
}

// wrongAttempt counts a wrong sign-in, durably, before it is answered.
func (s *Service) wrongAttempt(ctx context.Context, user platformdb.User, buckets []lockout, address string) error {
	err := s.db.InTx(ctx, func(tx *store.Tx) error {
		for _, b := range buckets {
			bucket, err := platformdb.Lockout(ctx, tx, b.subject)
			if err != nil {
				return err
			}
			if err := platformdb.SetLockout(ctx, tx, b.subject, bucket.Failed(s.now()), s.now().Add(-forgetAfter)); err != nil {
				return err
			}
		}
		if user.ID == "" {
			return nil
		}
		return s.audited(ctx, tx, subjectOf(user), "refuse.sign-in", user.ID, "wrong password or closed account, from "+address)
	})
	if err != nil {
		return err
	}
	return access.ErrCredentials
}

func subjectOf(u platformdb.User) access.Subject {
	return access.Subject{Organisation: u.Organisation, UserID: u.ID, Name: u.Name, Role: u.Role, MustChange: u.MustChange}
}

// Session returns who holds a session's secret, or access.ErrCredentials.
func (s *Service) Session(ctx context.Context, secret string) (access.Subject, error) {
	if secret == "" || len(secret) > maxTokenText {
		return access.Subject{}, access.ErrCredentials
	}
	user, err := platformdb.SessionUser(ctx, s.db, access.HashSecret(secret), s.now())
	if errors.Is(err, store.ErrNotFound) {
		return access.Subject{}, access.ErrCredentials
	}
	return subjectOf(user), err
}

// Bearer returns who holds an API token, or access.ErrCredentials.
func (s *Service) Bearer(ctx context.Context, text string) (access.Subject, error) {
	if !strings.HasPrefix(text, access.TokenPrefix) || len(text) > maxTokenText {
		return access.Subject{}, access.ErrCredentials
	}
	token, err := platformdb.APITokenByHash(ctx, s.db, access.HashSecret(text), s.now())
	if errors.Is(err, store.ErrNotFound) {
		return access.Subject{}, access.ErrCredentials
	}
	if err != nil {
		return access.Subject{}, err
	}
	if s.now().Sub(token.UsedAt) > touchAfter {
		if err := s.db.InTx(ctx, func(tx *store.Tx) error { return platformdb.TouchAPIToken(ctx, tx, token.ID, s.now()) }); err != nil {
			return access.Subject{}, err
		}
	}
	return access.Subject{Organisation: token.Organisation, UserID: token.ID, Name: "token " + token.Name, Role: token.Role}, nil
}

// SignOut ends a session. An unknown one is no error.
func (s *Service) SignOut(ctx context.Context, secret string) error {
	return s.db.InTx(ctx, func(tx *store.Tx) error { return platformdb.DeleteSession(ctx, tx, access.HashSecret(secret)) })
}

// ChangePassword sets the subject's own password and ends their sessions, except
// the one with the secret keep; empty = all. Wrong present passwords are counted
// as at sign-in, so that a stolen session is no place to guess. It is the only
// deed open to a subject with MustChange.
func (s *Service) ChangePassword(ctx context.Context, who access.Subject, keep, current, password string) error {
	if err := access.CheckPassword(password); err != nil {
		return err
	}
	if current == password {
		return problem(ErrInput, "The new password is the old one. Nothing was changed; choose another.")
	}
	if err := s.passwords.Acquire(ctx, 1); err != nil {
		return err
	}
	defer s.passwords.Release(1)
	buckets := []lockout{{"password of " + who.UserID, access.FreeAttempts}}
	if err := s.locked(ctx, buckets); err != nil {
		return err
	}
	user, ok, err := s.checkPassword(ctx, who.Name, current)
	if err != nil {
		return err
	}
	if !ok || user.ID != who.UserID || user.Organisation != who.Organisation {
		return s.wrongAttempt(ctx, user, buckets, "their own session")
	}
	hash, err := access.HashPassword(password, rand.Reader)
	if err != nil {
		return err
	}
	return s.deed(ctx, who, "change.password", user.ID, "changed their own password", "", func(tx *store.Tx) error {
		if err := platformdb.SetPassword(ctx, tx, who.Organisation, user.ID, hash, false); err != nil {
			return err
		}
		if err := platformdb.SetLockout(ctx, tx, buckets[0].subject, access.Bucket{}, s.now().Add(-forgetAfter)); err != nil {
			return err
		}
		return platformdb.DeleteOtherSessions(ctx, tx, user.ID, access.HashSecret(keep))
	})
}
