// Package platformdb keeps the platform's records in SQL, one text for SQLite
// and PostgreSQL. Its functions read through a store.Querier and write in the
// caller's transaction, so that one deed, its audit entry and its event are one.
//
// A function that takes an organisation touches nothing outside it. The few
// that do not are for the platform's own work: agents by their key, and the
// runner. It must hold no rules: those are in coverage, rollout and access.
package platformdb

import (
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"livemend.dev/livemend/audit"
	"livemend.dev/livemend/fleet"
	"livemend.dev/livemend/store"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrations returns the schema.
func Migrations() store.Migrations {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		panic(err) // the folder is embedded above: only a broken build can lack it
	}
	return store.Migrations{Name: "platform", Files: files}
}

// Names of the sequences.
const (
	jobSequence   = "job"
	eventSequence = "event"
	auditSequence = "audit"
)

// maxList bounds the lists that have no pages.
const maxList = 100_000

// next returns the next number of a sequence. The row stays locked until the
// transaction ends, so numbers become visible in their order.
func next(ctx context.Context, tx *store.Tx, org, name string) (int64, error) {
	return store.One(ctx, tx, store.Scalar[int64], `INSERT INTO platform_sequence (organisation_id, name, value) VALUES ($1, $2, 1)
		ON CONFLICT (organisation_id, name) DO UPDATE SET value = platform_sequence.value + 1 RETURNING value`, org, name)
}

// NextJob returns the number of the organisation's next job.
func NextJob(ctx context.Context, tx *store.Tx, org string) (int64, error) {
	return next(ctx, tx, org, jobSequence)
}

// AddAudit appends an entry and gives it its number.
func AddAudit(ctx context.Context, tx *store.Tx, org string, e audit.Entry) error {
	id, err := next(ctx, tx, org, auditSequence)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `INSERT INTO platform_audit (organisation_id, id, at, actor, action, object, detail) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		org, id, store.Micros(e.At), e.Actor, e.Action, e.Object, e.Detail)
	return err
}

// Audit returns up to limit entries with numbers below before, newest first,
// and how many there are in all.
func Audit(ctx context.Context, q store.Querier, org string, before int64, limit int) ([]audit.Entry, int64, error) {
	total, err := store.One(ctx, q, store.Scalar[int64], `SELECT count(*) FROM platform_audit WHERE organisation_id = $1`, org)
	if err != nil {
		return nil, 0, err
	}
	entries, err := store.All(ctx, q, func(r store.Row) (e audit.Entry, err error) {
		var at int64
		err = r.Scan(&e.ID, &at, &e.Actor, &e.Action, &e.Object, &e.Detail)
		e.At = store.Time(at)
		return e, err
	}, `SELECT id, at, actor, action, object, detail FROM platform_audit WHERE organisation_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3`, org, before, limit)
	return entries, total, err
}

// AddEvent appends an event and gives it its number.
func AddEvent(ctx context.Context, tx *store.Tx, org string, e fleet.Event) error {
	id, err := next(ctx, tx, org, eventSequence)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `INSERT INTO platform_event (organisation_id, id, kind, job_id, task_id, server_id, text, at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
		org, id, e.Kind, e.Job, e.Task, e.Server, e.Text, store.Micros(e.At))
	return err
}

const eventColumns = `id, kind, job_id, task_id, server_id, text, at`

func scanEvent(r store.Row) (e fleet.Event, err error) {
	var at int64
	err = r.Scan(&e.ID, &e.Kind, &e.Job, &e.Task, &e.Server, &e.Text, &at)
	e.At = store.Time(at)
	return e, err
}

// EventsAfter returns events with numbers above after, oldest first. Job 0 and
// an empty server do not narrow.
func EventsAfter(ctx context.Context, q store.Querier, org string, after, job int64, server string, limit int) ([]fleet.Event, error) {
	return store.All(ctx, q, scanEvent, `SELECT `+eventColumns+` FROM platform_event WHERE organisation_id = $1 AND id > $2
		AND (CAST($3 AS BIGINT) = 0 OR job_id = $3) AND ($4 = '' OR server_id = $4) ORDER BY id LIMIT $5`, org, after, job, server, limit)
}

// LastEvents returns the newest events, newest first.
func LastEvents(ctx context.Context, q store.Querier, org string, job int64, server string, limit int) ([]fleet.Event, error) {
	return store.All(ctx, q, scanEvent, `SELECT `+eventColumns+` FROM platform_event WHERE organisation_id = $1
		AND (CAST($2 AS BIGINT) = 0 OR job_id = $2) AND ($3 = '' OR server_id = $3) ORDER BY id DESC LIMIT $4`, org, job, server, limit)
}

// InsertOrganisation stores a new organisation.
func InsertOrganisation(ctx context.Context, tx *store.Tx, o fleet.Organisation) error {
	_, err := tx.Exec(ctx, `INSERT INTO platform_organisation (id, name, customer_id, created_at) VALUES ($1, $2, $3, $4)`,
		o.ID, o.Name, o.CustomerID, store.Micros(o.CreatedAt))
	return err
}

const organisationColumns = `id, name, customer_id, created_at`

func scanOrganisation(r store.Row) (o fleet.Organisation, err error) {
	var at int64
	err = r.Scan(&o.ID, &o.Name, &o.CustomerID, &at)
	o.CreatedAt = store.Time(at)
	return o, err
}

// Organisations returns all organisations, oldest first.
func Organisations(ctx context.Context, q store.Querier) ([]fleet.Organisation, error) {
	return store.All(ctx, q, scanOrganisation, `SELECT `+organisationColumns+` FROM platform_organisation ORDER BY created_at, id LIMIT $1`, maxList)
}

// Organisation returns one organisation, or store.ErrNotFound.
func Organisation(ctx context.Context, q store.Querier, id string) (fleet.Organisation, error) {
	return store.One(ctx, q, scanOrganisation, `SELECT `+organisationColumns+` FROM platform_organisation WHERE id = $1`, id)
}

// OrganisationByCustomer returns the organisation that the portal knows under a
// Customer ID, or store.ErrNotFound.
func OrganisationByCustomer(ctx context.Context, q store.Querier, customerID string) (fleet.Organisation, error) {
	return store.One(ctx, q, scanOrganisation, `SELECT `+organisationColumns+` FROM platform_organisation WHERE customer_id = $1`, customerID)
}

// encode writes a column that holds a list or an object.
func encode(v any) (string, error) {
	b, err := json.Marshal(v)
	return string(b), err
}

// decode reads what encode wrote.
func decode(column, text string, v any) error {
	if err := json.Unmarshal([]byte(text), v); err != nil {
		return fmt.Errorf("the stored column %s cannot be read: %w", column, err)
	}
	return nil
}

// contains returns a LIKE pattern for text that holds part, in lower case; use
// it with ESCAPE '!'.
func contains(part string) string {
	return "%" + strings.NewReplacer("!", "!!", "%", "!%", "_", "!_").Replace(strings.ToLower(part)) + "%"
}

// times scans several columns of microseconds into times.
type times []struct {
	from *int64
	to   *time.Time
}

func (t times) set() {
	for _, p := range t {
		*p.to = store.Time(*p.from)
	}
}
