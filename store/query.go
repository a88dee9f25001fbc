package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// Bounds of the retries of one transaction.
const (
	maxAttempts = 12
	firstPause  = 2 * time.Millisecond
	longestWait = 200 * time.Millisecond
)

// Querier reads: a DB outside transactions, a Tx inside one.
type Querier interface {
	query(ctx context.Context, text string, args ...any) (*sql.Rows, error)
}

// Row is one row of an answer.
type Row interface {
	// Scan copies the columns of the row to dest, like (*sql.Rows).Scan.
	Scan(dest ...any) error
}

// Tx is a running transaction. It is not for concurrent use.
type Tx struct{ tx *sql.Tx }

func (db *DB) query(ctx context.Context, text string, args ...any) (*sql.Rows, error) {
	return db.read.QueryContext(ctx, text, args...)
}

func (t *Tx) query(ctx context.Context, text string, args ...any) (*sql.Rows, error) {
	return t.tx.QueryContext(ctx, text, args...)
}

// Exec runs a statement and returns how many rows it changed.
func (t *Tx) Exec(ctx context.Context, text string, args ...any) (int64, error) {
	result, err := t.tx.ExecContext(ctx, text, args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// All runs a query and returns its rows as scan reads them. The caller bounds
// the number of rows in the query (LIMIT). A DB is asked outside any
// transaction and sees what was committed.
func All[T any](ctx context.Context, q Querier, scan func(Row) (T, error), text string, args ...any) ([]T, error) {
	rows, err := q.query(ctx, text, args...)
	if err != nil {
		return nil, err
	}
	var out []T
	for rows.Next() {
		item, err := scan(rows)
		if err != nil {
			return nil, errors.Join(err, rows.Close())
		}
		out = append(out, item)
	}
	return out, errors.Join(rows.Err(), rows.Close())
}

// One runs a query that yields at most one row and returns it, or ErrNotFound.
func One[T any](ctx context.Context, q Querier, scan func(Row) (T, error), text string, args ...any) (T, error) {
	var none T
	items, err := All(ctx, q, scan, text, args...)
	switch {
	case err != nil:
		return none, err
	case len(items) == 0:
		return none, ErrNotFound
	case len(items) > 1:
		return none, fmt.Errorf("a query for one row found %d", len(items))
	}
	return items[0], nil
}

// Scalar scans a row of one column, for All and One.
func Scalar[T any](r Row) (T, error) {
	var v T
	err := r.Scan(&v)
	return v, err
}

// InTx runs fn in one serializable transaction and commits it durably. When fn
// returns an error, everything is rolled back and that error is returned.
//
// When the engine asks to try again (a serialization failure, a deadlock, a
// busy file), fn is run again from the start, a bounded number of times: fn
// must not change anything but the database and variables that it sets anew.
func (db *DB) InTx(ctx context.Context, fn func(*Tx) error) error {
	pause := firstPause
	for attempt := 1; ; attempt++ {
		err := db.once(ctx, fn)
		if err == nil || !retryable(err) {
			return err
		}
		if attempt == maxAttempts {
			return fmt.Errorf("the database was too busy %d times in a row, nothing was changed: %w", maxAttempts, err)
		}
		// A random part keeps two that collided from colliding again.
		timer := time.NewTimer(pause/2 + rand.N(pause))
		select {
		case <-ctx.Done():
			timer.Stop()
			return errors.Join(ctx.Err(), err)
		case <-timer.C:
		}
		pause = min(2*pause, longestWait)
	}
}

func (db *DB) once(ctx context.Context, fn func(*Tx) error) (err error) {
	var options *sql.TxOptions // SQLite's transactions are serializable without being asked
	if db.engine == PostgreSQL {
		options = &sql.TxOptions{Isolation: sql.LevelSerializable}
	}
	tx, err := db.write.BeginTx(ctx, options)
	if err != nil {
		return err
	}
	committed := false
	defer func() { // also when fn panics: a transaction left open would block every writer
		if committed {
			return
		}
		if undo := tx.Rollback(); undo != nil && !errors.Is(undo, sql.ErrTxDone) {
			err = errors.Join(err, undo)
		}
	}()
	if err := fn(&Tx{tx: tx}); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("committing: %w", err)
	}
	committed = true
	return nil
}

// PostgreSQL's error codes that matter here.
const (
	pgSerialization = "40001"
	pgDeadlock      = "40P01"
	pgUnique        = "23505"
)

// retryable reports whether the same transaction may succeed when run again.
func retryable(err error) bool {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code == pgSerialization || pg.Code == pgDeadlock
	}
	var lite *sqlite.Error
	if errors.As(err, &lite) {
		primary := lite.Code() & 0xff
		return primary == sqlite3.SQLITE_BUSY || primary == sqlite3.SQLITE_LOCKED
	}
	return false
}

// IsUnique reports whether err says that a row with the same key exists. On
// PostgreSQL the transaction is lost then; where that is expected, write
// ON CONFLICT DO NOTHING and look at the number of rows.
func IsUnique(err error) bool {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code == pgUnique
	}
	var lite *sqlite.Error
	return errors.As(err, &lite) &&
		(lite.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE || lite.Code() == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY)
}
