package store

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
	"golang.org/x/sys/unix"
)

// lockRetry is how often a busy migration lock is tried again.
const lockRetry = 50 * time.Millisecond

// Migrations are one adapter's schema: goose's SQL files (00001_name.sql) at
// the top of Files. Name, of letters only, also names the table that remembers
// what has run, so that several adapters can share one database.
type Migrations struct {
	Name  string
	Files fs.FS
}

// Migrate brings the adapter's tables to the newest schema. Replicas that
// start at the same moment wait for each other. It may be called any number of
// times.
func Migrate(ctx context.Context, db *DB, m Migrations) (err error) {
	options := []goose.ProviderOption{
		goose.WithTableName("migrations_" + m.Name),
		goose.WithDisableGlobalRegistry(true),
		goose.WithSlog(slog.New(slog.DiscardHandler)), // the caller reports; nothing is hidden: errors are returned
	}
	dialect := goose.DialectSQLite3
	if db.engine == PostgreSQL {
		dialect = goose.DialectPostgres
		id := fnv.New32a()
		id.Write([]byte("livemend migrations " + m.Name))
		locker, err := lock.NewPostgresSessionLocker(lock.WithLockID(int64(id.Sum32())))
		if err != nil {
			return fmt.Errorf("preparing the migration lock: %w", err)
		}
		options = append(options, goose.WithSessionLocker(locker))
	} else {
		folder, failed := lockFolder(ctx, db.folder)
		if failed != nil {
			return fmt.Errorf("waiting for another program's migration in %s: %w", db.folder, failed)
		}
		defer func() { err = errors.Join(err, folder.Close()) }()
	}
	provider, err := goose.NewProvider(dialect, db.write, m.Files, options...)
	if err != nil {
		return fmt.Errorf("reading the migrations of %s: %w", m.Name, err)
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("migrating the tables of %s (a migration that failed has changed nothing): %w", m.Name, err)
	}
	return nil
}

// lockFolder takes the advisory lock of a folder: SQLite's own locks protect
// one statement at a time, not a run of migrations. Closing the file unlocks.
func lockFolder(ctx context.Context, path string) (*os.File, error) {
	folder, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	again := time.NewTicker(lockRetry)
	defer again.Stop()
	for {
		err := unix.Flock(int(folder.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return folder, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(err, folder.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), folder.Close())
		case <-again.C:
		}
	}
}
