package store_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"livemend.dev/livemend/store"
	"livemend.dev/livemend/store/storetest"
)

func TestMain(m *testing.M) { os.Exit(storetest.Run(m)) }

// schema uses every column type that adapters use.
var schema = store.Migrations{Name: "test", Files: fstest.MapFS{
	"00001_first.sql": {Data: []byte(`-- +goose Up
CREATE TABLE parent (id TEXT NOT NULL PRIMARY KEY);
CREATE TABLE child (
	id BIGINT NOT NULL PRIMARY KEY,
	parent TEXT NOT NULL REFERENCES parent (id),
	raw BYTEA NOT NULL,
	flag BOOLEAN NOT NULL,
	at BIGINT NOT NULL,
	UNIQUE (parent, at)
);
`)},
	"00002_counter.sql": {Data: []byte(`-- +goose Up
CREATE TABLE counter (name TEXT NOT NULL PRIMARY KEY, n BIGINT NOT NULL);
INSERT INTO counter (name, n) VALUES ('a', 0), ('b', 0);
`)},
}}

type child struct {
	id     int64
	parent string
	raw    []byte
	flag   bool
	at     time.Time
}

func scanChild(r store.Row) (child, error) {
	var c child
	var at int64
	err := r.Scan(&c.id, &c.parent, &c.raw, &c.flag, &at)
	c.at = store.Time(at)
	return c, err
}

const selectChild = `SELECT id, parent, raw, flag, at FROM child `

func TestTypesComeBackAsTheyWereWritten(t *testing.T) {
	storetest.Each(t, schema, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		at := time.Date(2026, 11, 23, 1, 2, 3, 456789000, time.UTC)
		want := child{store.Micros(at), "p ü'\"", []byte{0, 255, 'x'}, true, at}
		err := db.InTx(ctx, func(tx *store.Tx) error {
			if _, err := tx.Exec(ctx, `INSERT INTO parent (id) VALUES ($1)`, want.parent); err != nil {
				return err
			}
			// $2 twice, and out of order.
			n, err := tx.Exec(ctx, `INSERT INTO child (raw, id, parent, flag, at) VALUES ($3, $2, $1, $4, $2)`,
				want.parent, want.id, want.raw, want.flag)
			if n != 1 {
				t.Errorf("Exec reports %d rows, want 1", n)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		got, err := store.One(ctx, db, scanChild, selectChild+`WHERE id = $1 AND flag`, want.id)
		if err != nil {
			t.Fatal(err)
		}
		if got.id != want.id || got.parent != want.parent || string(got.raw) != string(want.raw) || !got.flag || !got.at.Equal(want.at) {
			t.Errorf("got %+v, want %+v", got, want)
		}
		if _, err := store.One(ctx, db, scanChild, selectChild+`WHERE id = $1`, int64(2)); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("no row: %v, want ErrNotFound", err)
		}
	})
}

func TestErrorRollsBack(t *testing.T) {
	storetest.Each(t, schema, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		stop := errors.New("stop")
		insert := func(result error) error {
			return db.InTx(ctx, func(tx *store.Tx) error {
				if _, err := tx.Exec(ctx, `INSERT INTO parent (id) VALUES ('x')`); err != nil {
					return err
				}
				return result
			})
		}
		if err := insert(stop); !errors.Is(err, stop) {
			t.Fatalf("InTx = %v, want the error of fn", err)
		}
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic of fn was swallowed")
				}
			}()
			err := db.InTx(ctx, func(*store.Tx) error { panic("fn") })
			t.Errorf("InTx returned %v", err)
		}()
		// Both left nothing, and no lock.
		if err := insert(nil); err != nil {
			t.Fatal(err)
		}
		if err := insert(nil); !store.IsUnique(err) {
			t.Errorf("the same key again: %v, want a unique violation", err)
		}
		err := db.InTx(ctx, func(tx *store.Tx) error {
			_, err := tx.Exec(ctx, `INSERT INTO child (id, parent, raw, flag, at) VALUES (1, 'nobody', $1, TRUE, 0)`, []byte{})
			return err
		})
		if err == nil || store.IsUnique(err) {
			t.Errorf("a child without parent: %v, want a foreign key violation", err)
		}
	})
}

// TestNoLostUpdate moves between two counters from many goroutines with a read
// in between: without serializable transactions and retries, updates are lost.
func TestNoLostUpdate(t *testing.T) {
	storetest.Each(t, schema, func(t *testing.T, db *store.DB) {
		const workers, rounds = 4, 15
		ctx := t.Context()
		var all sync.WaitGroup
		for range workers {
			all.Go(func() {
				for range rounds {
					if err := increment(ctx, db); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		all.Wait()
		for _, name := range []string{"a", "b"} {
			n, err := store.One(ctx, db, store.Scalar[int64], `SELECT n FROM counter WHERE name = $1`, name)
			if err != nil {
				t.Fatal(err)
			}
			if n != workers*rounds {
				t.Errorf("counter %s = %d, want %d", name, n, workers*rounds)
			}
		}
	})
}

func increment(ctx context.Context, db *store.DB) error {
	return db.InTx(ctx, func(tx *store.Tx) error {
		for _, name := range []string{"a", "b"} {
			n, err := store.One(ctx, tx, store.Scalar[int64], `SELECT n FROM counter WHERE name = $1`, name)
			if err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, `UPDATE counter SET n = $1 WHERE name = $2`, n+1, name); err != nil {
				return err
			}
		}
		return nil
	})
}

func TestMigrateAgainAndAtTheSameTime(t *testing.T) {
	storetest.EachDSN(t, func(t *testing.T, dsn string) {
		var all sync.WaitGroup
		for range 3 {
			db, err := store.Open(t.Context(), dsn)
			if err != nil {
				t.Fatal(err)
			}
			all.Go(func() {
				if err := errors.Join(store.Migrate(t.Context(), db, schema), db.Close()); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		db := storetest.Open(t, dsn, schema)
		other := store.Migrations{Name: "other", Files: fstest.MapFS{
			"00001_first.sql": {Data: []byte("-- +goose Up\nCREATE TABLE other (id TEXT NOT NULL PRIMARY KEY);\n")},
		}}
		if err := store.Migrate(t.Context(), db, other); err != nil {
			t.Errorf("a second adapter in the same database: %v", err)
		}
	})
}

func TestReadsOutsideTransactionsCannotWrite(t *testing.T) {
	db := storetest.Open(t, storetest.SQLite(t), schema)
	_, err := store.All(t.Context(), db, store.Scalar[int64], `UPDATE counter SET n = 9 RETURNING n`)
	if err == nil {
		t.Error("a query of the reading pool changed the database")
	}
}

func TestSQLitePathIsTakenLiterally(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a b?c#d%20e.db")
	storetest.Open(t, "sqlite:"+path, schema)
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}

func TestCancelledContextEndsTheWaitForTheWriter(t *testing.T) {
	db := storetest.Open(t, storetest.SQLite(t), schema)
	err := db.InTx(t.Context(), func(*store.Tx) error {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		return db.InTx(ctx, func(*store.Tx) error { return nil })
	})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second writer: %v, want deadline exceeded", err)
	}
}

func TestOpenRefusesWhatItCannotServe(t *testing.T) {
	for _, dsn := range []string{"", "sqlite:", "mysql://x", "sqlite:" + t.TempDir() + "/no/folder/x.db", "postgres:///x?host=" + t.TempDir()} {
		if db, err := store.Open(t.Context(), dsn); err == nil {
			t.Errorf("Open(%q) succeeded: %v", dsn, db.Close())
		}
	}
}

func TestZeroTime(t *testing.T) {
	if store.Micros(time.Time{}) != 0 || !store.Time(0).IsZero() {
		t.Error("the zero time does not come back")
	}
}
