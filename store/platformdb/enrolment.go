package platformdb

import (
	"context"
	"time"

	"livemend.dev/livemend/fleet"
	"livemend.dev/livemend/store"
)

const keyColumns = `id, note, server_limit, expires_at, enabled, created_by, created_at`

func scanKey(r store.Row) (k fleet.Key, err error) {
	var expires, created int64
	err = r.Scan(&k.ID, &k.Note, &k.ServerLimit, &expires, &k.Enabled, &k.CreatedBy, &created)
	times{{&expires, &k.ExpiresAt}, {&created, &k.CreatedAt}}.set()
	return k, err
}

// InsertKey stores a registration key with its encrypted text.
func InsertKey(ctx context.Context, tx *store.Tx, org string, k fleet.Key, sealed []byte) error {
	_, err := tx.Exec(ctx, `INSERT INTO platform_key (organisation_id, `+keyColumns+`, sealed) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
		org, k.ID, k.Note, k.ServerLimit, store.Micros(k.ExpiresAt), k.Enabled, k.CreatedBy, store.Micros(k.CreatedAt), sealed)
	return err
}

// Keys returns the organisation's keys, newest first.
func Keys(ctx context.Context, q store.Querier, org string) ([]fleet.Key, error) {
	return store.All(ctx, q, scanKey, `SELECT `+keyColumns+` FROM platform_key WHERE organisation_id = $1 ORDER BY created_at DESC, id LIMIT $2`, org, maxList)
}

// KeyByID returns one key, or store.ErrNotFound.
func KeyByID(ctx context.Context, q store.Querier, org, id string) (fleet.Key, error) {
	return store.One(ctx, q, scanKey, `SELECT `+keyColumns+` FROM platform_key WHERE organisation_id = $1 AND id = $2`, org, id)
}

// SealedKey returns a key's encrypted text, or store.ErrNotFound.
func SealedKey(ctx context.Context, q store.Querier, org, id string) ([]byte, error) {
	return store.One(ctx, q, store.Scalar[[]byte], `SELECT sealed FROM platform_key WHERE organisation_id = $1 AND id = $2`, org, id)
}

// SetKeyEnabled changes a key.
func SetKeyEnabled(ctx context.Context, tx *store.Tx, org, id string, enabled bool) error {
	_, err := tx.Exec(ctx, `UPDATE platform_key SET enabled = $3 WHERE organisation_id = $1 AND id = $2`, org, id, enabled)
	return err
}

// DeleteKey removes a key.
func DeleteKey(ctx context.Context, tx *store.Tx, org, id string) error {
	_, err := tx.Exec(ctx, `DELETE FROM platform_key WHERE organisation_id = $1 AND id = $2`, org, id)
	return err
}

// Token is a one-use token with what checks it. IdentityKey is the machine that
// used it, nil before.
type Token struct {
	fleet.Token
	Organisation string
	Public       []byte
	IdentityKey  []byte
}

const tokenColumns = `id, organisation_id, note, public, created_by, created_at, expires_at, identity_key, used_by`

func scanToken(r store.Row) (t Token, err error) {
	var created, expires int64
	err = r.Scan(&t.ID, &t.Organisation, &t.Note, &t.Public, &t.CreatedBy, &created, &expires, &t.IdentityKey, &t.UsedBy)
	times{{&created, &t.CreatedAt}, {&expires, &t.ExpiresAt}}.set()
	return t, err
}

// InsertToken stores a new token.
func InsertToken(ctx context.Context, tx *store.Tx, t Token) error {
	_, err := tx.Exec(ctx, `INSERT INTO platform_token (`+tokenColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
		t.ID, t.Organisation, t.Note, t.Public, t.CreatedBy, store.Micros(t.CreatedAt), store.Micros(t.ExpiresAt), t.IdentityKey, t.UsedBy)
	return err
}

// Tokens returns the organisation's tokens, newest first.
func Tokens(ctx context.Context, q store.Querier, org string) ([]Token, error) {
	return store.All(ctx, q, scanToken, `SELECT `+tokenColumns+` FROM platform_token WHERE organisation_id = $1 ORDER BY created_at DESC, id LIMIT $2`, org, maxList)
}

// TokenByID returns a token of whatever organisation, or store.ErrNotFound: a
// machine that enrols has no other name yet.
func TokenByID(ctx context.Context, q store.Querier, id string) (Token, error) {
	return store.One(ctx, q, scanToken, `SELECT `+tokenColumns+` FROM platform_token WHERE id = $1`, id)
}

// ClaimToken gives a token to one machine and reports whether it was free, or
// already that machine's. One whose server was removed since is used up.
func ClaimToken(ctx context.Context, tx *store.Tx, id string, identityKey []byte) (bool, error) {
	n, err := tx.Exec(ctx, `UPDATE platform_token SET identity_key = $2 WHERE id = $1 AND (identity_key IS NULL OR identity_key = $2)
		AND (used_by = '' OR EXISTS (SELECT 1 FROM platform_server s WHERE s.id = platform_token.used_by))`, id, identityKey)
	return n == 1, err
}

// UseToken notes which system a token made.
func UseToken(ctx context.Context, tx *store.Tx, id, system string) error {
	_, err := tx.Exec(ctx, `UPDATE platform_token SET used_by = $2 WHERE id = $1`, id, system)
	return err
}

// FreeToken takes a token back from a machine for which no system was made.
func FreeToken(ctx context.Context, tx *store.Tx, id string) error {
	_, err := tx.Exec(ctx, `UPDATE platform_token SET identity_key = NULL WHERE id = $1 AND used_by = ''`, id)
	return err
}

const enrolmentColumns = `id, identity_key, channel_key, facts, address, state, decided_by, decided_at, created_at, seen_at, system_id`

func scanEnrolment(r store.Row) (e fleet.EnrolmentRequest, err error) {
	var facts string
	var decided, created, seen int64
	if err = r.Scan(&e.ID, &e.IdentityKey, &e.ChannelKey, &facts, &e.Address, &e.State, &e.DecidedBy, &decided, &created, &seen, &e.SystemID); err != nil {
		return e, err
	}
	times{{&decided, &e.DecidedAt}, {&created, &e.CreatedAt}, {&seen, &e.SeenAt}}.set()
	return e, decode("facts", facts, &e.Facts)
}

// PutEnrolment stores a request, or brings facts, address and time of an older
// one by the same machine up to date; its decision stays.
func PutEnrolment(ctx context.Context, tx *store.Tx, org string, e fleet.EnrolmentRequest) (fleet.EnrolmentRequest, error) {
	facts, err := encode(e.Facts)
	if err != nil {
		return e, err
	}
	return store.One(ctx, tx, scanEnrolment, `INSERT INTO platform_enrolment (organisation_id, `+enrolmentColumns+`)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
		ON CONFLICT (organisation_id, identity_key) DO UPDATE SET facts = excluded.facts, address = excluded.address,
		seen_at = excluded.seen_at, channel_key = excluded.channel_key RETURNING `+enrolmentColumns,
		org, e.ID, e.IdentityKey, e.ChannelKey, facts, e.Address, string(e.State), e.DecidedBy,
		store.Micros(e.DecidedAt), store.Micros(e.CreatedAt), store.Micros(e.SeenAt), e.SystemID)
}

// CountEnrolments returns how many requests are in a state.
func CountEnrolments(ctx context.Context, q store.Querier, org string, state fleet.EnrolmentState) (int64, error) {
	return store.One(ctx, q, store.Scalar[int64], `SELECT count(*) FROM platform_enrolment WHERE organisation_id = $1 AND state = $2`, org, string(state))
}

// Enrolments returns requests, newest first; an empty state does not narrow.
func Enrolments(ctx context.Context, q store.Querier, org string, state fleet.EnrolmentState) ([]fleet.EnrolmentRequest, error) {
	return store.All(ctx, q, scanEnrolment, `SELECT `+enrolmentColumns+` FROM platform_enrolment
		WHERE organisation_id = $1 AND ($2 = '' OR state = $2) ORDER BY created_at DESC, id LIMIT $3`, org, string(state), maxList)
}

// EnrolmentByID returns one request, or store.ErrNotFound.
func EnrolmentByID(ctx context.Context, q store.Querier, org, id string) (fleet.EnrolmentRequest, error) {
	return store.One(ctx, q, scanEnrolment, `SELECT `+enrolmentColumns+` FROM platform_enrolment WHERE organisation_id = $1 AND id = $2`, org, id)
}

// DecideEnrolment stores a person's decision about a pending request and reports
// whether it was still pending.
func DecideEnrolment(ctx context.Context, tx *store.Tx, org, id string, state fleet.EnrolmentState, by string, at time.Time) (bool, error) {
	n, err := tx.Exec(ctx, `UPDATE platform_enrolment SET state = $3, decided_by = $4, decided_at = $5
		WHERE organisation_id = $1 AND id = $2 AND state = $6`, org, id, string(state), by, store.Micros(at), string(fleet.EnrolmentPending))
	return n == 1, err
}

// SetEnrolled notes the System ID that an approved request led to.
func SetEnrolled(ctx context.Context, tx *store.Tx, org, id, system string) error {
	_, err := tx.Exec(ctx, `UPDATE platform_enrolment SET system_id = $3 WHERE organisation_id = $1 AND id = $2`, org, id, system)
	return err
}
