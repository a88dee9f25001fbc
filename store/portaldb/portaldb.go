// Package portaldb keeps the portal's partners, credentials, customers,
// registration keys, systems and audit record in SQL.
//
// A partner's data is reached through a Tenant only, which is bound to that
// partner: no query takes the tenant from a request. The package must not
// decide anything: rules are in package portal.
package portaldb

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"livemend.dev/livemend/store"
)

//go:embed migrations/*.sql
var files embed.FS

// Migrations returns the portal's schema.
func Migrations() (store.Migrations, error) {
	sub, err := fs.Sub(files, "migrations")
	if err != nil {
		return store.Migrations{}, fmt.Errorf("reading the portal's migrations: %w", err)
	}
	return store.Migrations{Name: "portal", Files: sub}, nil
}

// MaxList bounds the rows of one answer. ErrMany is returned instead of a list
// that lacks some.
const MaxList = 10_000

// ErrMany says that there are more rows than one answer holds.
var ErrMany = errors.New("more rows than one answer holds")

// list is store.All for a query that ends in a limit, which it adds.
func list[T any](ctx context.Context, q store.Querier, scan func(store.Row) (T, error), text string, args ...any) ([]T, error) {
	limit := fmt.Sprintf(" LIMIT $%d", len(args)+1)
	rows, err := store.All(ctx, q, scan, text+limit, append(args, MaxList+1)...)
	if err == nil && len(rows) > MaxList {
		return nil, ErrMany
	}
	return rows, err
}

// Partner is a tenant of the portal.
type Partner struct {
	ID      string
	Name    string
	Created time.Time
}

// Credential is an API credential without its text.
type Credential struct {
	ID      string
	Partner string
	Hash    []byte // SHA-256 of the text
	Scopes  string // separated by spaces
	Created time.Time
}

// Customer is a customer of a partner.
type Customer struct {
	ID      string
	Name    string
	Created time.Time
}

// Key is a registration key; its secret is not known here.
type Key struct {
	ID          string
	Customer    string
	Public      []byte // Ed25519
	Note        string
	ServerLimit int64
	Servers     int64     // registered with it now; only read
	Expires     time.Time // zero: never
	Enabled     bool
	Created     time.Time
}

// System is a registered server.
type System struct {
	ID          string
	Customer    string
	Key         string // id of the registration key; "" when the partner vouched
	IdentityKey []byte // Ed25519
	ChannelKey  []byte // X25519
	Hostname    string
	MachineID   string
	OS          string
	OSVersion   string
	Kernel      string
	KernelID    string
	Arch        string
	Flags       string // separated by spaces
	Created     time.Time
	Registered  time.Time // last time
}

// AddPartner stores a partner. It reports false when the id or name is taken.
func AddPartner(ctx context.Context, tx *store.Tx, p Partner) (bool, error) {
	n, err := tx.Exec(ctx, `INSERT INTO portal_partner (id, name, created) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
		p.ID, p.Name, store.Micros(p.Created))
	return n == 1, err
}

// PartnerByName returns the partner of that name.
func PartnerByName(ctx context.Context, q store.Querier, name string) (Partner, error) {
	return store.One(ctx, q, func(r store.Row) (Partner, error) {
		var p Partner
		var created int64
		err := r.Scan(&p.ID, &p.Name, &created)
		p.Created = store.Time(created)
		return p, err
	}, `SELECT id, name, created FROM portal_partner WHERE name = $1`, name)
}

// AddCredential stores a credential. It reports false when the id is taken.
func AddCredential(ctx context.Context, tx *store.Tx, c Credential) (bool, error) {
	n, err := tx.Exec(ctx, `INSERT INTO portal_credential (id, partner, hash, scopes, created)
		VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING`,
		c.ID, c.Partner, c.Hash, c.Scopes, store.Micros(c.Created))
	return n == 1, err
}

// CredentialByID returns a credential of whatever partner: it is what tells
// the partner.
func CredentialByID(ctx context.Context, q store.Querier, id string) (Credential, error) {
	return store.One(ctx, q, func(r store.Row) (Credential, error) {
		var c Credential
		var created int64
		err := r.Scan(&c.ID, &c.Partner, &c.Hash, &c.Scopes, &created)
		c.Created = store.Time(created)
		return c, err
	}, `SELECT id, partner, hash, scopes, created FROM portal_credential WHERE id = $1`, id)
}

// DeleteCredential forgets a credential and returns it; it is not known from
// then on.
func DeleteCredential(ctx context.Context, tx *store.Tx, id string) (Credential, error) {
	c, err := CredentialByID(ctx, tx, id)
	if err != nil {
		return Credential{}, err
	}
	_, err = tx.Exec(ctx, `DELETE FROM portal_credential WHERE id = $1`, id)
	return c, err
}
