// Package storetest runs a test on every engine that package store speaks: on
// SQLite in a temporary folder and on a PostgreSQL cluster that belongs to this
// test binary alone. It is for tests only; nothing else may import it.
package storetest

import (
	"fmt"
	"path/filepath"
	"testing"

	"livemend.dev/livemend/store"
)

// Each runs f as one subtest per engine, each with an empty database in which
// the migrations have run.
func Each(t *testing.T, m store.Migrations, f func(t *testing.T, db *store.DB)) {
	t.Helper()
	EachDSN(t, func(t *testing.T, dsn string) { f(t, Open(t, dsn, m)) })
}

// EachDSN runs f as one subtest per engine, each with the address of an empty
// database, for tests that open it themselves or more than once.
func EachDSN(t *testing.T, f func(t *testing.T, dsn string)) {
	t.Helper()
	t.Run(string(store.SQLite), func(t *testing.T) { f(t, SQLite(t)) })
	t.Run(string(store.PostgreSQL), func(t *testing.T) { f(t, PostgreSQL(t)) })
}

// SQLite returns the address of a new SQLite database.
func SQLite(t testing.TB) string {
	t.Helper()
	return "sqlite:" + filepath.Join(t.TempDir(), "test.db")
}

// PostgreSQL returns the address of a new, empty PostgreSQL database, dropped
// at the end of the test. Without PostgreSQL on the machine it skips the test,
// saying why.
func PostgreSQL(t testing.TB) string {
	t.Helper()
	c := private(t)
	name := fmt.Sprintf("test%d", c.databases.Add(1))
	c.admin(t, "CREATE DATABASE "+name+" TEMPLATE template0 STRATEGY file_copy")
	t.Cleanup(func() { c.admin(t, "DROP DATABASE "+name+" WITH (FORCE)") })
	return c.dsn(name)
}

// Open opens the database at dsn, runs the migrations and closes it at the end
// of the test.
func Open(t testing.TB, dsn string, m store.Migrations) *store.DB {
	t.Helper()
	db, err := store.Open(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("closing the database: %v", err)
		}
	})
	if err := store.Migrate(t.Context(), db, m); err != nil {
		t.Fatal(err)
	}
	return db
}
