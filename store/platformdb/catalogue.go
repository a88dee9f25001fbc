package platformdb

import (
	"context"
	"time"

	"livemend.dev/livemend/fleet"
	"livemend.dev/livemend/store"
)

// Target is one target of the portal's repository, as verified. Custom is its
// custom object as JSON.
type Target struct {
	Path        string
	SHA256      string
	SHA512      string
	Length      int64
	Custom      string
	FirstSeen   time.Time
	WithdrawnAt time.Time // zero while the repository names it
}

const targetColumns = `path, sha256, sha512, length, custom, first_seen, withdrawn_at`

func scanTarget(r store.Row) (t Target, err error) {
	var first, withdrawn int64
	err = r.Scan(&t.Path, &t.SHA256, &t.SHA512, &t.Length, &t.Custom, &first, &withdrawn)
	times{{&first, &t.FirstSeen}, {&withdrawn, &t.WithdrawnAt}}.set()
	return t, err
}

// Targets returns every target that the repository names or has named.
func Targets(ctx context.Context, q store.Querier) ([]Target, error) {
	return store.All(ctx, q, scanTarget, `SELECT `+targetColumns+` FROM platform_target ORDER BY path LIMIT $1`, maxList)
}

// TargetByPath returns one target, or store.ErrNotFound.
func TargetByPath(ctx context.Context, q store.Querier, path string) (Target, error) {
	return store.One(ctx, q, scanTarget, `SELECT `+targetColumns+` FROM platform_target WHERE path = $1`, path)
}

// PutTarget stores a target that the repository names. FirstSeen stays as it was
// unless the target's content is another.
func PutTarget(ctx context.Context, tx *store.Tx, t Target) error {
	_, err := tx.Exec(ctx, `INSERT INTO platform_target (`+targetColumns+`) VALUES ($1, $2, $3, $4, $5, $6, 0)
		ON CONFLICT (path) DO UPDATE SET first_seen = CASE WHEN platform_target.sha256 = excluded.sha256 THEN platform_target.first_seen ELSE excluded.first_seen END,
		sha256 = excluded.sha256, sha512 = excluded.sha512, length = excluded.length, custom = excluded.custom, withdrawn_at = 0`,
		t.Path, t.SHA256, t.SHA512, t.Length, t.Custom, store.Micros(t.FirstSeen))
	return err
}

// WithdrawTarget notes that the repository does not name a target any more.
func WithdrawTarget(ctx context.Context, tx *store.Tx, path string, at time.Time) error {
	_, err := tx.Exec(ctx, `UPDATE platform_target SET withdrawn_at = $2 WHERE path = $1 AND withdrawn_at = 0`, path, store.Micros(at))
	return err
}

// CatalogueState says how fresh the catalogue is.
type CatalogueState struct {
	RefreshedAt time.Time // zero = never
	Version     int64
	Error       string
}

// Catalogue returns the catalogue's state; the zero value before the first
// refresh.
func Catalogue(ctx context.Context, q store.Querier) (CatalogueState, error) {
	found, err := store.All(ctx, q, func(r store.Row) (s CatalogueState, err error) {
		var at int64
		err = r.Scan(&at, &s.Version, &s.Error)
		s.RefreshedAt = store.Time(at)
		return s, err
	}, `SELECT refreshed_at, version, error FROM platform_catalogue WHERE id = 1`)
	if err != nil || len(found) == 0 {
		return CatalogueState{}, err
	}
	return found[0], nil
}

// SetCatalogue stores the catalogue's state.
func SetCatalogue(ctx context.Context, tx *store.Tx, s CatalogueState) error {
	_, err := tx.Exec(ctx, `INSERT INTO platform_catalogue (id, refreshed_at, version, error) VALUES (1, $1, $2, $3)
		ON CONFLICT (id) DO UPDATE SET refreshed_at = excluded.refreshed_at, version = excluded.version, error = excluded.error`,
		store.Micros(s.RefreshedAt), s.Version, s.Error)
	return err
}

// Looked returns when somebody of the organisation last looked at what is new,
// and notes that somebody does now.
func Looked(ctx context.Context, tx *store.Tx, org string, now time.Time) (time.Time, error) {
	before, err := store.All(ctx, tx, store.Scalar[int64], `SELECT at FROM platform_looked WHERE organisation_id = $1`, org)
	if err != nil {
		return time.Time{}, err
	}
	if _, err := tx.Exec(ctx, `INSERT INTO platform_looked (organisation_id, at) VALUES ($1, $2)
		ON CONFLICT (organisation_id) DO UPDATE SET at = excluded.at`, org, store.Micros(now)); err != nil {
		return time.Time{}, err
	}
	if len(before) == 0 {
		return time.Time{}, nil
	}
	return store.Time(before[0]), nil
}

// Blocks returns which targets the organisation refuses, and why.
func Blocks(ctx context.Context, q store.Querier, org string) (map[string]string, error) {
	out := map[string]string{}
	_, err := store.All(ctx, q, func(r store.Row) (struct{}, error) {
		var path, reason string
		err := r.Scan(&path, &reason)
		out[path] = reason
		return struct{}{}, err
	}, `SELECT path, reason FROM platform_block WHERE organisation_id = $1 LIMIT $2`, org, maxList)
	return out, err
}

// SetBlock refuses a target, or allows it again when reason is empty.
func SetBlock(ctx context.Context, tx *store.Tx, org, path, reason string) error {
	if reason == "" {
		_, err := tx.Exec(ctx, `DELETE FROM platform_block WHERE organisation_id = $1 AND path = $2`, org, path)
		return err
	}
	_, err := tx.Exec(ctx, `INSERT INTO platform_block (organisation_id, path, reason) VALUES ($1, $2, $3)
		ON CONFLICT (organisation_id, path) DO UPDATE SET reason = excluded.reason`, org, path, reason)
	return err
}

const updateColumns = `cve, component, distribution, fixed_version, advisory`

func scanUpdate(r store.Row) (u fleet.Update, err error) {
	err = r.Scan(&u.CVE, &u.Component, &u.Distribution, &u.FixedVersion, &u.Advisory)
	return u, err
}

// PutUpdate adds or replaces one package update.
func PutUpdate(ctx context.Context, tx *store.Tx, org string, u fleet.Update) error {
	_, err := tx.Exec(ctx, `INSERT INTO platform_update (organisation_id, `+updateColumns+`) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (organisation_id, cve, component, distribution) DO UPDATE SET fixed_version = excluded.fixed_version, advisory = excluded.advisory`,
		org, u.CVE, u.Component, u.Distribution, u.FixedVersion, u.Advisory)
	return err
}

// Updates returns a page of package updates and how many there are in all.
func Updates(ctx context.Context, q store.Querier, org string, offset, limit int) ([]fleet.Update, int64, error) {
	total, err := store.One(ctx, q, store.Scalar[int64], `SELECT count(*) FROM platform_update WHERE organisation_id = $1`, org)
	if err != nil {
		return nil, 0, err
	}
	updates, err := store.All(ctx, q, scanUpdate, `SELECT `+updateColumns+` FROM platform_update WHERE organisation_id = $1
		ORDER BY cve, component, distribution LIMIT $2 OFFSET $3`, org, limit, offset)
	return updates, total, err
}

// UpdatesFor returns the package updates for one vulnerability.
func UpdatesFor(ctx context.Context, q store.Querier, org, cve string) ([]fleet.Update, error) {
	return store.All(ctx, q, scanUpdate, `SELECT `+updateColumns+` FROM platform_update WHERE organisation_id = $1 AND cve = $2
		ORDER BY component, distribution LIMIT $3`, org, cve, maxList)
}
