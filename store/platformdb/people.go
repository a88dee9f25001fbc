package platformdb

import (
	"context"
	"time"

	"livemend.dev/livemend/access"
	"livemend.dev/livemend/store"
)

// User is an account with its password's hash.
type User struct {
	ID           string
	Organisation string
	Name         string
	Role         access.Role
	PasswordHash string
	MustChange   bool
	Disabled     bool
	CreatedAt    time.Time
	SignedInAt   time.Time
}

const userColumns = `u.id, u.organisation_id, u.name, u.role, u.password_hash, u.must_change, u.disabled, u.created_at, u.signed_in_at`

func scanUser(r store.Row) (u User, err error) {
	var created, signedIn int64
	err = r.Scan(&u.ID, &u.Organisation, &u.Name, &u.Role, &u.PasswordHash, &u.MustChange, &u.Disabled, &created, &signedIn)
	times{{&created, &u.CreatedAt}, {&signedIn, &u.SignedInAt}}.set()
	return u, err
}

// InsertUser stores a new account and reports whether the name was free.
func InsertUser(ctx context.Context, tx *store.Tx, u User) (bool, error) {
	n, err := tx.Exec(ctx, `INSERT INTO platform_user (id, organisation_id, name, role, password_hash, must_change, disabled, created_at, signed_in_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (name) DO NOTHING`,
		u.ID, u.Organisation, u.Name, string(u.Role), u.PasswordHash, u.MustChange, u.Disabled, store.Micros(u.CreatedAt), store.Micros(u.SignedInAt))
	return n == 1, err
}

// UserByName returns an account, or store.ErrNotFound.
func UserByName(ctx context.Context, q store.Querier, name string) (User, error) {
	return store.One(ctx, q, scanUser, `SELECT `+userColumns+` FROM platform_user u WHERE u.name = $1`, name)
}

// UserByID returns an account of the organisation, or store.ErrNotFound.
func UserByID(ctx context.Context, q store.Querier, org, id string) (User, error) {
	return store.One(ctx, q, scanUser, `SELECT `+userColumns+` FROM platform_user u WHERE u.organisation_id = $1 AND u.id = $2`, org, id)
}

// Users returns the organisation's accounts by name.
func Users(ctx context.Context, q store.Querier, org string) ([]User, error) {
	return store.All(ctx, q, scanUser, `SELECT `+userColumns+` FROM platform_user u WHERE u.organisation_id = $1 ORDER BY u.name LIMIT $2`, org, maxList)
}

// CountUsers returns how many accounts there are in all organisations.
func CountUsers(ctx context.Context, q store.Querier) (int64, error) {
	return store.One(ctx, q, store.Scalar[int64], `SELECT count(*) FROM platform_user`)
}

// SetPassword replaces a password's hash.
func SetPassword(ctx context.Context, tx *store.Tx, org, id, hash string, mustChange bool) error {
	_, err := tx.Exec(ctx, `UPDATE platform_user SET password_hash = $3, must_change = $4 WHERE organisation_id = $1 AND id = $2`, org, id, hash, mustChange)
	return err
}

// SetUserDisabled closes or opens an account and reports whether it exists.
func SetUserDisabled(ctx context.Context, tx *store.Tx, org, id string, disabled bool) (bool, error) {
	n, err := tx.Exec(ctx, `UPDATE platform_user SET disabled = $3 WHERE organisation_id = $1 AND id = $2`, org, id, disabled)
	return n == 1, err
}

// SetSignedIn notes a sign-in.
func SetSignedIn(ctx context.Context, tx *store.Tx, id string, at time.Time) error {
	_, err := tx.Exec(ctx, `UPDATE platform_user SET signed_in_at = $2 WHERE id = $1`, id, store.Micros(at))
	return err
}

// InsertSession stores a session by its secret's hash, and removes those that
// have ended.
func InsertSession(ctx context.Context, tx *store.Tx, hash, userID string, now, expires time.Time) error {
	if _, err := tx.Exec(ctx, `DELETE FROM platform_session WHERE expires_at <= $1`, store.Micros(now)); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `INSERT INTO platform_session (hash, user_id, expires_at) VALUES ($1, $2, $3)`, hash, userID, store.Micros(expires))
	return err
}

// SessionUser returns whose session it is, or store.ErrNotFound for one that is
// unknown, has ended or belongs to a closed account.
func SessionUser(ctx context.Context, q store.Querier, hash string, now time.Time) (User, error) {
	return store.One(ctx, q, scanUser, `SELECT `+userColumns+` FROM platform_session s JOIN platform_user u ON u.id = s.user_id
		WHERE s.hash = $1 AND s.expires_at > $2 AND NOT u.disabled`, hash, store.Micros(now))
}

// DeleteSession ends a session.
func DeleteSession(ctx context.Context, tx *store.Tx, hash string) error {
	_, err := tx.Exec(ctx, `DELETE FROM platform_session WHERE hash = $1`, hash)
	return err
}

// DeleteSessions ends all sessions of an account.
func DeleteSessions(ctx context.Context, tx *store.Tx, userID string) error {
	_, err := tx.Exec(ctx, `DELETE FROM platform_session WHERE user_id = $1`, userID)
	return err
}

// DeleteOtherSessions ends all sessions of an account but the one with the hash
// keep.
func DeleteOtherSessions(ctx context.Context, tx *store.Tx, userID, keep string) error {
	_, err := tx.Exec(ctx, `DELETE FROM platform_session WHERE user_id = $1 AND hash <> $2`, userID, keep)
	return err
}

// Lockout returns the bucket of a name or address; empty when there is none.
func Lockout(ctx context.Context, q store.Querier, subject string) (access.Bucket, error) {
	found, err := store.All(ctx, q, func(r store.Row) (b access.Bucket, err error) {
		var at int64
		err = r.Scan(&b.Level, &at)
		b.Updated = store.Time(at)
		return b, err
	}, `SELECT level, updated_at FROM platform_lockout WHERE subject = $1`, subject)
	if err != nil || len(found) == 0 {
		return access.Bucket{}, err
	}
	return found[0], nil
}

// SetLockout stores a bucket, and forgets those not touched since forget.
func SetLockout(ctx context.Context, tx *store.Tx, subject string, b access.Bucket, forget time.Time) error {
	if _, err := tx.Exec(ctx, `DELETE FROM platform_lockout WHERE updated_at < $1`, store.Micros(forget)); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `INSERT INTO platform_lockout (subject, level, updated_at) VALUES ($1, $2, $3)
		ON CONFLICT (subject) DO UPDATE SET level = excluded.level, updated_at = excluded.updated_at`, subject, b.Level, store.Micros(b.Updated))
	return err
}

// APIToken is a credential for programs with its hash.
type APIToken struct {
	ID           string
	Organisation string
	Name         string
	Role         access.Role
	Hash         string
	CreatedBy    string
	CreatedAt    time.Time
	ExpiresAt    time.Time // zero = never
	UsedAt       time.Time
}

const apiTokenColumns = `id, organisation_id, name, role, hash, created_by, created_at, expires_at, used_at`

func scanAPIToken(r store.Row) (t APIToken, err error) {
	var created, expires, used int64
	err = r.Scan(&t.ID, &t.Organisation, &t.Name, &t.Role, &t.Hash, &t.CreatedBy, &created, &expires, &used)
	times{{&created, &t.CreatedAt}, {&expires, &t.ExpiresAt}, {&used, &t.UsedAt}}.set()
	return t, err
}

// InsertAPIToken stores a new token.
func InsertAPIToken(ctx context.Context, tx *store.Tx, t APIToken) error {
	_, err := tx.Exec(ctx, `INSERT INTO platform_api_token (`+apiTokenColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
		t.ID, t.Organisation, t.Name, string(t.Role), t.Hash, t.CreatedBy, store.Micros(t.CreatedAt), store.Micros(t.ExpiresAt), store.Micros(t.UsedAt))
	return err
}

// APITokens returns the organisation's tokens, newest first.
func APITokens(ctx context.Context, q store.Querier, org string) ([]APIToken, error) {
	return store.All(ctx, q, scanAPIToken, `SELECT `+apiTokenColumns+` FROM platform_api_token WHERE organisation_id = $1 ORDER BY created_at DESC, id LIMIT $2`, org, maxList)
}

// APITokenByHash returns a token that has not ended, or store.ErrNotFound.
func APITokenByHash(ctx context.Context, q store.Querier, hash string, now time.Time) (APIToken, error) {
	return store.One(ctx, q, scanAPIToken, `SELECT `+apiTokenColumns+` FROM platform_api_token WHERE hash = $1 AND (expires_at = 0 OR expires_at > $2)`, hash, store.Micros(now))
}

// TouchAPIToken notes when a token was used.
func TouchAPIToken(ctx context.Context, tx *store.Tx, id string, at time.Time) error {
	_, err := tx.Exec(ctx, `UPDATE platform_api_token SET used_at = $2 WHERE id = $1`, id, store.Micros(at))
	return err
}

// DeleteAPIToken removes a token and reports whether it was there.
func DeleteAPIToken(ctx context.Context, tx *store.Tx, org, id string) (bool, error) {
	n, err := tx.Exec(ctx, `DELETE FROM platform_api_token WHERE organisation_id = $1 AND id = $2`, org, id)
	return n == 1, err
}
