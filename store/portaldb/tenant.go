package portaldb

import (
	"context"
	"time"

	"livemend.dev/livemend/store"
)

// Tenant reaches the data of one partner, and of no other.
type Tenant struct{ partner string }

// TenantOf returns the tenant of a partner that a credential proved.
func TenantOf(partnerID string) Tenant { return Tenant{partner: partnerID} }

// AddCustomer stores a customer. It reports false when the id is taken.
func (t Tenant) AddCustomer(ctx context.Context, tx *store.Tx, c Customer) (bool, error) {
	n, err := tx.Exec(ctx, `INSERT INTO portal_customer (id, partner, name, created)
		VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`, c.ID, t.partner, c.Name, store.Micros(c.Created))
	return n == 1, err
}

const selectCustomer = `SELECT id, name, created FROM portal_customer WHERE partner = $1 `

func scanCustomer(r store.Row) (Customer, error) {
	var c Customer
	var created int64
	err := r.Scan(&c.ID, &c.Name, &created)
	c.Created = store.Time(created)
	return c, err
}

// Customer returns one customer.
func (t Tenant) Customer(ctx context.Context, q store.Querier, id string) (Customer, error) {
	return store.One(ctx, q, scanCustomer, selectCustomer+`AND id = $2`, t.partner, id)
}

// Customers returns the partner's customers, oldest first, or ErrMany.
func (t Tenant) Customers(ctx context.Context, q store.Querier) ([]Customer, error) {
	return list(ctx, q, scanCustomer, selectCustomer+`ORDER BY created, id`, t.partner)
}

// AddKey stores a registration key. It reports false when the id is taken.
func (t Tenant) AddKey(ctx context.Context, tx *store.Tx, k Key) (bool, error) {
	n, err := tx.Exec(ctx, `INSERT INTO portal_key (id, partner, customer, public, note, server_limit, expires, enabled, created)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING`,
		k.ID, t.partner, k.Customer, k.Public, k.Note, k.ServerLimit, store.Micros(k.Expires), k.Enabled, store.Micros(k.Created))
	return n == 1, err
}

const selectKey = `SELECT id, customer, public, note, server_limit,
	(SELECT count(*) FROM portal_system s WHERE s.key_id = k.id AND s.partner = k.partner),
	expires, enabled, created FROM portal_key k WHERE partner = $1 `

func scanKey(r store.Row) (Key, error) {
	var k Key
	var expires, created int64
	err := r.Scan(&k.ID, &k.Customer, &k.Public, &k.Note, &k.ServerLimit, &k.Servers, &expires, &k.Enabled, &created)
	k.Expires, k.Created = store.Time(expires), store.Time(created)
	return k, err
}

// Key returns one registration key.
func (t Tenant) Key(ctx context.Context, q store.Querier, id string) (Key, error) {
	return store.One(ctx, q, scanKey, selectKey+`AND id = $2`, t.partner, id)
}

// Keys returns a customer's registration keys, oldest first, or ErrMany.
func (t Tenant) Keys(ctx context.Context, q store.Querier, customer string) ([]Key, error) {
	return list(ctx, q, scanKey, selectKey+`AND customer = $2 ORDER BY created, id`, t.partner, customer)
}

// SetKeyEnabled reports false when there is no such key.
func (t Tenant) SetKeyEnabled(ctx context.Context, tx *store.Tx, id string, enabled bool) (bool, error) {
	n, err := tx.Exec(ctx, `UPDATE portal_key SET enabled = $1 WHERE partner = $2 AND id = $3`, enabled, t.partner, id)
	return n == 1, err
}

// DeleteKey reports false when there is no such key.
func (t Tenant) DeleteKey(ctx context.Context, tx *store.Tx, id string) (bool, error) {
	n, err := tx.Exec(ctx, `DELETE FROM portal_key WHERE partner = $1 AND id = $2`, t.partner, id)
	return n == 1, err
}

// AddSystem stores a system. It reports false when the id or the identity key
// is taken.
func (t Tenant) AddSystem(ctx context.Context, tx *store.Tx, s System) (bool, error) {
	n, err := tx.Exec(ctx, `INSERT INTO portal_system (id, partner, customer, key_id, identity_key, channel_key,
			hostname, machine_id, os, os_version, kernel, kernel_id, arch, flags, created, registered)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $15) ON CONFLICT DO NOTHING`,
		s.ID, t.partner, s.Customer, s.Key, s.IdentityKey, s.ChannelKey,
		s.Hostname, s.MachineID, s.OS, s.OSVersion, s.Kernel, s.KernelID, s.Arch, s.Flags, store.Micros(s.Created))
	return n == 1, err
}

// RefreshSystem stores what a system that registers again says of itself now.
func (t Tenant) RefreshSystem(ctx context.Context, tx *store.Tx, s System) error {
	_, err := tx.Exec(ctx, `UPDATE portal_system SET channel_key = $1, hostname = $2, machine_id = $3, os = $4,
			os_version = $5, kernel = $6, kernel_id = $7, arch = $8, registered = $9
		WHERE partner = $10 AND id = $11`,
		s.ChannelKey, s.Hostname, s.MachineID, s.OS, s.OSVersion, s.Kernel, s.KernelID, s.Arch,
		store.Micros(s.Registered), t.partner, s.ID)
	return err
}

const selectSystem = `SELECT id, customer, key_id, identity_key, channel_key, hostname, machine_id, os, os_version,
	kernel, kernel_id, arch, flags, created, registered FROM portal_system WHERE partner = $1 `

func scanSystem(r store.Row) (System, error) {
	var s System
	var created, registered int64
	err := r.Scan(&s.ID, &s.Customer, &s.Key, &s.IdentityKey, &s.ChannelKey, &s.Hostname, &s.MachineID, &s.OS, &s.OSVersion,
		&s.Kernel, &s.KernelID, &s.Arch, &s.Flags, &created, &registered)
	s.Created, s.Registered = store.Time(created), store.Time(registered)
	return s, err
}

// SystemByIdentity returns the system with that identity key.
func (t Tenant) SystemByIdentity(ctx context.Context, q store.Querier, identity []byte) (System, error) {
	return store.One(ctx, q, scanSystem, selectSystem+`AND identity_key = $2`, t.partner, identity)
}

// Systems returns a customer's systems, oldest first, or ErrMany.
func (t Tenant) Systems(ctx context.Context, q store.Querier, customer string) ([]System, error) {
	return list(ctx, q, scanSystem, selectSystem+`AND customer = $2 ORDER BY created, id`, t.partner, customer)
}

// MachineKnown reports whether a customer's system has that machine-id.
func (t Tenant) MachineKnown(ctx context.Context, q store.Querier, customer, machineID string) (bool, error) {
	n, err := store.One(ctx, q, store.Scalar[int64],
		`SELECT count(*) FROM portal_system WHERE partner = $1 AND customer = $2 AND machine_id = $3`,
		t.partner, customer, machineID)
	return n > 0, err
}

// DeleteSystem reports false when there is no such system.
func (t Tenant) DeleteSystem(ctx context.Context, tx *store.Tx, id string) (bool, error) {
	n, err := tx.Exec(ctx, `DELETE FROM portal_system WHERE partner = $1 AND id = $2`, t.partner, id)
	return n == 1, err
}

// Entry is one line of the audit record: who did what. It never holds a secret.
type Entry struct {
	ID     string
	At     time.Time
	Actor  string // credential's id, or the name of a program's command
	Action string // verb.noun
	Object string // id of what it was done to
	Detail string // for people
}

// AddEntry appends to the audit record, in the transaction of the deed.
func (t Tenant) AddEntry(ctx context.Context, tx *store.Tx, e Entry) error {
	_, err := tx.Exec(ctx, `INSERT INTO portal_audit (id, partner, at, actor, action, object, detail)
		VALUES ($1, $2, $3, $4, $5, $6, $7)`, e.ID, t.partner, store.Micros(e.At), e.Actor, e.Action, e.Object, e.Detail)
	return err
}

// Entries returns the newest lines of the audit record, newest first.
func (t Tenant) Entries(ctx context.Context, q store.Querier, limit int) ([]Entry, error) {
	return store.All(ctx, q, func(r store.Row) (Entry, error) {
		var e Entry
		var at int64
		err := r.Scan(&e.ID, &at, &e.Actor, &e.Action, &e.Object, &e.Detail)
		e.At = store.Time(at)
		return e, err
	}, `SELECT id, at, actor, action, object, detail FROM portal_audit WHERE partner = $1 ORDER BY at DESC, id DESC LIMIT $2`,
		t.partner, min(limit, MaxList))
}
