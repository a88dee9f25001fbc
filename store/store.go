// Package store opens the SQL database behind the portal and the platform:
// SQLite in a file by default, PostgreSQL by configuration alone.
//
// Both engines run one and the same SQL text: numbered parameters ($1), times
// as BIGINT microseconds since 1970 in UTC (Micros), byte strings as BYTEA,
// truth values as BOOLEAN, keys made by the program. A statement that only one
// engine understands does not belong in an adapter; every adapter runs its
// tests on both (package storetest).
//
// A transaction is serializable on both engines and durable when InTx returns:
// whoever answers "done" afterwards tells the truth.
//
// It must not know any table: those belong to the adapters below it.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // driver "pgx"
	_ "modernc.org/sqlite"             // driver "sqlite"
)

// Engine names a database engine.
type Engine string

// The engines.
const (
	SQLite     Engine = "sqlite"
	PostgreSQL Engine = "postgres"
)

// Sizes of the connection pools.
const (
	sqliteReaders = 4
	postgresConns = 16
	// busyTimeout is how long SQLite waits for another process's write lock.
	busyTimeout = 10 * time.Second
	idleTimeout = 5 * time.Minute
)

// ErrNotFound is returned by One when there is no row.
var ErrNotFound = errors.New("no such row")

// DB is an open database. It is safe for concurrent use.
type DB struct {
	engine Engine
	write  *sql.DB
	read   *sql.DB // the same pool as write on PostgreSQL
	folder string  // of the SQLite file
}

// Open opens the database that dsn names: "sqlite:PATH" (made when it is not
// there; its folder must be) or "postgres://...". It reaches the database
// before it returns. The caller closes it.
func Open(ctx context.Context, dsn string) (*DB, error) {
	db, err := open(dsn)
	if err != nil {
		return nil, err
	}
	for _, pool := range []*sql.DB{db.write, db.read} {
		if err := pool.PingContext(ctx); err != nil {
			return nil, errors.Join(fmt.Errorf("reaching the %s database: %w", db.engine, err), db.Close())
		}
	}
	return db, nil
}

func open(dsn string) (*DB, error) {
	scheme, rest, _ := strings.Cut(dsn, ":")
	switch scheme {
	case "sqlite":
		return openSQLite(rest)
	case "postgres", "postgresql":
		pool, err := sql.Open("pgx", dsn)
		if err != nil {
			return nil, fmt.Errorf("the PostgreSQL address cannot be used: %w", err)
		}
		pool.SetMaxOpenConns(postgresConns)
		pool.SetMaxIdleConns(postgresConns)
		pool.SetConnMaxIdleTime(idleTimeout)
		return &DB{engine: PostgreSQL, write: pool, read: pool}, nil
	default:
		return nil, errors.New(`a database address starts with "sqlite:" or "postgres://"`)
	}
}

// openSQLite opens two pools on one file: SQLite has one writer at a time, so
// one connection writes and writers queue in Go, where a context ends the wait.
func openSQLite(path string) (*DB, error) {
	if path == "" {
		return nil, errors.New(`the database address has no file: write "sqlite:PATH"`)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("finding the database file: %w", err)
	}
	file := url.URL{Scheme: "file", Path: abs}
	options := url.Values{}
	options.Set("_busy_timeout", strconv.FormatInt(busyTimeout.Milliseconds(), 10))
	options.Set("_journal_mode", "WAL")
	options.Set("_synchronous", "FULL") // in WAL mode only FULL makes a commit survive power loss
	options.Set("_foreign_keys", "1")
	options.Set("_dqs", "0")            // a misspelled column in double quotes is an error, as on PostgreSQL
	options.Set("_txlock", "immediate") // take the write lock first: no deadlock between two readers that then write
	file.RawQuery = options.Encode()
	write, err := sql.Open("sqlite", file.String())
	if err != nil {
		return nil, fmt.Errorf("opening the database file: %w", err)
	}
	write.SetMaxOpenConns(1)

	options.Del("_txlock")
	options.Set("_query_only", "1")
	file.RawQuery = options.Encode()
	read, err := sql.Open("sqlite", file.String())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening the database file: %w", err), write.Close())
	}
	read.SetMaxOpenConns(sqliteReaders)
	read.SetMaxIdleConns(sqliteReaders)
	return &DB{engine: SQLite, write: write, read: read, folder: filepath.Dir(abs)}, nil
}

// Engine returns which engine runs below.
func (db *DB) Engine() Engine { return db.engine }

// Close closes the database. It waits for running queries.
func (db *DB) Close() error {
	if db.read == db.write {
		return db.write.Close()
	}
	return errors.Join(db.read.Close(), db.write.Close())
}

// Micros returns t as the database keeps it: microseconds since 1970 in UTC,
// and 0 for the zero time.
func Micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// Time returns the time that Micros wrote, in UTC.
func Time(micros int64) time.Time {
	if micros == 0 {
		return time.Time{}
	}
	return time.UnixMicro(micros).UTC()
}
